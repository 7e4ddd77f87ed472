//! Pages about people: users, roles, and what they sign in with.

pub mod roles;
pub mod two_factor;
pub mod user;
pub mod users;

use crate::components::button::{self, Button};
use crate::components::time::ago;
use crate::env::flash;
use crate::feed::on_change;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::{Grant, Session};
use shared::feed::Noun;

/// Counts up when a page about users and roles is to be loaded again: by the feed, or because a form of it was done.
fn looks() -> RwSignal<u32> {
    let looks = RwSignal::new(0_u32);
    on_change(move |change| {
        if matches!(change.noun(), Noun::User | Noun::Role) {
            looks.update(|n| *n += 1);
        }
    });
    let flash = flash();
    Effect::new(move |_| {
        if flash.with(|f| f.as_ref().is_some_and(|f| f.error.is_none())) {
            looks.update(|n| *n += 1);
        }
    });
    looks
}

/// A role with what it is given on.
fn granted(grant: &Grant) -> String {
    let on = match (&grant.vm, &grant.vm_name) {
        (None, _) => w().on_everything.to_owned(),
        (Some(_), Some(name)) => put(w().on_machine, &[name.as_str()]),
        (Some(_), None) => put(w().on_machine, &[w().deleted_machine]),
    };
    format!("{} {on}", grant.role)
}

/// What a browser is, as far as a person wants to know.
fn browser(agent: &str) -> String {
    let name = ["Edg/", "Firefox/", "OPR/", "Chrome/", "Safari/"]
        .into_iter()
        .find(|mark| agent.contains(mark));
    let system = ["Windows", "Android", "iPhone", "Mac OS", "Linux"]
        .into_iter()
        .find(|mark| agent.contains(mark));
    match (name.map(|n| n.trim_end_matches('/')), system) {
        (Some("Edg"), system) => format!("Edge · {}", system.unwrap_or_default()),
        (Some("OPR"), system) => format!("Opera · {}", system.unwrap_or_default()),
        (Some(name), Some(system)) => format!("{name} · {system}"),
        (Some(name), None) => name.to_owned(),
        (None, _) if agent.is_empty() => w().unknown_browser.to_owned(),
        (None, _) => agent.chars().take(60).collect(),
    }
}

/// Sessions, each with the way to end it.
pub fn sessions(sessions: &[Session], action: &str, back: &str) -> AnyView {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            let name = browser(&session.user_agent);
            let end = Button {
                to: format!("{action}/{}/end", session.id),
                label: w().end_session,
                class: "danger quiet",
                back: back.to_owned(),
                of: name.clone(),
                ..Button::default()
            };
            let current = session
                .current
                .then(|| view! { " " <span class="tag">{w().this_session}</span> });
            let from = put(w().signed_in_from, &[&session.address]);
            view! {
                <li>
                    <span class="what">
                        <b>{name}</b>
                        {current}
                        <span class="sub">{from} " " {ago(session.create_time)}</span>
                    </span>
                    {button::post(end, &Ok(()))}
                </li>
            }
        })
        .collect();
    if rows.is_empty() {
        return view! { <p class="none">{w().no_sessions}</p> }.into_any();
    }
    view! { <ul class="short">{rows}</ul> }.into_any()
}
