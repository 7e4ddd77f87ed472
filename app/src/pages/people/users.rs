//! Users, and a form for another.

use super::{granted, looks};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::list::{Paged, ROWS};
use crate::components::load::{Bodies, all, body, load};
use crate::components::table::{self, pager};
use crate::components::time::ago;
use crate::pages::{contains, query};
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::{Role, User};
use shared::api::{Call, ListQuery, ListRoles, ListUsers, RolePage, UserPage};

const HERE: &str = "/users";

#[derive(Clone, Debug, PartialEq)]
struct Data {
    users: Paged<User>,
    roles: Vec<Role>,
}

pub fn page() -> AnyView {
    let (typed, page, looks) = (query("q"), query("page"), looks());
    view! {
        <Title text=w().users/>
        {bar(Vec::new(), w().users.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().users}</h1>
            <div class="actions">
                {table::filter(HERE, typed, Vec::new(), Vec::new())}
                <a class="button" href="/roles">
                    {w().roles}
                </a>
            </div>
        </div>
        {load(
            move || format!("{} {} {}", looks.get(), typed.get(), page.get()),
            move |_| {
                let some = |text: String| Some(text).filter(|t| !t.is_empty());
                let query = ListQuery {
                    page_size: Some(ROWS),
                    page_token: some(page.get_untracked()),
                    filter: some(contains("name", &typed.get_untracked()).join(" ")),
                    ..ListQuery::default()
                };
                all([ListUsers { query }.raw(), ListRoles { query: ListQuery::default() }.raw()])
            },
            read,
            |old, new| *old = new,
            shown,
        )}
    }
    .into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let page: UserPage = body(bodies, 0)?;
    Ok(Data {
        users: Paged {
            items: page.users,
            next: page.next_page_token,
            total: page.total_size,
        },
        roles: body::<RolePage>(bodies, 1)?.roles,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let paged = RwSignal::new(data.with_untracked(|d| d.users.clone()));
    Effect::new(move |_| paged.set(data.with(|d| d.users.clone())));
    let rows = move || {
        data.with(|d| {
            if d.users.items.is_empty() {
                return view! { <p class="none">{w().no_users}</p> }.into_any();
            }
            let rows: Vec<_> = d.users.items.iter().map(row).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    view! {
        <div class="cols">
            <section class="panel list" aria-label=w().users>
                {rows}
                {pager(HERE, paged)}
            </section>
            <section class="panel" aria-labelledby="new-title">
                <header>
                    <h2 id="new-title">{w().new_user}</h2>
                </header>
                <div class="in">{new(&data.with_untracked(|d| d.roles.clone()))}</div>
            </section>
        </div>
    }
    .into_any()
}

fn row(user: &User) -> AnyView {
    let tag = |word| view! { " " <span class="tag">{word}</span> };
    let roles: Vec<_> = user.grants.iter().map(granted).collect();
    let roles = if roles.is_empty() {
        w().role_none.to_owned()
    } else {
        roles.join(", ")
    };
    let last = user
        .last_sign_in_time
        .map(|t| view! { " · " {w().last_sign_in} " " {ago(t)} });
    view! {
        <li>
            <span class="what">
                <a href=format!("/users/{}", user.name)>
                    <b>{user.name.to_string()}</b>
                </a>
                {user.disabled.then(|| tag(w().disabled))}
                {user.two_factor.then(|| tag(w().two_factor))}
                {user.oidc_subject.is_some().then(|| tag(w().oidc))}
                <span class="sub soft">{roles} {last}</span>
            </span>
        </li>
    }
    .into_any()
}

fn new(roles: &[Role]) -> AnyView {
    let action = "/do/users/create";
    let fields = Fields::of(action);
    let line = |name, label, kind, hint: &str| {
        fields.line(Line {
            name,
            label,
            kind,
            hint: hint.to_owned(),
            autocomplete: if kind == "password" { "new-password" } else { "off" },
            required: name == "name",
            is_name: name == "name",
            ..Line::default()
        })
    };
    let none = (String::new(), w().role_none.to_owned());
    let all = roles.iter().map(|r| (r.name.to_string(), r.name.to_string()));
    let options = std::iter::once(none).chain(all).collect();
    view! {
        <form method="post" action=action class="stack">
            {fields.error(HERE)}
            {line("name", w().user_name, "", "")}
            {fields.choice("role", w().role, String::new(), options, "viewer")}
            {line("password", w().password, "password", w().password_optional)}
            {line("again", w().password_again, "password", "")}
            <button class="go">{w().add}</button>
        </form>
    }
    .into_any()
}
