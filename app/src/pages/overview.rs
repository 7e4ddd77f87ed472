//! The overview: figures, what is going on, what went wrong.

use super::empty;
use crate::components::frame::bar;
use crate::components::list::throttled;
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, pill, vm_pill};
use crate::components::time::ago;
use crate::components::{error, job as parts, place};
use crate::feed::{Change, apply, on_change};
use crate::format;
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{
    Call, GetSummary, JobPage, ListJobs, ListQuery, ListStorages, ListVms, RawCall, StoragePage, Summary,
    VmPage,
};
use shared::job::{Job, JobState};
use shared::place::Storage;
use shared::vm::{PauseReason, Vm, VmState};

/// How many jobs are looked at.
const JOBS: u32 = 30;
/// How many of them are shown as recent.
const RECENT: usize = 8;

/// What the overview shows.
#[derive(Clone, Debug, PartialEq)]
struct Data {
    summary: Summary,
    /// The newest jobs, at work or over.
    jobs: Vec<Job>,
    /// Machines in error, or paused.
    vms: Vec<Vm>,
    storages: Vec<Storage>,
}

pub fn page() -> AnyView {
    let looks = RwSignal::new(0_u32);
    view! {
        <Title text=w().overview/>
        {bar(Vec::new(), w().overview.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().overview}</h1>
            <div class="actions">
                <a class="button go" href="/vms/new">
                    {w().new_machine}
                </a>
            </div>
        </div>
        {load(
            move || looks.get().to_string(),
            |_| all(calls()),
            read,
            |old, new| *old = new,
            move |data| shown(data, looks),
        )}
    }
    .into_any()
}

fn calls() -> [RawCall; 5] {
    let list = |size, filter: &str| ListQuery {
        page_size: Some(size),
        filter: Some(filter.to_owned()).filter(|f| !f.is_empty()),
        ..ListQuery::default()
    };
    let machines = |size, filter| {
        ListVms {
            query: list(size, filter),
        }
        .raw()
    };
    let (query, all) = (list(JOBS, ""), ListQuery::default());
    [
        GetSummary {}.raw(),
        ListJobs { query }.raw(),
        machines(10, "state=ERROR"),
        machines(30, "state=PAUSED"),
        ListStorages { query: all }.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let mut vms = body::<VmPage>(bodies, 2)?.vms;
    vms.extend(body::<VmPage>(bodies, 3)?.vms);
    Ok(Data {
        summary: body(bodies, 0)?,
        jobs: body::<JobPage>(bodies, 1)?.jobs,
        vms,
        storages: body::<StoragePage>(bodies, 4)?.storages,
    })
}

/// Whether somebody should look at a machine.
fn troubled(vm: &Vm) -> bool {
    vm.state == VmState::Error
        || matches!(
            vm.pause_reason,
            Some(PauseReason::NoSpace | PauseReason::IoError | PauseReason::GuestPanicked)
        )
}

fn shown(data: RwSignal<Data>, looks: RwSignal<u32>) -> AnyView {
    let look = throttled(500, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        let mut after = data.get_untracked();
        let was: Vec<_> = after.jobs.iter().map(|j| (j.id, j.state)).collect();
        apply(&mut after.jobs, change, true, |_| true);
        apply(&mut after.vms, change, true, troubled);
        after.jobs.truncate(JOBS as usize);
        let states_differ = was != after.jobs.iter().map(|j| (j.id, j.state)).collect::<Vec<_>>();
        if data.with_untracked(|before| *before != after) {
            data.set(after);
        }
        // The figures are the server's to count.
        if states_differ || matches!(change, Change::Vm(_) | Change::Gone(..)) {
            look();
        }
    });
    let active = Memo::new(move |_| {
        let pick = |j: &&Job| !j.state.is_final();
        data.with(|d| d.jobs.iter().filter(pick).cloned().collect::<Vec<_>>())
    });
    let recent = Memo::new(move |_| {
        let over = |j: &&Job| j.state.is_final();
        data.with(|d| {
            d.jobs
                .iter()
                .filter(over)
                .take(RECENT)
                .cloned()
                .collect::<Vec<_>>()
        })
    });
    let going_on = move || {
        active.with(|jobs| {
            if jobs.is_empty() {
                view! { <p class="none">{w().nothing_going_on}</p> }.into_any()
            } else {
                parts::short_list(jobs)
            }
        })
    };
    let lately = move || {
        recent.with(|jobs| {
            if jobs.is_empty() {
                empty(
                    w().no_jobs,
                    view! { <a class="button" href="/vms/new">{w().new_machine}</a> }.into_any(),
                )
            } else {
                parts::short_list(jobs)
            }
        })
    };
    view! {
        {piece(move || (move || data.with(|d| figures(&d.summary))).into_any())}
        <div class="cols">
            <div class="stack">
                <section class="panel" aria-labelledby="active-title">
                    <header>
                        <h2 id="active-title">{w().going_on}</h2>
                        <a href="/jobs">{w().all_jobs}</a>
                    </header>
                    {piece(move || going_on.into_any())}
                </section>
                <section class="panel" aria-labelledby="recent-title">
                    <header>
                        <h2 id="recent-title">{w().lately}</h2>
                    </header>
                    {piece(move || lately.into_any())}
                </section>
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="trouble-title">
                    <header>
                        <h2 id="trouble-title">{w().trouble}</h2>
                    </header>
                    {piece(move || (move || data.with(trouble)).into_any())}
                </section>
                <section class="panel" aria-labelledby="storage-title">
                    <header>
                        <h2 id="storage-title">{w().storage}</h2>
                    </header>
                    <div class="in">{piece(move || (move || data.with(|d| storages(&d.storages))).into_any())}</div>
                </section>
            </div>
        </div>
    }
    .into_any()
}

fn figures(s: &Summary) -> AnyView {
    let figure = |n: u64, unit: Option<String>, label: &'static str, href: &'static str| {
        view! {
            <div>
                <b>{format::count(n)} " " <small>{unit}</small></b>
                <a href=href>{label}</a>
            </div>
        }
    };
    let of = Some(put(w().of_whole, &[&format::count(s.vms)]));
    view! {
        <section class="panel figures" aria-label=w().figures>
            {figure(s.running_vms, of, w().fig_running, "/vms?state=RUNNING")}
            {figure(s.snapshots, None, w().fig_snapshots, "/vms")}
            {figure(s.active_jobs, None, w().fig_active, "/jobs")}
            {figure(s.failed_jobs_last_day, None, w().fig_failed, "/jobs?state=FAILED")}
        </section>
    }
    .into_any()
}

fn trouble(data: &Data) -> AnyView {
    let mut rows: Vec<AnyView> = data
        .vms
        .iter()
        .filter(|v| troubled(v))
        .map(|vm| {
            let href = format!("/vms/{}", vm.name);
            let why = vm.error.as_ref().map(|e| error::sentence(&e.message));
            view! {
                <li>
                    <span class="what">
                        <a href=href>{vm.name.to_string()}</a>
                        <span class="sub">{why}</span>
                    </span>
                    {vm_pill(vm)}
                </li>
            }
            .into_any()
        })
        .collect();
    let bad = |j: &&Job| {
        matches!(
            j.state,
            JobState::Failed | JobState::UndoBlocked | JobState::OnHold
        )
    };
    for job in data.jobs.iter().filter(bad).take(5) {
        let (tone, word) = (
            crate::components::state::job_tone(job),
            crate::components::state::job_word(job.state),
        );
        let why = job.blocked.as_ref().or(job.error.as_ref());
        let why = why
            .map(|e| error::sentence(&e.message))
            .or_else(|| job.hold_reason.clone());
        rows.push(
            view! {
                <li>
                    <span class="what">
                        <a href=format!("/jobs/{}", job.id)>{parts::title(job)}</a>
                        <span class="sub">{why}</span>
                    </span>
                    {pill(tone, word)}
                    <span class="when">{ago(job.end_time.unwrap_or(job.state_time))}</span>
                </li>
            }
            .into_any(),
        );
    }
    if rows.is_empty() {
        return view! { <p class="none">{pill(Tone::Good, w().all_well)}</p> }.into_any();
    }
    view! { <ul class="short">{rows}</ul> }.into_any()
}

fn storages(all: &[Storage]) -> AnyView {
    let rows: Vec<_> = all
        .iter()
        .map(|s| {
            let used = s.total_bytes.saturating_sub(s.free_bytes);
            let text = place::room(s);
            view! {
                <div class="store">
                    <b>{s.name.to_string()}</b>
                    <span class="soft">{text}</span>
                    <progress
                        max=s.total_bytes.max(1).to_string()
                        value=used.to_string()
                        aria-label=put(w().used_of, &[s.name.as_str()])
                    ></progress>
                    <code class="faint">{s.path.clone()}</code>
                </div>
            }
        })
        .collect();
    view! { {rows} }.into_any()
}
