//! Who did what, and what was refused.

use super::query;
use crate::components::frame::bar;
use crate::components::list::{Paged, ROWS};
use crate::components::load::{Bodies, all, body, load};
use crate::components::table::{self, pager};
use crate::components::time::ago;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::audit::AuditEvent;
use shared::api::{AuditPage, Call, ListAudit, ListQuery, encode};

const HERE: &str = "/audit";

/// The filter of the API for what was typed: a term that names its field goes as it is, other words are of the path.
fn filter(typed: &str, state: &str) -> String {
    let word = |word: &str| match word.contains(['=', ':']) {
        true => word.to_owned(),
        false => format!("path:{word}"),
    };
    let mut terms: Vec<_> = typed.split_whitespace().map(word).collect();
    if !state.is_empty() {
        terms.push(format!("result={state}"));
    }
    terms.join(" ")
}

pub fn page() -> AnyView {
    let (typed, state, page) = (query("q"), query("state"), query("page"));
    let asked = Memo::new(move |_| filter(&typed.get(), &state.get()));
    let results = vec![
        ("OK", w().done_word),
        ("PERMISSION_DENIED", "PERMISSION_DENIED"),
        ("UNAUTHENTICATED", "UNAUTHENTICATED"),
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("FAILED_PRECONDITION", "FAILED_PRECONDITION"),
        ("NOT_FOUND", "NOT_FOUND"),
        ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
    ];
    let export = move |format: &str| {
        let filter = asked.with(|f| encode(f));
        format!("/api/v1/audit/export?format={format}&filter={filter}")
    };
    view! {
        <Title text=w().audit/>
        {bar(Vec::new(), w().audit.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().audit}</h1>
            <div class="actions">
                {table::filter(HERE, typed, vec![(w().result, w().every_result, "state", state, results)], Vec::new())}
                <a class="button" href=move || export("jsonl") download="audit.jsonl" rel="external">
                    {w().audit_export} " JSON"
                </a>
                <a class="button" href=move || export("csv") download="audit.csv" rel="external">
                    {w().audit_export} " CSV"
                </a>
            </div>
        </div>
        <p class="soft">{w().audit_lead}</p>
        {load(
            move || format!("{} {}", asked.get(), page.get()),
            move |_| {
                let some = |text: String| Some(text).filter(|t| !t.is_empty());
                let query = ListQuery {
                    page_size: Some(ROWS),
                    page_token: some(page.get_untracked()),
                    filter: some(asked.get_untracked()),
                    ..ListQuery::default()
                };
                all([ListAudit { query }.raw()])
            },
            read,
            |old, new| *old = new,
            shown,
        )}
    }
    .into_any()
}

fn read(bodies: &Bodies) -> Result<Paged<AuditEvent>, Status> {
    let page: AuditPage = body(bodies, 0)?;
    Ok(Paged {
        items: page.events,
        next: page.next_page_token,
        total: page.total_size,
    })
}

fn shown(data: RwSignal<Paged<AuditEvent>>) -> AnyView {
    let none = move || data.with(|page| page.items.is_empty());
    let rows = move || data.with(|page| page.items.iter().map(row).collect::<Vec<_>>());
    view! {
        <section class="panel list" aria-label=w().audit>
            {move || none().then(|| view! { <p class="none">{w().audit_empty}</p> })}
            <table hidden=none>
                <thead>
                    <tr>
                        <th scope="col">{w().what}</th>
                        <th scope="col">{w().who}</th>
                        <th scope="col">{w().result}</th>
                        <th scope="col">{w().from_where}</th>
                        <th scope="col">{w().when}</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
            {pager(HERE, data)}
        </section>
    }
    .into_any()
}

fn row(event: &AuditEvent) -> AnyView {
    let result = if event.result == "OK" {
        w().done_word.into_any()
    } else {
        view! { <span class="tag">{event.result.clone()}</span> }.into_any()
    };
    let who = if event.user.is_empty() {
        "–".to_owned()
    } else {
        event.user.clone()
    };
    view! {
        <tr title=event.request_id.clone()>
            <td class="head wrap">
                <span class="mono">{format!("{} {}", event.method, event.path)}</span>
                <small class="soft">{event.detail.clone()}</small>
            </td>
            <td data-label=w().who>{who}</td>
            <td data-label=w().result>{result}</td>
            <td class="soft" data-label=w().from_where>
                {event.address.clone()}
            </td>
            <td class="soft" data-label=w().when>
                {ago(event.time)}
            </td>
        </tr>
    }
    .into_any()
}
