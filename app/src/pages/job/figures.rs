//! The figures of a job, its proof, and what it makes.

use super::{copies, strength};
use crate::components::job::{machine, pace, step_name, thing};
use crate::components::state::pill;
use crate::components::time::took;
use crate::env::clock;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::MigratingVmId;
use shared::clone::{CloneMode, CloneVm};
use shared::feed::Noun;
use shared::fork::{ForkNics, Identity, InstantClone};
use shared::job::{Job, JobKind, JobSpec, Resource, ResourceRole, Step};
use shared::migrate::adapt::{Adapted, LicenceType};

pub(super) fn figure(number: AnyView, unit: AnyView, label: String) -> AnyView {
    view! {
        <div>
            <b>{number} " " <small>{unit}</small></b>
            <span>{label}</span>
        </div>
    }
    .into_any()
}

/// A duration as a figure.
fn time(micros: i64, label: String) -> AnyView {
    let (n, unit) = format::duration_parts(micros);
    figure(n.into_any(), unit.into_any(), label)
}

/// The figures: only what is known.
pub fn figures(job: &Job) -> Option<AnyView> {
    let mut all = Vec::new();
    let outcome = job.outcome.read().unwrap_or_default();
    let copying = job.current_step().filter(|s| s.total_bytes.is_some());
    if let Some(copy) = &outcome.copy {
        all.extend(copies::figures(copy, job.state.is_final()));
    } else if let Some(step) = copying {
        all.extend(copy_figures(step, copied_what(job, step)));
    } else if let Some(bytes) = outcome.copied_bytes.filter(|b| *b > 0 && outcome.fork.is_none()) {
        let text = format::bytes(bytes);
        let (n, unit) = text.split_once(' ').unwrap_or((&text, ""));
        all.push(figure(
            n.to_owned().into_any(),
            unit.to_owned().into_any(),
            w().fig_copied.to_owned(),
        ));
    }
    if let Some(millis) = outcome.proof.as_ref().and_then(|p| p.boot_millis) {
        all.push(time(millis as i64 * 1000, w().fig_boot.to_owned()));
    }
    if let Some(millis) = outcome.downtime_millis {
        all.push(time(millis as i64 * 1000, w().fig_downtime.to_owned()));
    }
    let fork = outcome.fork.as_ref();
    if let Some(micros) = fork.and_then(|f| f.source_pause_micros) {
        all.push(time(micros as i64, w().fig_source_pause.to_owned()));
    } else if let Some(micros) = outcome.pause_micros {
        all.push(time(micros as i64, w().fig_pause.to_owned()));
    }
    if let Some(micros) = fork.and_then(|f| f.request_to_running_micros) {
        all.push(time(micros as i64, w().fig_running_after.to_owned()));
    }
    if let Some(bytes) = fork.and_then(|f| f.frozen_bytes) {
        let text = format::bytes(bytes);
        let (n, unit) = text.split_once(' ').unwrap_or((&text, ""));
        all.push(figure(
            n.to_owned().into_any(),
            unit.to_owned().into_any(),
            w().fig_frozen.to_owned(),
        ));
    }
    if let Some(start) = job.start_time {
        match job.end_time {
            Some(end) => all.push(time(end.since(start), w().fig_took.to_owned())),
            None => all.push(figure(
                took(Some(start), None),
                ().into_any(),
                w().fig_elapsed.to_owned(),
            )),
        }
        let waited = start.since(job.create_time);
        if all.len() < 4 && waited >= 100_000 {
            all.push(time(waited, w().fig_waited.to_owned()));
        }
    } else if !job.state.is_final() {
        all.push(figure(
            took(Some(job.create_time), None),
            ().into_any(),
            w().fig_waits.to_owned(),
        ));
    }
    all.truncate(4);
    (!all.is_empty()).then(|| {
        view! {
            <section class="panel figures" aria-label=w().figures>
                {all}
            </section>
        }
        .into_any()
    })
}

/// What the bytes of a step are: those of new disks, or what its own name says.
fn copied_what(job: &Job, step: &Step) -> String {
    match job.kind {
        JobKind::RestoreCopy
        | JobKind::BootCopy
        | JobKind::VerifyTarget
        | JobKind::PruneTarget
        | JobKind::CutOver
        | JobKind::CutOverGroup
        | JobKind::AdaptCopy
        | JobKind::FinalizeMigration => step_name(job.kind, &step.name),
        _ => w().fig_copying.to_owned(),
    }
}

