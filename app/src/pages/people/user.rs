//! One user: roles, what they sign in with, where they are signed in.

use super::{granted, looks, sessions};
use crate::components::button::{self, Button, copy};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::time::ago;
use crate::env::{Env, flash};
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::{Role, Session, User};
use shared::api::{
    Call, GetUser, ListQuery, ListRoles, ListSessions, ListVms, MAX_PAGE_SIZE, RolePage, SessionPage, VmPage,
};

#[derive(Clone, Debug, PartialEq)]
struct Data {
    user: User,
    sessions: Vec<Session>,
    roles: Vec<Role>,
    /// Names of machines that a role may be given on.
    vms: Vec<String>,
}

pub fn page() -> AnyView {
    let (user, looks) = (param("user"), looks());
    let trail = vec![("/users".to_owned(), w().users.to_owned())];
    view! {
        <Title text=move || user.get()/>
        {move || bar(trail.clone(), user.get())}
        {load(
            move || format!("{} {}", looks.get(), user.get()),
            move |_| {
                let user = user.get_untracked();
                let query = ListQuery {
                    page_size: Some(MAX_PAGE_SIZE),
                    ..ListQuery::default()
                };
                all([
                    GetUser { user: user.clone() }.raw(),
                    ListSessions { user: Some(user) }.raw(),
                    ListRoles { query: ListQuery::default() }.raw(),
                    ListVms { query }.raw(),
                ])
            },
            read,
            |old, new| *old = new,
            shown,
        )}
    }
    .into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let vms: VmPage = body(bodies, 3)?;
    Ok(Data {
        user: body(bodies, 0)?,
        sessions: body::<SessionPage>(bodies, 1)?.sessions,
        roles: body::<RolePage>(bodies, 2)?.roles,
        vms: vms.vms.iter().map(|vm| vm.name.to_string()).collect(),
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let user = Memo::new(move |_| data.with(|d| d.user.clone()));
    let name = data.with_untracked(|d| d.user.name.to_string());
    let here = format!("/users/{name}");
    let act = format!("/do/users/{name}");
    let (act_of_roles, act_of_sessions, here_again) = (act.clone(), format!("{act}/sessions"), here.clone());
    let (act_of_user, here_of_user) = (act.clone(), here.clone());
    let (act_of_oidc, here_of_oidc) = (act.clone(), here.clone());
    view! {
        <div class="title">
            <h1 tabindex="-1">{name.clone()}</h1>
            {move || user.with(|u| u.disabled).then(|| view! { <span class="tag">{w().disabled}</span> })}
        </div>
        {link()}
        <div class="cols">
            <div class="stack">
                <section class="panel" aria-labelledby="roles-title">
                    <header>
                        <h2 id="roles-title">{w().roles}</h2>
                        <a href="/roles">{w().all}</a>
                    </header>
                    <div class="in">{give(&act, &here, &data.get_untracked())}</div>
                    {move || user.with(|u| roles(u, &act_of_roles))}
                </section>
                <section class="panel" aria-labelledby="sessions-title">
                    <header>
                        <h2 id="sessions-title">{w().sessions}</h2>
                    </header>
                    {move || data.with(|d| sessions(&d.sessions, &act_of_sessions, &here_again))}
                </section>
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="account-title">
                    <header>
                        <h2 id="account-title">{w().user}</h2>
                    </header>
                    <div class="in">
                        {move || user.with(|u| account(u, &act_of_user, &here_of_user))}
                        {rename(&act, &here, &name)}
                        {password(&act, &here)}
                        {move || user.with(|u| single_sign_on(u, &act_of_oidc, &here_of_oidc))}
                    </div>
                </section>
                <section class="panel" aria-labelledby="delete-title">
                    <header>
                        <h2 id="delete-title">{w().delete_user}</h2>
                    </header>
                    <div class="in">{delete(&act, &here, &name)}</div>
                </section>
            </div>
        </div>
    }
    .into_any()
}

/// A link that was just made: this once.
fn link() -> AnyView {
    let flash = flash();
    (move || {
        let made = flash.with(|f| {
            let flash = f.as_ref().filter(|f| f.action.ends_with("/link"))?;
            flash.secret.clone()
        })?;
        Some(view! {
            <div class="alert good" role="status">
                <p>
                    <b>{w().link_once}</b>
                </p>
                <div class="secret">
                    <code>{made.clone()}</code>
                    {copy(made, w().copy)}
                </div>
            </div>
        })
    })
    .into_any()
}

fn post(to: String, label: &'static str, class: &'static str, back: &str, of: String) -> AnyView {
    let button = Button {
        to,
        label,
        class,
        back: back.to_owned(),
        of,
        ..Button::default()
    };
    button::post(button, &Ok(()))
}

fn roles(user: &User, act: &str) -> AnyView {
    let rows: Vec<_> = user
        .grants
        .iter()
        .map(|grant| {
            let to = format!("{act}/grants/{}/delete", grant.id);
            let text = granted(grant);
            let back = format!("/users/{}", user.name);
            view! {
                <li>
                    <span class="what">{text.clone()}</span>
                    {post(to, w().take_away, "danger quiet", &back, text)}
                </li>
            }
        })
        .collect();
    if rows.is_empty() {
        return view! { <p class="none">{w().no_roles}</p> }.into_any();
    }
    view! { <ul class="short">{rows}</ul> }.into_any()
}

fn give(act: &str, here: &str, data: &Data) -> AnyView {
    let action = format!("{act}/grants/create");
    let fields = Fields::of(&action);
    let roles = data
        .roles
        .iter()
        .map(|r| (r.name.to_string(), r.name.to_string()))
        .collect();
    let whole = (String::new(), w().everything.to_owned());
    let vms = data.vms.iter().map(|vm| (vm.clone(), vm.clone()));
    let vms = std::iter::once(whole).chain(vms).collect();
    view! {
        <form method="post" action=action class="inline">
            {fields.error(here)}
            {fields.choice("role", w().role, String::new(), roles, "viewer")}
            {fields.choice("vm", w().given_on, String::new(), vms, "")}
            <button>{w().give_role}</button>
        </form>
    }
    .into_any()
}

fn account(user: &User, act: &str, here: &str) -> AnyView {
    let word = |yes| if yes { w().yes } else { w().no };
    let last = user.last_sign_in_time.map(|t| {
        view! {
            <dt>{w().last_sign_in}</dt>
            <dd>{ago(t)}</dd>
        }
    });
    let (able, able_word) = if user.disabled {
        ("enable", w().enable)
    } else {
        ("disable", w().disable)
    };
    let reset = user.two_factor.then(|| {
        post(
            format!("{act}/reset-two-factor"),
            w().two_factor_reset,
            "",
            here,
            String::new(),
        )
    });
    let subject = user.oidc_subject.clone().map(|subject| {
        view! {
            <dt>{w().oidc}</dt>
            <dd>
                <code>{subject}</code>
            </dd>
        }
    });
    view! {
        <dl class="facts">
            <dt>{w().added}</dt>
            <dd>{ago(user.create_time)}</dd>
            {last}
            <dt>{w().password}</dt>
            <dd>{word(user.has_password)}</dd>
            <dt>{w().two_factor}</dt>
            <dd>{word(user.two_factor)}</dd>
            {subject}
        </dl>
        <div class="choices">
            {post(format!("{act}/link"), w().make_link, "", here, String::new())}
            {post(format!("{act}/{able}"), able_word, "", here, String::new())}
            {reset}
        </div>
    }
    .into_any()
}

fn rename(act: &str, here: &str, name: &str) -> AnyView {
    let action = format!("{act}/rename");
    let fields = Fields::of(&action);
    let line = fields.line(Line {
        name: "name",
        label: w().user_name,
        value: name.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="inline">
            {fields.error(here)}
            {line}
            <button>{w().rename}</button>
        </form>
    }
    .into_any()
}

fn password(act: &str, here: &str) -> AnyView {
    let action = format!("{act}/password");
    let fields = Fields::of(&action);
    let line = |name, label, hint: &str| {
        fields.line(Line {
            name,
            label,
            kind: "password",
            hint: hint.to_owned(),
            required: true,
            autocomplete: "new-password",
            ..Line::default()
        })
    };
    view! {
        <form method="post" action=action class="stack">
            {fields.error(here)}
            {line("password", w().new_password, w().password_hint)}
            {line("again", w().password_again, "")}
            <button>{w().set_users_password}</button>
        </form>
    }
    .into_any()
}

/// Who of the provider signs in as the user; nothing without a provider.
fn single_sign_on(user: &User, act: &str, here: &str) -> AnyView {
    if user.oidc_subject.is_some() {
        return post(
            format!("{act}/oidc/unlink"),
            w().oidc_unlink,
            "",
            here,
            String::new(),
        );
    }
    if Env::of_page().oidc.is_none() {
        return ().into_any();
    }
    let action = format!("{act}/oidc/link");
    let fields = Fields::of(&action);
    let line = fields.line(Line {
        name: "subject",
        label: w().oidc_subject,
        hint: w().oidc_hint.to_owned(),
        required: true,
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="stack">
            {fields.error(here)}
            {line}
            <button>{w().oidc_link}</button>
        </form>
    }
    .into_any()
}

fn delete(act: &str, here: &str, name: &str) -> AnyView {
    let action = format!("{act}/delete");
    let fields = Fields::of(&action);
    let line = fields.line(Line {
        name: "confirm",
        label: w().user_name,
        hint: put(w().delete_user_hint, &[name]),
        required: true,
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="stack">
            {fields.error(here)}
            <input type="hidden" name="name" value=name.to_owned()/>
            {line}
            <button class="danger">{w().delete_user}</button>
        </form>
    }
    .into_any()
}
