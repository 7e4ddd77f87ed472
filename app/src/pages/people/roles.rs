//! Roles, a form for another, and one role.

use super::looks;
use crate::components::button::{self, Button};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::env::may;
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::rights::may_change;
use shared::access::{Privilege, Role};
use shared::api::{Call, GetRole, ListQuery, ListRoles, MAX_PAGE_SIZE, RolePage};

const HERE: &str = "/roles";

fn above() -> Vec<(String, String)> {
    vec![("/users".to_owned(), w().users.to_owned())]
}

pub fn page() -> AnyView {
    let looks = looks();
    let read = |bodies: &Bodies| Ok(body::<RolePage>(bodies, 0)?.roles);
    view! {
        <Title text=w().roles/>
        {bar(above(), w().roles.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().roles}</h1>
        </div>
        <p class="soft">{w().role_lead}</p>
        {load(
            move || looks.get().to_string(),
            |_| {
                let query = ListQuery {
                    page_size: Some(MAX_PAGE_SIZE),
                    ..ListQuery::default()
                };
                all([ListRoles { query }.raw()])
            },
            read,
            |old, new| *old = new,
            list,
        )}
    }
    .into_any()
}

fn list(data: RwSignal<Vec<Role>>) -> AnyView {
    let rows = move || data.with(|roles| roles.iter().map(row).collect::<Vec<_>>());
    let action = "/do/roles/create";
    let fields = Fields::of(action);
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        required: true,
        is_name: true,
        ..Line::default()
    });
    view! {
        <div class="cols">
            <section class="panel list" aria-label=w().roles>
                <ul class="short">{rows}</ul>
            </section>
            <section class="panel" aria-labelledby="new-title">
                <header>
                    <h2 id="new-title">{w().new_role}</h2>
                </header>
                <div class="in">
                    <form method="post" action=action class="stack">
                        {fields.error(HERE)}
                        {name}
                        {description(&fields, "")}
                        {privileges(&fields, &[])}
                        {fields.submit("go", w().add, || may(Privilege::UserManage, None))}
                    </form>
                </div>
            </section>
        </div>
    }
    .into_any()
}

fn row(role: &Role) -> AnyView {
    let count = put(w().privilege_count, &[&role.privileges.len().to_string()]);
    let text = if role.description.is_empty() {
        count
    } else {
        format!("{} · {count}", role.description)
    };
    view! {
        <li>
            <span class="what">
                <a href=format!("/roles/{}", role.name)>
                    <b>{role.name.to_string()}</b>
                </a>
                {role.built_in.then(|| view! { " " <span class="tag">{w().built_in}</span> })}
                <span class="sub soft">{text}</span>
            </span>
        </li>
    }
    .into_any()
}

fn description(fields: &Fields, value: &str) -> AnyView {
    fields.line(Line {
        name: "description",
        label: w().description,
        value: value.to_owned(),
        ..Line::default()
    })
}

/// Every privilege with a box; those that the person has not cannot be ticked.
fn privileges(fields: &Fields, ticked: &[Privilege]) -> AnyView {
    let wrong = fields.typed("name").is_some();
    let boxes: Vec<_> = Privilege::ALL
        .iter()
        .map(|privilege| {
            let word = privilege.word();
            let refused = may(*privilege, None).err().map(|e| e.message);
            let on = !wrong && ticked.contains(privilege);
            view! {
                <label class="check" title=refused.clone()>
                    <input type="checkbox" name="privilege" value=word checked=on disabled=refused.is_some()/>
                    <span class="mono">{word}</span>
                </label>
            }
        })
        .collect();
    view! {
        <fieldset class="privileges">
            <legend>{w().privileges}</legend>
            <small>{w().privileges_hint}</small>
            {boxes}
        </fieldset>
    }
    .into_any()
}

/// One role.
pub fn one() -> AnyView {
    let (role, looks) = (param("role"), looks());
    let mut trail = above();
    trail.push((HERE.to_owned(), w().roles.to_owned()));
    let read = |bodies: &Bodies| -> Result<Role, Status> { body(bodies, 0) };
    view! {
        <Title text=move || role.get()/>
        {move || bar(trail.clone(), role.get())}
        {load(
            move || format!("{} {}", looks.get(), role.get()),
            move |_| all([GetRole { role: role.get_untracked() }.raw()]),
            read,
            |old, new| *old = new,
            shown,
        )}
    }
    .into_any()
}

fn shown(data: RwSignal<Role>) -> AnyView {
    let shown = move || {
        data.with(|role| {
            let (here, act) = (
                format!("/roles/{}", role.name),
                format!("/do/roles/{}", role.name),
            );
            let verdict = may_change(role).and_then(|()| may(Privilege::UserManage, None));
            let inner = match &verdict {
                Ok(()) => edit(role, &act, &here),
                Err(why) => fixed(role, &why.message),
            };
            let delete = Button {
                to: format!("{act}/delete"),
                label: w().delete_role,
                class: "danger",
                back: here,
                ..Button::default()
            };
            view! {
                <div class="title">
                    <h1 tabindex="-1">{role.name.to_string()}</h1>
                    <div class="actions">{button::post(delete, &verdict)}</div>
                </div>
                <section class="panel" aria-label=w().role>
                    <div class="in">{inner}</div>
                </section>
            }
        })
    };
    shown.into_any()
}

fn edit(role: &Role, act: &str, here: &str) -> AnyView {
    let action = format!("{act}/update");
    let fields = Fields::of(&action);
    view! {
        <form method="post" action=action class="stack">
            {fields.error(here)}
            {description(&fields, &role.description)}
            {privileges(&fields, &role.privileges)}
            <button class="go">{w().save}</button>
        </form>
    }
    .into_any()
}

fn fixed(role: &Role, why: &str) -> AnyView {
    let all: Vec<_> = role
        .privileges
        .iter()
        .map(|p| view! { <li class="mono">{p.word()}</li> })
        .collect();
    view! {
        <div class="note">{why.to_owned()}</div>
        <p>{role.description.clone()}</p>
        <ul class="plain">{all}</ul>
    }
    .into_any()
}
