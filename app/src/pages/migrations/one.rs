//! One machine that is carried over: how far it has come, its cycles, its test clones, its cutover.

use super::{
    GROUPS, HERE, SOURCES, became, clones, cutover, cycles, dialogs, group, lag, looks, may_ask, state,
};
use crate::components::button::{self, Button};
use crate::components::copies::facts;
use crate::components::error;
use crate::components::frame::bar;
use crate::components::list::throttled;
use crate::components::load::{Bodies, Loading, all, body, load};
use crate::components::state::{Tone, pill};
use crate::components::time::ago;
use crate::feed::{Change, on_change};
use crate::format;
use crate::hydration::piece;
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{
    Call, CutoverPage, CyclePage, GetForecast, GetMigratingVm, ListCutovers, ListCycles, ListMigrationClones,
    ListQuery, MigrationClonePage,
};
use shared::feed::Noun;
use shared::job::{Job, JobKind};
use shared::migrate::can::Verb;
use shared::migrate::views::{CutoverJob, Forecast, MigrationClone, ReplicationCycle};
use shared::migrate::{MigratingState, MigratingVm};

/// How many test clones and cutovers are shown.
const LISTED: u32 = 20;

#[derive(Clone)]
struct Data {
    vm: MigratingVm,
    /// The newest first, as are the others.
    cycles: Vec<ReplicationCycle>,
    clones: Vec<MigrationClone>,
    cutovers: Vec<CutoverJob>,
    forecast: Forecast,
    /// Whether it was removed while we looked.
    gone: bool,
}

pub fn page() -> AnyView {
    // What the feed tells of concerns the page by the id, which comes with the data.
    let (name, looks) = (param("vm"), looks(|_| false));
    let page = move || {
        let name = name.get();
        view! {
            {bar(vec![(HERE.to_owned(), w().migration.to_owned())], name.clone())}
            {load(
                move || looks.get().to_string(),
                move |_| fetch(&name),
                read,
                |old, new| *old = new,
                move |data| shown(data, looks),
            )}
        }
    };
    page.into_any()
}

fn fetch(name: &str) -> Loading {
    let vm = || name.to_owned();
    let list = |size| ListQuery {
        page_size: Some(size),
        ..ListQuery::default()
    };
    all([
        GetMigratingVm { vm: vm() }.raw(),
        ListCycles {
            vm: vm(),
            query: list(cycles::LISTED),
        }
        .raw(),
        ListMigrationClones {
            vm: vm(),
            query: list(LISTED),
        }
        .raw(),
        ListCutovers {
            vm: vm(),
            query: list(LISTED),
        }
        .raw(),
        GetForecast { vm: vm() }.raw(),
    ])
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        vm: body(bodies, 0)?,
        cycles: body::<CyclePage>(bodies, 1)?.replication_cycles,
        clones: body::<MigrationClonePage>(bodies, 2)?.clone_jobs,
        cutovers: body::<CutoverPage>(bodies, 3)?.cutover_jobs,
        forecast: body(bodies, 4)?,
        gone: false,
    })
}

fn follow(data: RwSignal<Data>, looks: RwSignal<u32>) {
    let id = data.with_untracked(|d| d.vm.id.to_string());
    let look = throttled(500, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| match change {
        Change::Gone(Noun::MigratingVm, gone) if gone.id == id => data.update(|d| d.gone = true),
        Change::Other(Noun::MigratingVm) => look(),
        Change::Job(job) if is_of(job, &id) => look(),
        _ => {}
    });
}

/// Whether a job is a cycle of this migration, a test clone, its cutover or its end.
fn is_of(job: &Job, id: &str) -> bool {
    let of = match job.kind {
        JobKind::CopySnapshot => "/copySnapshot/migration/migratingVm",
        JobKind::RestoreCopy => "/restoreCopy/migration/migratingVm",
        JobKind::CutOver => "/cutOver/migratingVm",
        JobKind::FinalizeMigration => "/finalizeMigration/migratingVm",
        JobKind::AdaptCopy => "/adaptCopy/migratingVm",
        _ => return false,
    };
    job.spec.peek::<String>(of).is_some_and(|of| of == id)
}