fn copy_figures(step: &Step, label: String) -> Vec<AnyView> {
    let (Some(done), Some(total)) = (step.done_bytes, step.total_bytes) else {
        return Vec::new();
    };
    let (part, whole) = format::bytes_of(done, total);
    let mut all = vec![figure(
        part.into_any(),
        put(w().of_whole, &[&whole]).into_any(),
        label,
    )];
    let clock = clock();
    let step = step.clone();
    let now = Memo::new(move |_| {
        let (rate, left) = pace(&step, clock.now.get())?;
        Some((format::rate(rate), format::elapsed(left)))
    });
    all.push(
        (move || {
            now.get().map(|((n, unit), left)| {
                view! {
                    {figure(n.into_any(), unit.into_any(), w().fig_rate.to_owned())}
                    {figure(left.into_any(), ().into_any(), w().fig_left.to_owned())}
                }
            })
        })
        .into_any(),
    );
    all
}

/// The proof that what was made boots, with the guest's screen.
pub fn proof(job: &Job) -> Option<AnyView> {
    let outcome = job.outcome.read()?;
    let proof = outcome.proof.as_ref();
    if proof.is_none() && !outcome.screen {
        return None;
    }
    let name = thing(job, ResourceRole::Product, Noun::Vm).map(|r| r.name.to_string());
    let name = name.or_else(|| job.spec.peek("/bootCopy/of"));
    let picture = outcome.screen.then(|| {
        let src = format!("/api/v1/jobs/{}/screen", job.id);
        let alt = put(w().screen_of, &[&name.unwrap_or_default()]);
        view! {
            <div class="screen kept">
                <img src=src alt=alt/>
            </div>
        }
    });
    let words = proof.map(|p| {
        let (_, _, why) = strength(p.strength);
        let boot = p
            .boot_millis
            .map(|ms| put(w().booted_in, &[&format::duration(ms as i64 * 1000)]));
        let matched = p
            .matched
            .clone()
            .map(|line| view! { <code class="line">{line}</code> });
        view! {
            <p>
                {boot.map(|b| view! { <b>{b}</b> ". " })} <span class="soft">{why}</span>
            </p>
            {matched}
        }
    });
    let mark = proof.map(|p| {
        let (tone, word, _) = strength(p.strength);
        pill(tone, word)
    });
    Some(
        view! {
            <section class="panel" aria-labelledby="proof-title">
                <header>
                    <h2 id="proof-title">{w().proof}</h2>
                    {mark}
                </header>
                {picture}
                <div class="in">{words}</div>
            </section>
        }
        .into_any(),
    )
}

/// What is known of the clones that were forked.
pub fn clones(job: &Job) -> Option<AnyView> {
    let fork = job.outcome.read()?.fork.filter(|f| !f.clones.is_empty())?;
    let micros = |n: Option<u64>| n.map_or_else(String::new, |n| format::duration(n as i64));
    let own =
        |m: Option<shared::fork::MemoryUse>| m.map_or_else(String::new, |m| format::bytes(m.private_bytes));
    let rows: Vec<_> = fork
        .clones
        .iter()
        .map(|clone| {
            let identity = clone.identity.map_or("", identity_word);
            let tick = clone.first_tick.map_or_else(String::new, |t| t.to_string());
            view! {
                <tr>
                    <th scope="row">
                        <a href=format!("/vms/{}", clone.vm)>{clone.name.to_string()}</a>
                    </th>
                    <td>{micros(clone.running_micros)}</td>
                    <td>{micros(clone.answered_micros)}</td>
                    <td>{identity}</td>
                    <td>{own(clone.memory)}</td>
                    <td>{own(clone.memory_later)}</td>
                    <td>{tick}</td>
                </tr>
            }
        })
        .collect();
    let heads: Vec<_> = [
        w().name,
        w().fork_running,
        w().fork_answered,
        w().fork_identity,
        w().fork_own,
        w().fork_own_later,
        w().fork_first_tick,
    ]
    .into_iter()
    .map(|head| view! { <th scope="col">{head}</th> })
    .collect();
    Some(
        view! {
            <section class="panel" aria-labelledby="clones-title">
                <header>
                    <h2 id="clones-title">{w().clone_words}</h2>
                </header>
                <div class="drawing" role="group" aria-labelledby="clones-title" tabindex="0">
                    <table class="plain">
                        <thead>
                            <tr>{heads}</tr>
                        </thead>
                        <tbody>{rows}</tbody>
                    </table>
                </div>
            </section>
        }
        .into_any(),
    )
}

fn identity_word(identity: Identity) -> &'static str {
    match identity {
        Identity::Hook => w().identity_hook,
        Identity::Agent => w().identity_agent,
        Identity::Replugged => w().identity_replugged,
        Identity::Unchanged => w().identity_unchanged,
    }
}

