//! The palette (Ctrl/⌘ K): pages, machines, and what can be done with them. And the dialog that lists the keys.

use crate::env::{may, may_somewhere};
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;

/// A line of the palette.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    label: String,
    sub: &'static str,
    href: String,
}

fn pages() -> Vec<Entry> {
    let people = may(Privilege::UserManage, None).is_ok();
    let people = [(w().users, "/users"), (w().roles, "/roles")]
        .into_iter()
        .filter(|_| people);
    let audit = may(Privilege::AuditRead, None).is_ok();
    let audit = [(w().audit, "/audit")].into_iter().filter(|_| audit);
    let notices = may(Privilege::NoticeManage, None).is_ok();
    let notices = [(w().notices, "/notices")].into_iter().filter(|_| notices);
    let copies = may_somewhere(Privilege::CopyRead).is_ok();
    let copies = [(w().copies, "/copies")].into_iter().filter(|_| copies);
    let targets = may(Privilege::TargetRead, None).is_ok();
    let targets = [(w().targets, "/targets"), (w().policies, "/policies")]
        .into_iter()
        .filter(|_| targets);
    let migration = may(Privilege::MigrationRead, None).is_ok();
    let migration = [(w().migration, "/migrations")].into_iter().filter(|_| migration);
    let everybodys = [
        (w().overview, "/"),
        (w().machines, "/vms"),
        (w().new_machine, "/vms/new"),
        (w().jobs, "/jobs"),
        (w().fork_points, "/fork-points"),
        (w().images, "/images"),
        (w().networks, "/networks"),
        (w().storages, "/storages"),
        (w().hosts, "/hosts"),
        (w().settings, "/settings"),
    ];
    let all = everybodys
        .into_iter()
        .chain(copies)
        .chain(targets)
        .chain(migration)
        .chain(people)
        .chain(notices)
        .chain(audit);
    all.map(|(label, href)| Entry {
        label: label.to_owned(),
        sub: w().page,
        href: href.to_owned(),
    })
    .collect()
}

fn of_machine(name: &str) -> [Entry; 3] {
    let entry = |label: String, sub, href| Entry { label, sub, href };
    [
        entry(name.to_owned(), w().machine, format!("/vms/{name}")),
        entry(
            put(w().clone_of, &[name]),
            w().action,
            format!("/vms/{name}/clone"),
        ),
        entry(
            put(w().snapshot_of, &[name]),
            w().action,
            format!("/vms/{name}?do=snapshot"),
        ),
    ]
}

/// What fits all the words that were typed.
fn matching(typed: &str, machines: &[String]) -> Vec<Entry> {
    let words: Vec<String> = typed.split_whitespace().map(str::to_lowercase).collect();
    let fits = |e: &Entry| {
        let label = e.label.to_lowercase();
        words.iter().all(|word| label.contains(word))
    };
    let machines = machines.iter().flat_map(|name| of_machine(name));
    pages()
        .into_iter()
        .chain(machines)
        .filter(fits)
        .take(12)
        .collect()
}

