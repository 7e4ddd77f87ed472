//! Jobs in words: titles, steps, what a cancel would undo.

use super::button::{self, Button};
use super::state::{job_pill, shape, step_tone};
use super::time::{ago, took};
use crate::env::clock;
use crate::env::may;
use crate::feed::Live;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::VmId;
use shared::access::Privilege;
use shared::can::{Verdict, can_cancel, can_retry};
use shared::feed::Noun;
use shared::job::{Job, JobKind, Resource, ResourceRole, Step, StepState, step};
use shared::vm::PowerAction;

/// A thing of the job, of a noun and a role.
pub fn thing(job: &Job, role: ResourceRole, noun: Noun) -> Option<&Resource> {
    job.resource(role, noun)
}

/// The machine a job is about.
pub fn machine(job: &Job) -> Option<&Resource> {
    thing(job, ResourceRole::Source, Noun::Vm).or_else(|| thing(job, ResourceRole::Product, Noun::Vm))
}

fn name(resource: Option<&Resource>) -> String {
    resource.map_or_else(|| "…".to_owned(), |r| r.name.to_string())
}

/// What a job does, in one line.
pub fn title(job: &Job) -> String {
    let vm = name(machine(job));
    let made = |noun| thing(job, ResourceRole::Product, noun);
    // What it was asked is not taken apart for a line.
    let asked = |pointer: &str| job.spec.peek::<String>(pointer);
    let named = |pointer: &str| asked(pointer).unwrap_or_else(|| "…".to_owned());
    match job.kind {
        JobKind::CreateVm => put(w().title_create, &[&named("/createVm/name")]),
        JobKind::PowerVm => {
            let action = job.spec.peek("/powerVm/action").unwrap_or(PowerAction::Start);
            put(power_title(action), &[&vm])
        }
        JobKind::ConnectVm => match job.spec.peek("/connectVm/connected") {
            Some(false) => put(w().title_disconnect, &[&vm]),
            _ => put(w().title_connect, &[&vm]),
        },
        JobKind::TakeSnapshot => {
            let asked = asked("/takeSnapshot/request/name");
            match made(Noun::Snapshot).map(|r| r.name.to_string()).or(asked) {
                Some(name) => put(w().title_snapshot_named, &[&name, &vm]),
                None => put(w().title_snapshot, &[&vm]),
            }
        }
        JobKind::RevertVm => put(
            w().title_revert,
            &[&vm, &name(thing(job, ResourceRole::Source, Noun::Snapshot))],
        ),
        JobKind::DeleteSnapshot => put(
            w().title_delete_snapshot,
            &[&name(thing(job, ResourceRole::Source, Noun::Snapshot)), &vm],
        ),
        JobKind::CloneVm => {
            let asked =
                asked("/cloneVm/request/target/name").or_else(|| asked("/cloneVm/request/disksOnly/name"));
            let product = made(Noun::Vm).or_else(|| made(Noun::Image));
            match product.map(|r| r.name.to_string()).or(asked) {
                Some(name) => put(w().title_clone_named, &[&vm, &name]),
                None => put(w().title_clone, &[&vm]),
            }
        }
        JobKind::InstantCloneVm => {
            let from = match &job.resource(ResourceRole::Source, Noun::ForkPoint) {
                Some(point) => point.name.to_string(),
                None => name(thing(job, ResourceRole::Source, Noun::Vm)),
            };
            let names: Vec<String> = job.spec.peek("/instantCloneVm/request/names").unwrap_or_default();
            let count: Option<usize> = job.spec.peek("/instantCloneVm/request/count");
            let given = asked("/instantCloneVm/request/name").or_else(|| names.first().cloned());
            let clones = match names.len() {
                0 => count.unwrap_or(1),
                n => n,
            };
            match (clones, made(Noun::Vm).map(|r| r.name.to_string()).or(given)) {
                (1, Some(name)) => put(w().title_fork_named, &[&from, &name]),
                (1, None) => put(w().title_fork, &[&from]),
                (n, _) => put(w().title_fork_many, &[&from, &n.to_string()]),
            }
        }
        JobKind::DeleteVm => put(w().title_delete, &[&vm]),
        JobKind::EditVm => put(w().title_edit, &[&vm]),
        JobKind::DeleteForkPoint => put(
            w().title_delete_point,
            &[&name(thing(job, ResourceRole::Source, Noun::ForkPoint))],
        ),
        JobKind::ImportImage => put(w().title_import_image, &[&named("/importImage/name")]),
        JobKind::ImageOfSnapshot => put(
            w().title_image_of_snapshot,
            &[&named("/imageOfSnapshot/name"), &vm],
        ),
        JobKind::ExportDisk => {
            let disk: u32 = job.spec.peek("/exportDisk/request/disk").unwrap_or_default();
            put(w().title_export, &[&disk.to_string(), &vm])
        }
        JobKind::DeleteImage => put(
            w().title_delete_image,
            &[&name(thing(job, ResourceRole::Source, Noun::Image))],
        ),
        JobKind::CopySnapshot => put(w().title_copy, &[&vm, &named("/copySnapshot/targetName")]),
        JobKind::RestoreCopy => put(w().title_restore, &[&named("/restoreCopy/of")]),
        JobKind::BootCopy => put(w().title_boot_copy, &[&named("/bootCopy/of")]),
        JobKind::VerifyTarget => put(w().title_verify_target, &[&named("/verifyTarget/targetName")]),
        JobKind::PruneTarget => put(w().title_prune_target, &[&named("/pruneTarget/targetName")]),
        JobKind::CutOver => put(w().title_cut_over, &[&named("/cutOver/name")]),
        JobKind::FinalizeMigration => put(w().title_finalize, &[&named("/finalizeMigration/name")]),
        JobKind::AdaptCopy => {
            let title = match job.spec.peek("/adaptCopy/check") {
                Some(true) => w().title_check_os,
                _ => w().title_adapt,
            };
            put(title, &[&named("/adaptCopy/name")])
        }
        JobKind::CutOverGroup => put(w().title_cut_over_group, &[&named("/cutOverGroup/group")]),
    }
}

