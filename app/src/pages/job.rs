//! One job: how far it is, what it did, how it went, and what can still be done.

mod copies;
mod figures;

use super::param;
use crate::components::button::{self, Button};
use crate::components::dialog::{cancel, dialog};
use crate::components::field::Fields;
use crate::components::frame::bar;
use crate::components::list::throttled;
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, job_pill};
use crate::components::time::ago;
use crate::components::{error, job as parts};
use crate::env::clock;
use crate::feed::{Live, newer, on_change};
use crate::format;
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{Call, GetJob, GetJobLog, ListQuery, LogPage, MAX_PAGE_SIZE, RawCall};
use shared::can::can_cancel;
use shared::clone::ProofStrength;
use shared::job::{Job, JobState, LogLine};

/// How often the log of a job at work is looked at, in milliseconds.
#[cfg(feature = "hydrate")]
const LOG: i32 = 1_000;

/// A job with its log.
#[derive(Clone, Debug, PartialEq)]
struct Data {
    job: Job,
    log: Vec<LogLine>,
}

impl Data {
    fn merge(&mut self, mut new: Self) {
        // The newer job wins; a log only grows.
        newer(&mut new.job, &self.job);
        if new.log.len() < self.log.len() {
            new.log = std::mem::take(&mut self.log);
        }
        *self = new;
    }
}

pub fn page() -> AnyView {
    let id = param("job");
    let page = move || {
        let id = id.get();
        let short = id.get(..8).unwrap_or(&id).to_owned();
        view! {
            {bar(vec![("/jobs".to_owned(), w().jobs.to_owned())], short)}
            {one(id)}
        }
    };
    page.into_any()
}

fn one(id: String) -> AnyView {
    let looks = RwSignal::new(0_u32);
    load(
        move || looks.get().to_string(),
        move |_| all(calls(id.clone())),
        read,
        Data::merge,
        move |data| shown(data, looks),
    )
}

fn calls(id: String) -> [RawCall; 2] {
    let query = ListQuery {
        page_size: Some(MAX_PAGE_SIZE),
        ..ListQuery::default()
    };
    [GetJob { id: id.clone() }.raw(), GetJobLog { id, query }.raw()]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        job: body(bodies, 0)?,
        log: body::<LogPage>(bodies, 1)?.lines,
    })
}

/// Takes what the feed says, and looks at the log again: at each change, and from time to time while at work.
fn follow(data: RwSignal<Data>, looks: RwSignal<u32>) {
    let id = data.with_untracked(|d| d.job.id());
    let look = throttled(300, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if let Some(job) = Job::of(change).filter(|job| job.id() == id) {
            data.update(|d| newer(&mut d.job, job));
            look();
        }
    });
    #[cfg(feature = "hydrate")]
    Effect::new(move |_| {
        fn again(data: RwSignal<Data>, looks: RwSignal<u32>) {
            crate::live::browser::later(LOG, move || {
                // Disposed when the page is left.
                let active = data.try_with_untracked(|d| !d.job.state.is_final());
                if active == Some(true) {
                    looks.try_update(|n| *n += 1);
                    again(data, looks);
                }
            });
        }
        again(data, looks);
    });
}

fn shown(data: RwSignal<Data>, looks: RwSignal<u32>) -> AnyView {
    follow(data, looks);
    let job = Memo::new(move |_| data.with(|d| d.job.clone()));
    let title = Memo::new(move |_| job.with(parts::title));
    let failed = move || {
        job.with(|j| {
            let error = j.error.as_ref()?;
            Some(error::panel(w().what_went_wrong, error))
        })
    };
    let blocked = move || {
        job.with(|j| {
            let error = j.blocked.as_ref()?;
            Some(error::panel(w().undo_is_blocked, error))
        })
    };
    view! {
        <Title text=move || title.get()/>
        <div class="title">
            <h1 tabindex="-1">{move || title.get()}</h1>
            <span role="status">{move || job.with(job_pill)}</span>
            <span class="faint">{move || job.with(asked)}</span>
            <div class="actions">{piece(move || (move || job.with(actions)).into_any())}</div>
        </div>
        {piece(move || (move || job.with(figures::figures)).into_any())}
        <div class="cols">
            <div class="stack">
                {failed}
                {blocked}
                <section class="panel" aria-labelledby="steps-title">
                    <header>
                        <h2 id="steps-title">{w().steps}</h2>
                    </header>
                    {piece(move || (move || job.with(parts::steps)).into_any())}
                </section>
                {move || job.with(figures::clones)}
                {move || job.with(copies::shown)}
                {piece(move || log(data))}
            </div>
            <div class="stack">
                {move || job.with(figures::proof)}
                {move || job.with(undo)}
                {piece(move || (move || job.with(figures::target)).into_any())}
            </div>
        </div>
        {piece(move || cancel_dialog(job))}
    }
    .into_any()
}