/// The palette; empty until it is asked for.
#[component]
pub fn Palette() -> AnyView {
    let typed = RwSignal::new(String::new());
    let machines = RwSignal::new(Vec::<String>::new());
    let at = RwSignal::new(0_usize);
    let entries = Memo::new(move |_| typed.with(|t| machines.with(|m| matching(t, m))));
    let navigate = leptos_router::hooks::use_navigate();
    let go = move |entry: Option<Entry>| {
        #[cfg(feature = "hydrate")]
        crate::live::close_palette();
        if let Some(entry) = entry {
            navigate(&entry.href, leptos_router::NavigateOptions::default());
        }
    };
    let input = move |e: leptos::ev::Event| {
        typed.set(event_target_value(&e));
        at.set(0);
        #[cfg(feature = "hydrate")]
        find(typed, machines);
    };
    let keys = {
        let go = go.clone();
        move |e: leptos::ev::KeyboardEvent| {
            let last = entries.with_untracked(Vec::len).saturating_sub(1);
            match e.key().as_str() {
                "ArrowDown" => at.update(|n| *n = if *n >= last { 0 } else { *n + 1 }),
                "ArrowUp" => at.update(|n| *n = if *n == 0 { last } else { *n - 1 }),
                "Enter" => go(entries.with_untracked(|e| e.get(at.get_untracked()).cloned())),
                // By itself it would only empty a field that has something in it.
                "Escape" => go(None),
                _ => return,
            }
            e.prevent_default();
        }
    };
    let rows = move || {
        let go = go.clone();
        let all = entries.get().into_iter().enumerate();
        all.map(|(n, entry)| {
            let (go, target) = (go.clone(), entry.clone());
            view! {
                <li
                    id=format!("palette-{n}")
                    role="option"
                    aria-selected=move || if at.get() == n { "true" } else { "false" }
                    on:click=move |_| go(Some(target.clone()))
                >
                    <span>{entry.label}</span>
                    <span class="faint">{entry.sub}</span>
                </li>
            }
        })
        .collect_view()
    };
    let opened = move |_| {
        #[cfg(feature = "hydrate")]
        find(typed, machines);
    };
    // What was looked for is found or given up: each search begins anew.
    let begins = move |_: leptos::ev::Event| {
        typed.set(String::new());
        at.set(0);
    };
    view! {
        <dialog id="palette" class="sheet palette" popover="auto" aria-label=w().search on:beforetoggle=begins>
            <div class="sheet-in">
                <input
                    type="search"
                    role="combobox"
                    aria-label=w().search
                    aria-expanded="true"
                    aria-controls="palette-list"
                    aria-activedescendant=move || format!("palette-{}", at.get())
                    placeholder=w().search_hint
                    autocomplete="off"
                    spellcheck="false"
                    prop:value=move || typed.get()
                    on:input=input
                    on:focus=opened
                    on:keydown=keys
                />
                <ul id="palette-list" role="listbox" aria-label=w().search>
                    {rows}
                </ul>
                <p class="faint none" role="status">
                    {move || entries.with(Vec::is_empty).then_some(w().nothing_found)}
                </p>
            </div>
        </dialog>
    }
    .into_any()
}

/// Asks the server for machines whose name has the last word that was typed; when nothing fits that, for any.
#[cfg(feature = "hydrate")]
fn find(typed: RwSignal<String>, machines: RwSignal<Vec<String>>) {
    use shared::api::{Call, ListQuery, ListVms};
    crate::live::browser::settled(80, move || {
        let text = typed.get_untracked().to_lowercase();
        let word = text.split_whitespace().last().unwrap_or_default().to_owned();
        let filter = Some(word).filter(|t| !t.is_empty()).map(|t| format!("name:{t}"));
        let query = ListQuery {
            page_size: Some(6),
            filter,
            ..ListQuery::default()
        };
        let pending = crate::backend::Way::here().send(ListVms { query }.raw());
        leptos::task::spawn_local(async move {
            let page = pending
                .await
                .and_then(|body| crate::backend::read::<shared::api::VmPage>(&body));
            if let Ok(page) = page {
                machines.set(page.vms.iter().map(|v| v.name.to_string()).collect());
            }
        });
    });
}

/// The dialog that lists the keys.
#[component]
pub fn Keys() -> AnyView {
    let rows = [
        (w().ctrl_k, w().key_palette),
        ("/", w().key_search),
        ("?", w().key_keys),
        ("Esc", w().key_close),
    ];
    let rows = rows.map(|(key, does)| {
        view! {
            <dt>
                <kbd>{key}</kbd>
            </dt>
            <dd>{does}</dd>
        }
    });
    view! {
        <dialog id="keys" class="sheet" popover="auto" aria-labelledby="keys-title">
            <div class="sheet-in">
                <h2 id="keys-title">{w().keys}</h2>
                <dl class="facts">{rows.into_iter().collect_view()}</dl>
                <button type="button" class="foot" popovertarget="keys" popovertargetaction="hide">
                    {w().close}
                </button>
            </div>
        </dialog>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_must_fit() {
        let machines = ["web-1".to_owned(), "db-2".to_owned()];
        let labels =
            |typed| -> Vec<String> { matching(typed, &machines).into_iter().map(|e| e.href).collect() };
        assert_eq!(labels("clone web"), ["/vms/web-1/clone"]);
        assert_eq!(labels("JOB"), ["/jobs"]);
        assert!(labels("nonsense").is_empty());
    }
}