fn power_title(action: PowerAction) -> &'static str {
    match action {
        PowerAction::Start => w().title_start,
        PowerAction::ShutDown => w().title_shutdown,
        PowerAction::PowerOff => w().title_power_off,
        PowerAction::Reset => w().title_reset,
        PowerAction::Pause => w().title_pause,
        PowerAction::Resume => w().title_resume,
    }
}

pub fn kind_word(kind: JobKind) -> &'static str {
    match kind {
        JobKind::CreateVm => w().kind_create,
        JobKind::PowerVm => w().kind_power,
        JobKind::ConnectVm => w().kind_connect,
        JobKind::TakeSnapshot => w().kind_snapshot,
        JobKind::RevertVm => w().kind_revert,
        JobKind::DeleteSnapshot => w().kind_delete_snapshot,
        JobKind::CloneVm => w().kind_clone,
        JobKind::InstantCloneVm => w().kind_fork,
        JobKind::DeleteVm => w().kind_delete,
        JobKind::DeleteForkPoint => w().kind_delete_point,
        JobKind::EditVm => w().kind_edit,
        JobKind::ImportImage => w().kind_import_image,
        JobKind::ImageOfSnapshot => w().kind_image_of_snapshot,
        JobKind::ExportDisk => w().kind_export,
        JobKind::DeleteImage => w().kind_delete_image,
        JobKind::CopySnapshot => w().kind_copy,
        JobKind::RestoreCopy => w().kind_restore,
        JobKind::BootCopy => w().kind_boot_copy,
        JobKind::VerifyTarget => w().kind_verify_target,
        JobKind::PruneTarget => w().kind_prune_target,
        JobKind::CutOver => w().kind_cut_over,
        JobKind::FinalizeMigration => w().kind_finalize,
        JobKind::AdaptCopy => w().kind_adapt,
        JobKind::CutOverGroup => w().kind_cut_over_group,
    }
}