fn shown(data: RwSignal<Data>, looks: RwSignal<u32>) -> AnyView {
    follow(data, looks);
    let vm = Memo::new(move |_| data.with(|d| d.vm.clone()));
    // Each apart: what somebody types into one of them stays while another changes.
    let cycles = Memo::new(move |_| data.with(|d| d.cycles.clone()));
    let clones = Memo::new(move |_| data.with(|d| d.clones.clone()));
    let cutovers = Memo::new(move |_| data.with(|d| d.cutovers.clone()));
    let forecast = Memo::new(move |_| data.with(|d| d.forecast));
    let gone = Memo::new(move |_| data.with(|d| d.gone));
    let name = vm.with_untracked(|v| v.name.to_string());
    view! {
        <Title text=name.clone()/>
        <div class="title">
            <h1 tabindex="-1">{name}</h1>
            <span role="status">{move || vm.with(state)}</span>
            {move || vm.with(group)}
            <div class="actions">{piece(move || (move || vm.with(actions)).into_any())}</div>
        </div>
        {move || gone.get().then(|| view! { <div class="alert" role="alert">{w().migration_gone}</div> })}
        {move || vm.with(trouble)}
        {piece(move || cycles::section(vm, cycles))}
        <div class="cols">
            <div class="stack">
                {piece(move || cutover::section(vm, forecast, cutovers))}
                {piece(move || clones::section(vm, clones))}
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="migration-title">
                    <header>
                        <h2 id="migration-title">{w().migration}</h2>
                        {move || vm.with(|v| button::copy(v.id.to_string(), w().copy_id))}
                    </header>
                    <div class="in">{move || vm.with(about)}</div>
                </section>
                <section class="panel" aria-labelledby="becomes-title">
                    <header>
                        <h2 id="becomes-title">{w().becomes}</h2>
                    </header>
                    <div class="in">{move || vm.with(becomes)}</div>
                </section>
            </div>
        </div>
        {piece(move || dialogs::clone(vm))}
        {piece(move || dialogs::cut_over(vm, forecast))}
        {piece(move || dialogs::finalize(vm))}
        {piece(move || dialogs::delete(vm))}
    }
    .into_any()
}

fn actions(vm: &MigratingVm) -> AnyView {
    let name = vm.name.as_str();
    let post = |action: &str, label, verb| {
        let button = Button {
            to: format!("/do/migrations/{name}/{action}"),
            label,
            back: format!("{HERE}/{name}"),
            ..Button::default()
        };
        button::post(button, &may_ask(verb, vm))
    };
    let go = |what: &str, label, class, verb| {
        let button = Button {
            to: format!("{HERE}/{name}?do={what}"),
            label,
            class,
            ..Button::default()
        };
        button::link(button, &may_ask(verb, vm))
    };
    let edit = Button {
        to: format!("{HERE}/{name}/edit"),
        label: w().edit_dots,
        ..Button::default()
    };
    view! {
        {post("start", w().start, Verb::Start)}
        {post("pause", w().pause, Verb::Pause)}
        {post("resume", w().resume, Verb::Resume)}
        {post("cycle", w().cycle_now, Verb::Cycle)}
        {post("check", w().check_again, Verb::Check)}
        {post("check-os", w().check_os, Verb::CheckOs)}
        {vm.adapts.then(|| post("adapt", w().adapt_again, Verb::Adapt))}
        {post("extend", w().extend, Verb::Extend)}
        {button::link(edit, &may_ask(Verb::Edit, vm))}
        {go("finalize", w().finalize_dots, "", Verb::Finalize)}
        {go("delete", w().delete_dots, "danger", Verb::Delete)}
    }
    .into_any()
}

/// What is wrong, and what to do about it.
fn trouble(vm: &MigratingVm) -> Option<AnyView> {
    if vm.state == MigratingState::Expired {
        return Some(view! { <div class="alert warn" role="alert">{w().advice_extend}</div> }.into_any());
    }
    let why = vm.error.as_ref()?;
    let advice = if vm.state == MigratingState::Error {
        Some(w().advice_check)
    } else {
        vm.state.cycles().then(|| w().advice_next_cycle)
    };
    let mark = if vm.failures > 0 {
        put(w().failed_in_a_row, &[&format::count(vm.failures.into())])
    } else {
        w().failed.to_owned()
    };
    Some(
        view! {
            <section class="panel trouble" aria-label=w().what_went_wrong>
                <header>
                    <h2>{w().what_went_wrong}</h2>
                    {pill(Tone::Bad, mark)}
                </header>
                <div class="in">
                    {error::explain(why)} {advice.map(|advice| view! { <p class="soft">{advice}</p> })}
                </div>
            </section>
        }
        .into_any(),
    )
}

