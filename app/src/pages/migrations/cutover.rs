//! The cutover of a migration: what will happen, how far it is, and how long the machine was off.

use super::dialogs::about;
use super::{HERE, clones, may_ask};
use crate::components::button::{self, Button};
use crate::components::copies::facts;
use crate::components::error;
use crate::components::state::{Tone, pill, shape};
use crate::components::time::{ago, took};
use crate::env::may;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::Status;
use shared::access::Privilege;
use shared::can::Verdict;
use shared::migrate::can::Verb;
use shared::migrate::views::{CutoverJob, Forecast, MoveState, MoveStepName};
use shared::migrate::{MigratingState, MigratingVm};

pub fn section(vm: Memo<MigratingVm>, forecast: Memo<Forecast>, cutovers: Memo<Vec<CutoverJob>>) -> AnyView {
    let button = move || {
        vm.with(|v| {
            let button = Button {
                to: format!("{HERE}/{}?do=cutover", v.name),
                label: w().cut_over_dots,
                class: "danger",
                ..Button::default()
            };
            button::link(button, &may_ask(Verb::CutOver, v))
        })
    };
    let shown = move || {
        vm.with(|vm| {
            cutovers.with(|all| {
                // What went before is told where it is not what is shown.
                let (now, before) = match all.split_first() {
                    Some((job, before)) if at_work(job) => (Some(progress(job)), before),
                    Some((job, before)) if is_over(vm) => (Some(done(job)), before),
                    _ => (None, all.as_slice()),
                };
                let now = now.unwrap_or_else(|| forecast.with(|f| plan(vm, f)));
                view! { <div class="in">{now}</div> {earlier(before)} }
            })
        })
    };
    view! {
        <section class="panel" aria-labelledby="cutover-title">
            <header>
                <h2 id="cutover-title">{w().cutover}</h2>
                {button}
            </header>
            {shown}
        </section>
    }
    .into_any()
}

/// Whether it goes on.
fn at_work(job: &CutoverJob) -> bool {
    matches!(
        job.state,
        MoveState::Pending | MoveState::Active | MoveState::Cancelling
    )
}

/// Whether the machine runs where it was to go.
fn is_over(vm: &MigratingVm) -> bool {
    matches!(
        vm.state,
        MigratingState::Cutover | MigratingState::Finalizing | MigratingState::Finalized
    )
}

/// What will happen, step by step, and how long each is likely to take.
fn plan(vm: &MigratingVm, forecast: &Forecast) -> AnyView {
    let source = vm.source_vm_name.as_str();
    let becomes = vm.target_defaults.name.as_ref().unwrap_or(&vm.name);
    let previous = if vm.current_cycle.is_some() {
        w().cycle_at_work
    } else {
        w().no_cycle_at_work
    };
    let step = |text: String, takes: Option<String>| {
        let takes = takes.map(|takes| view! { <span class="sub">{takes}</span> });
        view! { <li>{text} {takes}</li> }.into_any()
    };
    let becomes = becomes.as_str();
    let no_return = put(w().no_return_why, &[becomes, source]);
    let steps = [
        step(w().plan_previous.to_owned(), Some(previous.to_owned())),
        step(
            put(w().plan_shut_down, &[source]),
            Some(about(forecast.shutting_down_millis)),
        ),
        step(
            put(w().plan_final_sync, &[vm.target_name.as_str()]),
            Some(about(forecast.final_sync_millis)),
        ),
        match vm.adapts {
            true => step(w().plan_adapt.to_owned(), Some(about(forecast.adapting_millis))),
            false => ().into_any(),
        },
        step(w().plan_disks.to_owned(), None),
        step(
            put(w().plan_start, &[becomes]),
            Some(about(forecast.instantiating_millis)),
        ),
        view! {
            <li class="no-return">
                <b>{w().no_return}</b>
                <span class="sub">{no_return}</span>
            </li>
        }
        .into_any(),
        step(put(w().plan_over, &[source]), None),
    ];
    view! {
        <ol class="happens" aria-label=w().what_happens>{steps.into_iter().collect_view()}</ol>
        {facts(vec![(w().downtime, about(forecast.downtime_millis()).into_any())])}
    }
    .into_any()
}