fn fork_rows(request: &InstantClone, rows: &mut Vec<(&'static str, AnyView)>) {
    let nics = match request.network_interfaces {
        Some(ForkNics::Keep) => w().fork_keep,
        Some(ForkNics::Disconnect) | None => w().fork_disconnect,
    };
    rows.push((w().fork_nics, nics.into_any()));
    rows.push((w().fork_keep_point, yes_no(request.keep_point).into_any()));
}

/// What the job makes, from what.
pub fn target(job: &Job) -> AnyView {
    let mut rows: Vec<(&'static str, AnyView)> = Vec::new();
    let vm_link =
        |id: &str, name: &str| view! { <a href=format!("/vms/{id}")>{name.to_owned()}</a> }.into_any();
    let made = |r: &&Resource| r.role == ResourceRole::Product && r.noun == Noun::Vm;
    for made in job.resources.iter().filter(made).take(8) {
        rows.push((w().makes, vm_link(&made.id, made.name.as_str())));
    }
    for role in [ResourceRole::Source, ResourceRole::Product] {
        if let Some(point) = thing(job, role, Noun::ForkPoint) {
            rows.push((w().fork_point_word, point.name.to_string().into_any()));
        }
    }
    if let Some(image) = thing(job, ResourceRole::Product, Noun::Image) {
        rows.push((w().makes, image.name.to_string().into_any()));
    }
    if let Some(export) = thing(job, ResourceRole::Product, Noun::Export) {
        let done = job.state == shared::job::JobState::Succeeded;
        let href = done.then(|| shared::api::content_path(&export.id));
        rows.push((
            w().makes,
            view! { <a href=href download="" rel="external">{w().download}</a> }.into_any(),
        ));
    }
    let snapshot = thing(job, ResourceRole::Product, Noun::Snapshot)
        .or_else(|| thing(job, ResourceRole::Source, Noun::Snapshot));
    if let Some(source) = thing(job, ResourceRole::Source, Noun::Vm) {
        let at = snapshot.map(|s| put(w().at_snapshot, &[s.name.as_str()]));
        rows.push((
            w().from,
            view! { {vm_link(&source.id, source.name.as_str())} " " <span class="soft">{at}</span> }
                .into_any(),
        ));
    } else if let Some(snapshot) = snapshot {
        rows.push((w().snapshot, snapshot.name.to_string().into_any()));
    }
    match job.spec.read() {
        Some(JobSpec::CloneVm(spec)) => clone_rows(&spec.request, &mut rows),
        Some(JobSpec::CreateVm(request)) => {
            rows.push((w().cpus, request.cpus.into_any()));
            rows.push((w().memory, format::mib(request.memory_mib.into()).into_any()));
            rows.push((w().starts, yes_no(request.start).into_any()));
        }
        Some(JobSpec::TakeSnapshot(spec)) => {
            let word = if spec.request.quiesce {
                w().quiesce_yes
            } else {
                w().quiesce_no
            };
            rows.push((w().file_systems, word.into_any()));
            rows.push((w().with_memory, yes_no(spec.request.memory).into_any()));
        }
        Some(JobSpec::InstantCloneVm(spec)) => fork_rows(&spec.request, &mut rows),
        Some(JobSpec::RevertVm(spec)) => {
            rows.push((w().with_memory, yes_no(spec.memory).into_any()));
            rows.push((w().kept_before, yes_no(spec.request.keep_current).into_any()));
        }
        Some(JobSpec::ExportDisk(spec)) => {
            rows.push((w().export_format, spec.request.format.word().into_any()))
        }
        Some(JobSpec::CopySnapshot(spec)) => {
            rows.push(copies::at_target(&spec.target_name));
            if let Some(of) = &spec.migration {
                let cycle = put(w().cycle_number, &[&of.number.to_string()]);
                rows.push(of_migration(of.migrating_vm, cycle));
            }
            rows.push((w().boot_afterwards, yes_no(spec.request.boot).into_any()));
        }
        Some(JobSpec::RestoreCopy(spec)) => {
            copies::restore_rows(&spec, &mut rows);
            if let Some(of) = &spec.migration {
                let what = match of.cutover {
                    Some(_) => w().cutover,
                    None => w().test_clones,
                };
                rows.push(of_migration(of.migrating_vm, what.to_owned()));
            }
        }
        Some(JobSpec::BootCopy(spec)) => rows.push(copies::of_copy(spec.copy, &spec.of)),
        Some(JobSpec::VerifyTarget(spec)) => {
            rows.push(copies::at_target(&spec.target_name));
            rows.push((w().verify_percent, spec.request.percent.into_any()));
        }
        Some(JobSpec::PruneTarget(spec)) => rows.push(copies::at_target(&spec.target_name)),
        Some(JobSpec::CutOver(spec)) => {
            rows.push(of_migration(spec.migrating_vm, spec.name.to_string()));
            rows.push((
                w().power_off_after,
                spec.request.power_off_after_seconds.into_any(),
            ));
        }
        Some(JobSpec::FinalizeMigration(spec)) => {
            rows.push(of_migration(spec.migrating_vm, spec.name.to_string()));
            rows.push((w().finalize_keep, yes_no(spec.request.keep_copies).into_any()));
        }
        Some(JobSpec::AdaptCopy(spec)) => {
            rows.push(of_migration(spec.migrating_vm, spec.name.to_string()));
            rows.push(copies::of_copy(spec.upload, &spec.name));
            if let Some(adapted) = job.outcome.read().and_then(|outcome| outcome.adapted) {
                rows.extend(adapted_rows(&adapted, spec.check));
            }
        }
        Some(JobSpec::CutOverGroup(spec)) => {
            let to = format!("/migration-groups/{}", spec.group);
            let link = view! { <a href=to>{spec.group.to_string()}</a> };
            rows.push((w().group, link.into_any()));
            rows.push((w().power_off_after, spec.power_off_after_seconds.into_any()));
        }
        Some(
            JobSpec::PowerVm(_)
            | JobSpec::ConnectVm(_)
            | JobSpec::DeleteVm(_)
            | JobSpec::DeleteSnapshot(_)
            | JobSpec::DeleteForkPoint(_)
            | JobSpec::EditVm(_)
            | JobSpec::ImportImage(_)
            | JobSpec::ImageOfSnapshot(_)
            | JobSpec::DeleteImage(_),
        )
        | None => {}
    }
    rows.push((
        w().id,
        view! { <code class="id">{job.id.to_string()}</code> }.into_any(),
    ));
    let title = if machine(job).is_some() {
        w().target
    } else {
        w().job
    };
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(term, value)| {
            view! {
                <dt>{term}</dt>
                <dd>{value}</dd>
            }
        })
        .collect();
    view! {
        <section class="panel" aria-labelledby="target-title">
            <header>
                <h2 id="target-title">{title}</h2>
            </header>
            <div class="in">
                <dl class="facts">{rows}</dl>
            </div>
        </section>
    }
    .into_any()
}

/// The migration of a job.
fn of_migration(id: MigratingVmId, text: String) -> (&'static str, AnyView) {
    let link = view! { <a href=format!("/migrations/{id}")>{text}</a> };
    (w().migration, link.into_any())
}

fn clone_rows(request: &CloneVm, rows: &mut Vec<(&'static str, AnyView)>) {
    let mode = match request.mode {
        CloneMode::Linked => w().mode_linked,
        CloneMode::Full => w().mode_full,
    };
    rows.push((w().mode, mode.into_any()));
    let Some(target) = &request.target else {
        rows.push((w().starts, w().disks_only.into_any()));
        return;
    };
    if let Some(cpus) = target.cpus {
        rows.push((w().cpus, cpus.into_any()));
    }
    if let Some(memory) = target.memory_mib {
        rows.push((w().memory, format::mib(memory.into()).into_any()));
    }
    let network = match target.network_interfaces.as_deref() {
        None => w().net_isolated.to_owned(),
        Some([]) => w().net_none.to_owned(),
        Some(nics) => nics
            .iter()
            .map(|n| n.network.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    };
    rows.push((w().network, network.into_any()));
    let adapted = if target.cloud_init.is_some() {
        w().adapted_yes
    } else {
        w().adapted_no
    };
    rows.push((w().identity, adapted.into_any()));
    let start = if target.start {
        put(
            w().start_within,
            &[&format::elapsed(
                i64::from(target.boot_timeout_seconds) * 1_000_000,
            )],
        )
    } else {
        w().no.to_owned()
    };
    rows.push((w().starts, start.into_any()));
}

pub(super) fn yes_no(yes: bool) -> &'static str {
    if yes { w().yes } else { w().no }
}

/// What OS adaptation found and did.
fn adapted_rows(adapted: &Adapted, check: bool) -> Vec<(&'static str, AnyView)> {
    let mut rows = Vec::new();
    if let Some(os) = &adapted.os {
        rows.push((w().adapt_os, os.product.clone().into_any()));
    }
    if let Some(licence) = &adapted.applied_license {
        let text = match licence.kind {
            LicenceType::None => w().licence_none.to_owned(),
            LicenceType::Unknown => licence.os_license.clone(),
            LicenceType::Byol => put(w().licence_byol, &[&licence.os_license]),
        };
        rows.push((w().adapt_licence, text.into_any()));
    }
    let list = |lines: &[String]| {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| view! { <li>{line.clone()}</li> })
            .collect();
        view! { <ul class="plain">{lines}</ul> }.into_any()
    };
    if !adapted.done.is_empty() {
        let title = if check {
            w().adapt_would_change
        } else {
            w().adapt_changes
        };
        rows.push((title, list(&adapted.done)));
    }
    if !adapted.warnings.is_empty() {
        rows.push((w().adapt_warnings, list(&adapted.warnings)));
    }
    rows
}