/// A step's name for people; one that has no word of its own is shown as it is.
pub fn step_name(kind: JobKind, name: &str) -> String {
    let word = match name {
        // What other jobs do in a step of that name is something else.
        step::FINALIZING if kind == JobKind::CutOver => w().step_taking_over,
        step::LETTING_GO if kind == JobKind::FinalizeMigration => w().step_removing_kept,
        step::CUTTING_OVER => w().step_cutting_over,
        step::MINTING => w().step_minting,
        step::TAKING_SNAPSHOT => w().step_taking_snapshot,
        step::FREEZING_DISKS => w().step_freezing_disks,
        step::ADAPTING_OS => w().step_adapting_os,
        step::PREPARING_VM_DISKS => w().step_preparing_disks,
        step::INSTANTIATING => w().step_instantiating,
        step::PREPARING => w().step_preparing,
        step::FREEZING_SOURCE => w().step_freezing_source,
        step::CAPTURING_MEMORY => w().step_capturing_memory,
        step::THAWING_SOURCE => w().step_thawing_source,
        step::VERIFYING => w().step_verifying,
        step::STARTING => w().step_starting,
        step::SWITCHING_POWER => w().step_switching_power,
        step::SWITCHING_NETWORKS => w().step_switching_networks,
        step::POWERING_OFF => w().step_powering_off,
        step::DELETING => w().step_deleting,
        step::MERGING_LAYERS => w().step_merging_layers,
        step::REVERTING => w().step_reverting,
        step::FETCHING => w().step_fetching,
        step::CHECKING => w().step_checking,
        step::CONVERTING => w().step_converting,
        step::EXPORTING => w().step_exporting,
        step::REGISTERING => w().step_registering,
        step::REMOVING_FILES => w().step_removing_files,
        step::CHANGING_HARDWARE => w().step_changing_hardware,
        step::COPYING => w().step_copying,
        step::FINALIZING => w().step_finalizing,
        step::LETTING_GO => w().step_letting_go,
        step::BOOTING => w().step_booting,
        step::ATTACHING => w().step_attaching,
        step::BRINGING_HOME => w().step_bringing_home,
        step::CLEANING_UP => w().step_cleaning_up,
        step::PREVIOUS_CYCLE => w().step_previous_cycle,
        step::SHUTTING_DOWN_SOURCE => w().step_shutting_down_source,
        step::FINAL_SYNC => w().step_final_sync,
        other => return other.replace('-', " "),
    };
    word.to_owned()
}

/// What the job is at, in a few words or bytes: for a row of a table.
pub fn progress(job: &Job) -> AnyView {
    if let Some(error) = &job.error {
        return view! { <span class="soft clip">{error.message.clone()}</span> }.into_any();
    }
    if let Some(reason) = &job.hold_reason {
        return view! { <span class="soft clip">{reason.clone()}</span> }.into_any();
    }
    if let Some(step) = job.current_step() {
        if let (Some(done), Some(total)) = (step.done_bytes, step.total_bytes) {
            return meter(done, total, step_name(job.kind, &step.name));
        }
        if let (Some(done), Some(total)) = (step.done_count, step.total_count) {
            return counter(done, total, step_name(job.kind, &step.name));
        }
        return step
            .message
            .clone()
            .map(|m| view! { <span class="soft clip">{m}</span> })
            .into_any();
    }
    let text = if let Some(millis) = job.outcome.peek::<i64>("/proof/bootMillis") {
        put(w().booted_in, &[&format::duration(millis * 1000)])
    } else if let Some(micros) = job.outcome.peek::<i64>("/pauseMicros") {
        put(w().paused_for, &[&format::duration(micros)])
    } else {
        String::new()
    };
    view! { <span class="soft">{text}</span> }.into_any()
}

/// Bytes done of bytes to do.
pub fn meter(done: u64, total: u64, label: String) -> AnyView {
    let (part, whole) = format::bytes_of(done, total);
    view! {
        <span class="meter">
            <progress max=total.max(1).to_string() value=done.min(total).to_string() aria-label=label></progress>
            <span class="soft figures-of">{format!("{part} / {whole}")}</span>
        </span>
    }
    .into_any()
}

/// Machines done of machines to do.
fn counter(done: u32, total: u32, label: String) -> AnyView {
    view! {
        <span class="meter">
            <progress max=total.max(1).to_string() value=done.min(total).to_string() aria-label=label></progress>
            <span class="soft figures-of">{format!("{done} / {total}")}</span>
        </span>
    }
    .into_any()
}

/// The steps of a job.
pub fn steps(job: &Job) -> AnyView {
    let rows: Vec<_> = job.steps.iter().map(|s| one_step(job, s)).collect();
    view! { <ol class="steps">{rows}</ol> }.into_any()
}

fn one_step(job: &Job, step: &Step) -> AnyView {
    let (tone, word) = step_tone(step.state);
    let at_work = matches!(step.state, StepState::Running | StepState::Undoing);
    // Once a job is over, what did not begin never will.
    let waits = step.state == StepState::Waiting;
    let word = if waits && job.state.is_final() {
        w().step_not_reached
    } else {
        word
    };
    let when = if step.start_time.is_some() && !waits {
        took(step.start_time, step.end_time)
    } else {
        ().into_any()
    };
    let bytes = match (step.done_bytes, step.total_bytes) {
        (Some(done), Some(total)) if at_work => Some(meter(done, total, step_name(job.kind, &step.name))),
        (Some(done), _) if done > 0 => {
            Some(view! { <span class="soft">{format::bytes(done)}</span> }.into_any())
        }
        _ => None,
    };
    let bytes = match (step.done_count, step.total_count) {
        (Some(done), Some(total)) if at_work => Some(counter(done, total, step_name(job.kind, &step.name))),
        (Some(done), Some(total)) => {
            Some(view! { <span class="soft">{format!("{done} / {total}")}</span> }.into_any())
        }
        _ => bytes,
    };
    let left = at_work.then(|| remaining(step)).flatten();
    let more = step.message.is_some() || bytes.is_some();
    view! {
        <li class:at-work=at_work class:waits=waits>
            <span class=tone.ink()>{shape(tone)}</span>
            <span class="name">{step_name(job.kind, &step.name)}</span>
            <span class="when">{word} " " {when}</span>
            {more
                .then(|| {
                    view! {
                        <span class="more">
                            {step.message.clone().map(|m| view! { <span>{m}</span> })} {bytes} {left}
                        </span>
                    }
                })}
        </li>
    }
    .into_any()
}

