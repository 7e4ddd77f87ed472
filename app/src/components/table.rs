//! Tables: what lives in the address (search, filter, order, page), and what is done to many rows at once.

use super::button;
use super::list::Paged;
use crate::env::may_somewhere;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_router::hooks::{use_location, use_query_map};
use shared::access::Privilege;

/// A choice in a filter: its label, the word for all, its name in the query, its value, its options.
pub type Choice = (
    &'static str,
    &'static str,
    &'static str,
    Memo<String>,
    Vec<(&'static str, &'static str)>,
);

/// The search and the filters above a table: a plain form, which the live page follows as it changes. `kept` goes along
/// unseen.
pub fn filter(
    action: &'static str,
    typed: Memo<String>,
    choices: Vec<Choice>,
    kept: Vec<(&'static str, Memo<String>)>,
) -> AnyView {
    let choices: Vec<_> = choices
        .into_iter()
        .map(|(label, all, name, chosen, options)| {
            let options: Vec<_> = options
                .into_iter()
                .map(|(value, word)| {
                    let on = move || chosen.with(|c| c == value);
                    let first = chosen.with_untracked(|c| c == value);
                    view! {
                        <option value=value selected=first prop:selected=on>
                            {word}
                        </option>
                    }
                })
                .collect();
            view! {
                <select name=name aria-label=label>
                    <option value="">{all}</option>
                    {options}
                </select>
            }
        })
        .collect();
    let kept: Vec<_> = kept
        .into_iter()
        .map(|(name, value)| view! { <input type="hidden" name=name value=move || value.get()/> })
        .collect();
    filter_with(action, typed, choices.into_any(), kept.into_any())
}

/// The same, of choices that are drawn already.
pub fn filter_with(action: &'static str, typed: Memo<String>, choices: AnyView, kept: AnyView) -> AnyView {
    view! {
        <form method="get" action=action class="filter" data-filter="" role="search">
            {choices}
            <input
                type="search"
                name="q"
                value=typed.get_untracked()
                prop:value=move || typed.get()
                placeholder=w().filter
                aria-label=w().filter
                autocomplete="off"
                spellcheck="false"
            />
            {kept}
            <button class="plain-only">{w().filter}</button>
        </form>
    }
    .into_any()
}

/// The query with some of its parts changed; an empty value takes one away. The page goes with any other change.
fn with(path: &str, query: &leptos_router::params::ParamsMap, change: &[(&str, &str)]) -> String {
    let mut parts = Vec::new();
    for name in ["q", "kind", "state", "target", "sort", "page", "from"] {
        let changed = change.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let paging = matches!(name, "page" | "from");
        let value = changed.or_else(|| query.get_str(name).filter(|_| !paging));
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            parts.push(format!("{name}={}", shared::api::encode(value)));
        }
    }
    if parts.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", parts.join("&"))
    }
}

/// A column's head that orders the table: first up, then down, then as it was.
pub fn sort_link(
    path: &'static str,
    field: &'static str,
    label: &'static str,
    class: &'static str,
) -> AnyView {
    let query = use_query_map();
    let order = Memo::new(move |_| {
        query.with(|q| {
            let sort = q.get_str("sort").unwrap_or_default();
            match sort.strip_prefix(field) {
                Some("") => Some(false),
                Some(" desc") => Some(true),
                _ => None,
            }
        })
    });
    let href = move || {
        let next = match order.get() {
            None => field.to_owned(),
            Some(false) => format!("{field} desc"),
            Some(true) => String::new(),
        };
        query.with(|q| with(path, q, &[("sort", &next)]))
    };
    let aria = move || match order.get() {
        None => None,
        Some(false) => Some("ascending"),
        Some(true) => Some("descending"),
    };
    view! {
        <th scope="col" class=class aria-sort=aria>
            <a href=href data-noscroll="">
                {label}
                <svg viewBox="0 0 10 10" aria-hidden="true">
                    <path d="M2.5 6.5 5 3.5l2.5 3"></path>
                </svg>
            </a>
        </th>
    }
    .into_any()
}

/// The box that selects all rows; it needs the live page.
pub fn select_all() -> AnyView {
    view! {
        <th scope="col" class="pick">
            <input type="checkbox" data-select-all="" aria-label=w().select_all/>
        </th>
    }
    .into_any()
}

/// The box that selects a row by its name.
pub fn select(name: &str) -> AnyView {
    select_of(name.to_owned(), name)
}

/// The box that selects a row by its id.
pub fn select_of(id: String, name: &str) -> AnyView {
    view! {
        <td class="pick">
            <input
                type="checkbox"
                name="id"
                value=id
                form="bulk"
                aria-label=put(w().select_one, &[name])
            />
        </td>
    }
    .into_any()
}

/// What can be done to all that is selected; the style sheet shows it when something is.
pub fn bulk_bar(noun: &'static str, actions: &[(&'static str, &'static str, Privilege)]) -> AnyView {
    let location = use_location();
    let back = move || format!("{}?{}", location.pathname.get(), location.search.get());
    let buttons: Vec<_> = actions
        .iter()
        .map(|(value, label, privilege)| {
            let why = button::reason(&may_somewhere(*privilege));
            button::submit(value, Some(value), "", (*label).to_owned(), why.into())
        })
        .collect();
    view! {
        <form id="bulk" method="post" action=format!("/do/{noun}/bulk") class="bulk">
            <span class="soft">{w().selected}</span>
            <input type="hidden" name="back" value=back/>
            {buttons}
        </form>
    }
    .into_any()
}

/// Which part of the list this is, and the way to the rest.
pub fn pager<T: Send + Sync + 'static>(path: &'static str, data: RwSignal<Paged<T>>) -> AnyView {
    let query = use_query_map();
    let shown = move || {
        let from = query.with(|q| {
            let from = q.get_str("from").and_then(|f| f.parse::<u64>().ok());
            from.unwrap_or(0)
        });
        data.with(|page| {
            let here = page.items.len() as u64;
            let first = from > 0 || query.with(|q| q.get_str("page").is_some());
            let total = page.total.max(from + here);
            if here == 0 && !first {
                return None;
            }
            let range = put(
                w().range,
                &[
                    &format::count(from + 1),
                    &format::count(from + here),
                    &format::count(total),
                ],
            );
            let on = (!page.next.is_empty()).then(|| {
                let from = (from + here).to_string();
                let href = query.with(|q| with(path, q, &[("page", &page.next), ("from", &from)]));
                view! { <a class="button" href=href>{w().next_page}</a> }
            });
            let back = first.then(|| {
                let href = query.with(|q| with(path, q, &[]));
                view! { <a class="button" href=href>{w().first_page}</a> }
            });
            Some(view! {
                <nav class="pager" aria-label=w().pages>
                    <span class="faint">{range}</span>
                    {back}
                    {on}
                </nav>
            })
        })
    };
    shown.into_any()
}
