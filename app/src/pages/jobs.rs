//! All jobs.

use super::{contains, empty, query};
use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::job::{cancel_button, kind_word, machine, may_retry, progress, title};
use crate::components::list::{Paged, ROWS, Row, Rows, live_list};
use crate::components::state::{job_pill, job_word};
use crate::components::table::{self, bulk_bar, pager, sort_link};
use crate::components::time::{ago, took};
use crate::hydration::piece;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::Privilege;
use shared::api::ListQuery;
use shared::job::{Job, JobKind, JobState};

pub fn page() -> AnyView {
    let (typed, kind, state) = (query("q"), query("kind"), query("state"));
    let (sort, page) = (query("sort"), query("page"));
    let asked = Memo::new(move |_| {
        let mut terms = contains("text", &typed.get());
        for (field, value) in [("kind", kind), ("state", state)] {
            value.with(|v| {
                if !v.is_empty() {
                    terms.push(format!("{field}={v}"));
                }
            });
        }
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        ListQuery {
            page_size: Some(ROWS),
            page_token: some(page.get()),
            filter: some(terms.join(" ")),
            order_by: some(sort.get()),
        }
    });
    let filtered = Memo::new(move |_| asked.with(|q| q.filter.is_some() || q.page_token.is_some()));
    let kinds = JobKind::ALL.iter().map(|k| (k.word(), kind_word(*k))).collect();
    let states = JobState::ALL.iter().map(|s| (s.word(), job_word(*s))).collect();
    let choices = vec![
        (w().kind, w().every_kind, "kind", kind, kinds),
        (w().state, w().every_state, "state", state, states),
    ];
    view! {
        <Title text=w().jobs/>
        {bar(Vec::new(), w().jobs.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().jobs}</h1>
            <div class="actions">{table::filter("/jobs", typed, choices, vec![("sort", sort)])}</div>
        </div>
        {live_list(asked, move |rows, data| table(rows, data, filtered))}
    }
    .into_any()
}

fn table(rows: Rows<Job>, data: RwSignal<Paged<Job>>, filtered: Memo<bool>) -> AnyView {
    let none = Memo::new(move |_| rows.0.with(Vec::is_empty));
    let begin = move || {
        if filtered.get() {
            empty(
                w().no_job_fits,
                view! { <a class="button" href="/jobs">{w().show_all}</a> }.into_any(),
            )
        } else {
            empty(
                w().no_jobs,
                view! { <a class="button go" href="/vms/new">{w().new_machine}</a> }.into_any(),
            )
        }
    };
    view! {
        <section class="panel list" aria-label=w().jobs>
            {move || none.get().then(begin)}
            <table hidden=move || none.get()>
                <thead>
                    <tr>
                        {table::select_all()}
                        <th scope="col">{w().job}</th>
                        <th scope="col">{w().machine}</th>
                        {sort_link("/jobs", "state", w().state, "")}
                        <th scope="col">{w().progress}</th>
                        <th scope="col" class="num">{w().took}</th>
                        {sort_link("/jobs", "createTime", w().asked, "")}
                        <th scope="col">{w().by}</th>
                        <th scope="col">
                            <span class="hidden">{w().more}</span>
                        </th>
                    </tr>
                </thead>
                <tbody>
                    <For each=move || rows.0.get() key=|row| row.0.clone() children=|row| piece(|| one(row))/>
                </tbody>
            </table>
            {bulk_bar(
                "jobs",
                &[("cancel", w().cancel, Privilege::JobUpdate), ("retry", w().retry, Privilege::JobUpdate)],
            )}
            {pager("/jobs", data)}
        </section>
    }
    .into_any()
}

fn one((id, job): Row<Job>) -> AnyView {
    let name = job.with_untracked(title);
    let (menu_of, menu_job, page) = (name.clone(), job.clone(), format!("/jobs/{id}"));
    view! {
        <tr>
            {table::select_of(id, &name)}
            {move || job.with(cells)}
            <td class="more">
                {button::row_menu(menu_of, page, move || menu_job.with(menu))}
            </td>
        </tr>
    }
    .into_any()
}

fn cells(job: &Job) -> AnyView {
    let vm = machine(job).map(|m| {
        let href = format!("/vms/{}", m.id);
        view! { <a class="soft" href=href>{m.name.to_string()}</a> }
    });
    view! {
        <td class="head">
            <a href=format!("/jobs/{}", job.id)>{title(job)}</a>
        </td>
        <td data-label=w().machine>{vm}</td>
        <td>{job_pill(job)}</td>
        <td class="wide">{progress(job)}</td>
        <td class="num" data-label=w().took>
            {took(job.start_time, job.end_time)}
        </td>
        <td class="soft" data-label=w().asked>
            {ago(job.create_time)}
        </td>
        <td class="soft" data-label=w().by>
            {job.created_by.clone()}
        </td>
    }
    .into_any()
}

fn menu(job: &Job) -> AnyView {
    let retry = Button {
        to: format!("/do/jobs/{}/retry", job.id),
        label: w().retry,
        back: "/jobs".to_owned(),
        ..Button::default()
    };
    view! {
        {cancel_button(job)}
        {button::post(retry, &may_retry(job))}
        {button::copy(job.id.to_string(), w().copy_id)}
    }
    .into_any()
}