/// Rate and time left of a step that counts its bytes: on average, which is what is known.
pub fn pace(step: &Step, now: shared::Timestamp) -> Option<(f64, i64)> {
    let (done, total) = (step.done_bytes?, step.total_bytes?);
    let micros = now.since(step.start_time?);
    // A second of it says something; less is noise.
    if done == 0 || micros < 1_000_000 {
        return None;
    }
    let rate = done as f64 / (micros as f64 / 1e6);
    let left = total.saturating_sub(done) as f64 / rate * 1e6;
    Some((rate, left as i64))
}

fn remaining(step: &Step) -> Option<AnyView> {
    step.total_bytes?;
    let (clock, step) = (clock(), step.clone());
    let text = move || {
        let (rate, left) = pace(&step, clock.now.get())?;
        let (n, unit) = format::rate(rate);
        Some(put(w().rate_left, &[&n, unit, &format::elapsed(left)]))
    };
    Some(view! { <span class="soft">{text}</span> }.into_any())
}

/// What a cancel would undo, from the steps that did something.
pub fn undo_of(job: &Job) -> Vec<&'static str> {
    let touched = |s: &&Step| matches!(s.state, StepState::Running | StepState::Done | StepState::Failed);
    let mut all: Vec<_> = job
        .steps
        .iter()
        .filter(touched)
        .filter_map(|s| {
            Some(match s.name.as_str() {
                step::TAKING_SNAPSHOT | step::FREEZING_DISKS => w().undo_snapshot,
                step::FREEZING_SOURCE => w().undo_moment,
                step::ADAPTING_OS => w().undo_seed,
                step::PREPARING_VM_DISKS => w().undo_disks,
                step::INSTANTIATING => w().undo_machine,
                step::STARTING | step::SWITCHING_POWER => w().undo_power,
                step::SWITCHING_NETWORKS => w().undo_networks,
                step::SHUTTING_DOWN_SOURCE => w().undo_shut_down,
                _ => return None,
            })
        })
        .collect();
    if all.is_empty() {
        all.push(w().undo_nothing);
    }
    all
}

/// The machine that a job works on.
fn id(job: &Job) -> Option<VmId> {
    thing(job, ResourceRole::Source, Noun::Vm)?.id.parse().ok()
}

/// The button that cancels: it asks once, in a dialog.
pub fn cancel_button(job: &Job) -> AnyView {
    let button = Button {
        to: format!("/jobs/{}?do=cancel", job.id),
        label: w().cancel_dots,
        ..Button::default()
    };
    button::link(button, &may_cancel(job))
}

/// Whether the person may cancel a job.
pub fn may_cancel(job: &Job) -> Verdict {
    may(Privilege::JobUpdate, id(job)).and_then(|()| can_cancel(job))
}

/// Whether the person may try a job again: it asks what the job itself asked.
pub fn may_retry(job: &Job) -> Verdict {
    let vm = id(job);
    may(Privilege::JobUpdate, vm)
        .and_then(|()| may(Privilege::of_job(job.kind), vm))
        .and_then(|()| can_retry(job))
}

/// A short list of jobs.
pub fn short_list(jobs: &[Job]) -> AnyView {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let (href, text) = (format!("/jobs/{}", job.id()), title(job));
            let over = job.end_time.unwrap_or(job.create_time);
            let when = if job.state.is_final() {
                ago(over)
            } else {
                took(job.start_time.or(Some(job.create_time)), None)
            };
            view! {
                <li>
                    <span class="what">
                        <a href=href>{text}</a>
                        <span class="sub">{progress(job)}</span>
                    </span>
                    {job_pill(job)}
                    <span class="when">{when}</span>
                </li>
            }
        })
        .collect();
    view! { <ul class="short">{rows}</ul> }.into_any()
}