fn about(vm: &MigratingVm) -> AnyView {
    let (source, target) = (vm.source_name.to_string(), vm.target_name.to_string());
    let quiesce = if vm.policy.quiesce {
        w().quiesce_yes
    } else {
        w().quiesce_no
    };
    let from = view! {
        <span class="soft">
            {vm.source_vm_name.clone()} " · " <a href=format!("{SOURCES}/{source}")>{source.clone()}</a>
        </span>
    };
    let mut rows = vec![
        (w().source_vm, from.into_any()),
        (
            w().copy_target,
            view! { <a href=format!("/targets/{target}")>{target.clone()}</a> }.into_any(),
        ),
        (w().state_since, ago(vm.state_time)),
    ];
    if became(vm).is_none() {
        rows.push((w().lag, lag(vm)));
        rows.extend(super::next(vm).map(|next| (w().next_cycle, next)));
    }
    if let Some(time) = vm.last_sync_time {
        let link = vm
            .last_copy
            .map(|copy| view! { " · " <a href=format!("/copies/{copy}")>{w().see_copy}</a> });
        rows.push((w().last_uploaded, view! { {ago(time)} {link} }.into_any()));
    }
    rows.extend([
        (
            w().rest_between,
            format::duration(i64::from(vm.policy.idle_seconds) * 1_000_000).into_any(),
        ),
        (
            w().uploads_kept,
            format::count(vm.policy.keep_last.into()).into_any(),
        ),
        (w().file_systems, quiesce.into_any()),
    ]);
    if let Some(group) = &vm.group {
        let link = view! { <a href=format!("{GROUPS}/{group}")>{group.to_string()}</a> };
        rows.push((w().group, link.into_any()));
        rows.push((w().wave, vm.wave.into_any()));
    }
    let expires = match vm.expire_time {
        Some(time) => moment(time),
        None => w().never.into_any(),
    };
    rows.push((w().expires_at, expires));
    rows.push((w().made, ago(vm.create_time)));
    facts(rows)
}

/// A moment, as it stands on the person's clock.
fn moment(time: shared::Timestamp) -> AnyView {
    let zone = crate::env::clock().zone;
    view! { <time datetime=time.to_string()>{move || format::absolute(time, zone.get())}</time> }.into_any()
}

/// What it is to be where it goes, or the machine that it is there.
fn becomes(vm: &MigratingVm) -> AnyView {
    let asked = &vm.target_defaults;
    let as_there = || w().as_at_source.to_owned();
    let name = asked.name.as_ref().unwrap_or(&vm.name).to_string();
    let cpus = asked.cpus.map_or_else(as_there, |n| n.to_string());
    let memory = asked.memory_mib.map_or_else(as_there, |n| format::mib(n.into()));
    let mut rows = vec![
        (w().name, name.into_any()),
        (w().cpus, cpus.into_any()),
        (w().memory, memory.into_any()),
    ];
    if let Some(storage) = &asked.storage {
        rows.push((w().storage, storage.clone().into_any()));
    }
    if let Some(nics) = &asked.network_interfaces {
        let all: Vec<_> = nics.iter().map(|nic| nic.network.as_str()).collect();
        let text = if all.is_empty() {
            w().net_none.to_owned()
        } else {
            all.join(", ")
        };
        rows.push((w().network, text.into_any()));
    }
    if let Some(hostname) = &asked.hostname {
        rows.push((w().hostname, hostname.clone().into_any()));
    }
    if let Some(firmware) = asked.firmware {
        rows.push((w().firmware, firmware.word().into_any()));
    }
    rows.push((w().os_adaptation, adaptation(vm)));
    rows.extend(became(vm).map(|machine| (w().machine, machine)));
    facts(rows)
}

/// How far the last upload is adapted.
fn adaptation(vm: &MigratingVm) -> AnyView {
    if !vm.adapts {
        return w().adapt_skipped.into_any();
    }
    let Some(last) = &vm.adaptation else {
        return w().adapt_waits.into_any();
    };
    let (tone, word) = match (&last.error, last.over) {
        (Some(_), _) => (Tone::Bad, w().adapt_failed),
        (None, false) => (Tone::Busy, w().adapt_running),
        (None, true) => (Tone::Good, w().adapt_done),
    };
    let job = last
        .job
        .map(|job| view! { <a href=format!("/jobs/{job}")>{w().see_job}</a> });
    let why = last.error.as_ref().map(|why| {
        view! {
            <span class="sub">{error::sentence(error::said(why))}</span>
            <span class="sub">{w().adapt_advice}</span>
        }
    });
    view! { {pill(tone, word)} " " {job} {why} }.into_any()
}