fn asked(job: &Job) -> AnyView {
    let retry = job.retry_of.map(|id| {
        view! { " · " <a href=format!("/jobs/{id}")>{w().retry_of}</a> }
    });
    view! { {w().asked_for} " " {ago(job.create_time)} " " {put(w().by_whom, &[&job.created_by])} {retry} }
        .into_any()
}

fn actions(job: &Job) -> AnyView {
    let retry = Button {
        to: format!("/do/jobs/{}/retry", job.id),
        label: w().retry,
        back: format!("/jobs/{}", job.id),
        ..Button::default()
    };
    view! {
        {button::copy(job.id.to_string(), w().copy_id)}
        {copies::hold(job)}
        {job.state.is_final().then(|| button::post(retry, &parts::may_retry(job)))}
        {parts::cancel_button(job)}
    }
    .into_any()
}

/// What a cancel would undo; then what it undoes; then what it has undone.
fn undo(job: &Job) -> Option<AnyView> {
    let (title, body) = match job.state {
        JobState::Queued | JobState::Running | JobState::OnHold if can_cancel(job).is_ok() => {
            (w().cancel_would_undo, undo_text(job))
        }
        JobState::Unwinding | JobState::UndoBlocked => (w().being_undone, w().being_undone_why.into_any()),
        JobState::Cancelled | JobState::Failed => (w().nothing_left, w().nothing_left_why.into_any()),
        _ => return None,
    };
    Some(
        view! {
            <section class="panel" aria-label=title>
                <header>
                    <h2>{title}</h2>
                </header>
                <div class="in soft">{body}</div>
            </section>
        }
        .into_any(),
    )
}

fn undo_text(job: &Job) -> AnyView {
    let all: Vec<_> = parts::undo_of(job)
        .into_iter()
        .map(|text| view! { <li>{text}</li> })
        .collect();
    let source = parts::machine(job).map(|m| put(w().source_stays, &[m.name.as_str()]));
    view! {
        <ul class="plain">{all}</ul>
        {source.map(|s| view! { <p>{s}</p> })}
    }
    .into_any()
}

fn cancel_dialog(job: Memo<Job>) -> AnyView {
    dialog("cancel", w().cancel_title.to_owned(), move || {
        let id = job.with_untracked(|j| j.id.to_string());
        let action = format!("/do/jobs/{id}/cancel");
        let (here, fields) = (format!("/jobs/{id}"), Fields::of(&action));
        let verdict = move || job.with(parts::may_cancel);
        let undone = move || verdict().is_ok().then(|| job.with(undo_text));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=cancel"))}
                <p>
                    <b>{move || job.with(parts::title)}</b>
                </p>
                <div class="soft">{undone}</div>
                <footer>
                    {cancel(here.clone(), w().go_on)}
                    {fields.submit("danger", w().cancel_it, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

fn log(data: RwSignal<Data>) -> AnyView {
    let node = NodeRef::<leptos::html::Div>::new();
    let follows = RwSignal::new(true);
    let lines = Memo::new(move |_| data.with(|d| d.log.clone()));
    Effect::new(move |_| {
        lines.track();
        if let (Some(node), true) = (node.get(), follows.get()) {
            node.set_scroll_top(node.scroll_height());
        }
    });
    let none = move || {
        let over = data.with(|d| d.job.state.is_final());
        lines
            .with(Vec::is_empty)
            .then_some(if over { w().logged_nothing } else { w().no_log })
    };
    let clock = clock();
    let rows = move || {
        lines
            .get()
            .into_iter()
            .map(|line| {
                let when = move || format::time_of_day(line.time, clock.zone.get());
                view! {
                    <div>
                        <time datetime=line.time.to_string()>{when}</time>
                        " "
                        {line.text}
                    </div>
                }
            })
            .collect_view()
    };
    view! {
        <section class="panel" aria-labelledby="log-title">
            <header>
                <h2 id="log-title">{w().log}</h2>
                <button
                    type="button"
                    class="quiet"
                    aria-pressed=move || if follows.get() { "true" } else { "false" }
                    on:click=move |_| follows.update(|f| *f = !*f)
                >
                    {w().follow}
                </button>
            </header>
            <div class="log mono" node_ref=node tabindex="0" role="log" aria-labelledby="log-title">
                {rows}
                {none}
            </div>
        </section>
    }
    .into_any()
}

/// How strong a proof is: its tone, its word, what it means.
fn strength(strength: ProofStrength) -> (Tone, &'static str, &'static str) {
    match strength {
        ProofStrength::Agent => (Tone::Good, w().proof_agent, w().proof_agent_why),
        ProofStrength::Serial => (Tone::Good, w().proof_serial, w().proof_serial_why),
        ProofStrength::Displayed => (Tone::Warn, w().proof_displayed, w().proof_displayed_why),
        ProofStrength::NotStarted => (Tone::Still, w().proof_not_started, w().proof_not_started_why),
    }
}