fn step_word(step: MoveStepName) -> &'static str {
    match step {
        MoveStepName::PreviousReplicationCycle => w().step_previous_cycle,
        MoveStepName::ShuttingDownSourceVm => w().step_shutting_down_source,
        MoveStepName::FinalSync => w().step_final_sync,
        MoveStepName::AdaptingOs => w().step_adapting_os,
        MoveStepName::PreparingVmDisks => w().step_preparing_disks,
        MoveStepName::InstantiatingMigratedVm => w().step_instantiating,
    }
}

/// A cutover at work, by its steps.
fn progress(job: &CutoverJob) -> AnyView {
    let rows: Vec<_> = MoveStepName::ALL
        .iter()
        .filter(|name| job.adapts || **name != MoveStepName::AdaptingOs)
        .map(|name| step(job, *name))
        .collect();
    let stop = Button {
        to: format!("/jobs/{}?do=cancel", job.id),
        label: w().cancel_dots,
        ..Button::default()
    };
    let percent = job.progress_percent.map(|n| {
        let text = put(w().percent_done, &[&n.to_string()]);
        view! { <progress max="100" value=n.to_string() aria-label=w().cutover></progress> " " {text} " " }
    });
    let mark = job.no_return.then(|| pill(Tone::Warn, w().no_return));
    view! {
        <p role="status">
            {clones::state(job.state)} " " {percent} {mark} " "
            <a href=format!("/jobs/{}", job.id)>{w().see_job}</a>
        </p>
        <ol class="steps">{rows}</ol>
        <p>{button::link(stop, &may_cancel(job))}</p>
    }
    .into_any()
}

/// Whether the person may still cancel it.
fn may_cancel(job: &CutoverJob) -> Verdict {
    may(Privilege::JobUpdate, None)?;
    if job.no_return {
        return Err(Status::precondition(w().past_no_return));
    }
    if job.state == MoveState::Cancelling {
        return Err(Status::precondition(w().being_undone));
    }
    Ok(())
}

fn step(job: &CutoverJob, name: MoveStepName) -> AnyView {
    let step = job.steps.iter().find(|step| step.name == name);
    let (tone, word) = match step.map(|step| step.end_time) {
        None => (Tone::Still, w().step_waiting),
        Some(None) => (Tone::Busy, w().step_running),
        Some(Some(_)) => (Tone::Good, w().step_done),
    };
    let (at_work, waits) = (tone == Tone::Busy, step.is_none());
    let when = step.map(|step| took(Some(step.start_time), step.end_time));
    let message = job.state_message.clone().filter(|_| at_work);
    view! {
        <li class:at-work=at_work class:waits=waits>
            <span class=tone.ink()>{shape(tone)}</span>
            <span class="name">{step_word(name)}</span>
            <span class="when">{word} " " {when}</span>
            {message.map(|text| view! { <span class="more">{text}</span> })}
        </li>
    }
    .into_any()
}

/// How long the machine was off, and what it has become.
fn done(job: &CutoverJob) -> AnyView {
    let downtime = job.downtime_millis.map(|millis| {
        let text = format::duration(millis.saturating_mul(1000) as i64);
        view! { <p><b>{put(w().downtime_of, &[&text])}</b></p> }
    });
    let mut rows = Vec::new();
    if let Some(vm) = &job.target {
        let link = view! { <a href=format!("/vms/{}", vm.id)>{vm.name.to_string()}</a> };
        rows.push((w().machine, link.into_any()));
    }
    if let Some(end) = job.end_time {
        rows.push((w().moving_cutover, ago(end)));
    }
    let link = view! { <a href=format!("/jobs/{}", job.id)>{w().see_job}</a> };
    rows.push((w().job, link.into_any()));
    view! { {downtime} {facts(rows)} }.into_any()
}

/// What was tried before.
fn earlier(all: &[CutoverJob]) -> Option<AnyView> {
    if all.is_empty() {
        return None;
    }
    let rows: Vec<_> = all
        .iter()
        .map(|job| {
            let why = job.error.as_ref().map(|why| {
                let text = error::sentence(error::said(why));
                view! { <span class="sub">{text}</span> }
            });
            view! {
                <li>
                    <span class="what">
                        <a href=format!("/jobs/{}", job.id)>{ago(job.create_time)}</a>
                        {why}
                    </span>
                    {clones::state(job.state)}
                </li>
            }
        })
        .collect();
    Some(view! { <ul class="short" aria-label=w().earlier_cutovers>{rows}</ul> }.into_any())
}
