//! What is known of a job that makes a copy, brings one back, or looks at what a target has.

use super::figures::{figure, yes_no};
use crate::components::button::{self, Button};
use crate::components::copies::{facts, task_tone};
use crate::components::job::{machine, meter};
use crate::components::state::{Tone, pill};
use crate::env::may;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;
use shared::can;
use shared::copy::{CopyProgress, RestoreSpec, SubTask};
use shared::job::{Job, JobKind, JobState};
use shared::target::{Damage, VaultOutcome};
use shared::{CopyId, Name};

/// Bytes as a figure.
fn bytes(n: u64, label: &'static str) -> AnyView {
    let text = format::bytes(n);
    let (n, unit) = text.split_once(' ').unwrap_or((&text, ""));
    figure(
        n.to_owned().into_any(),
        unit.to_owned().into_any(),
        label.to_owned(),
    )
}

/// How far it is and how fast; when it is over, what it cost and spared.
pub fn figures(copy: &CopyProgress, over: bool) -> Vec<AnyView> {
    let moved = copy.figures;
    if over {
        return vec![
            bytes(moved.logical_bytes, w().fig_logical),
            bytes(moved.stored_bytes, w().fig_stored),
            bytes(moved.saved_by_dedupe(), w().saved_by_dedupe),
        ];
    }
    let (part, whole) = format::bytes_of(moved.done_bytes, moved.logical_bytes);
    let whole = put(w().of_whole, &[&whole]);
    let mut all = vec![figure(
        part.into_any(),
        whole.into_any(),
        w().fig_gone_through.to_owned(),
    )];
    if let Some(rate) = copy.recent_bps {
        let (n, unit) = format::rate(rate as f64);
        all.push(figure(
            n.into_any(),
            unit.into_any(),
            w().fig_rate_lately.to_owned(),
        ));
    }
    all.push(bytes(moved.stored_bytes, w().fig_stored));
    all
}

/// Has a copy stand still, or go on.
pub fn hold(job: &Job) -> Option<AnyView> {
    if job.kind != JobKind::CopySnapshot || job.state.is_final() {
        return None;
    }
    let (action, label, verdict) = if job.state == JobState::OnHold {
        ("release", w().release_task, can::can_release(job))
    } else {
        ("hold", w().hold_task, can::can_hold(job))
    };
    let vm = machine(job).and_then(|vm| vm.id.parse().ok());
    let button = Button {
        to: format!("/do/copyTasks/{}/{action}", job.id),
        label,
        back: format!("/jobs/{}", job.id),
        ..Button::default()
    };
    Some(button::post(button, &may(Privilege::CopyCreate, vm).and(verdict)))
}

/// What is known of a copy, or of what a target has; nothing for any other job.
pub fn shown(job: &Job) -> Option<AnyView> {
    let outcome = job.outcome.read()?;
    if let Some(copy) = &outcome.copy {
        return Some(copied(copy, job.state == JobState::Succeeded));
    }
    let vault = outcome.vault.as_ref()?;
    Some(match job.kind {
        JobKind::VerifyTarget => looked(vault),
        _ => freed(vault),
    })
}

fn panel(title: &'static str, mark: Option<AnyView>, inside: AnyView) -> AnyView {
    view! {
        <section class="panel" aria-label=title>
            <header>
                <h2>{title}</h2>
                {mark}
            </header>
            {inside}
        </section>
    }
    .into_any()
}

fn copied(copy: &CopyProgress, there: bool) -> AnyView {
    let moved = copy.figures;
    let link =
        there.then(|| view! { <a href=format!("/copies/{}", copy.copy)>{w().see_copy}</a> }.into_any());
    let disks: Vec<_> = copy.disks.iter().map(disk).collect();
    let warnings: Vec<_> = copy
        .warnings
        .iter()
        .map(|line| view! { <div class="alert warn">{line.clone()}</div> })
        .collect();
    let how = if copy.parent.is_some() {
        w().copy_incremental
    } else {
        w().copy_full
    };
    let size = |n: u64| format::bytes(n).into_any();
    let rows = vec![
        (w().copy_how, how.into_any()),
        (w().copy_read, size(moved.read_bytes)),
        (w().copy_stored, size(moved.stored_bytes)),
        (w().copy_wire, size(copy.wire_bytes)),
        (w().saved_by_dedupe, size(moved.saved_by_dedupe())),
        (w().saved_by_compression, size(moved.saved_by_compression())),
    ];
    let inside = view! {
        <div class="in">{warnings} {facts(rows)}</div>
        <ul class="short">{disks}</ul>
    };
    panel(w().copy_word, link, inside.into_any())
}

fn disk(disk: &SubTask) -> AnyView {
    let (tone, word) = task_tone(disk.status);
    view! {
        <li>
            <span class="what mono">{disk.name.clone()}</span>
            {pill(tone, word)}
            {meter(disk.done_bytes, disk.bytes, disk.name.clone())}
        </li>
    }
    .into_any()
}

/// What a look at a target has found.
fn looked(vault: &VaultOutcome) -> AnyView {
    let read = put(
        w().looked_at,
        &[&format::count(vault.packs), &format::bytes(vault.read_bytes)],
    );
    let mark = if vault.damaged == 0 {
        pill(Tone::Good, w().verified_whole)
    } else {
        let (objects, copies) = (format::count(vault.damaged), format::count(vault.hurt_copies));
        pill(Tone::Bad, put(w().verified_damaged, &[&objects, &copies]))
    };
    let rows: Vec<_> = vault.damage.iter().map(damage).collect();
    let more = vault.damaged.saturating_sub(vault.damage.len() as u64);
    let more =
        (more > 0).then(|| view! { <p class="none">{put(w().more_damage, &[&format::count(more)])}</p> });
    let healed = (vault.healed > 0)
        .then(|| view! { <p class="none">{put(w().healed, &[&format::count(vault.healed)])}</p> });
    let inside = view! {
        <div class="in soft">{read}</div>
        <ul class="short">{rows}</ul>
        {more}
        {healed}
    };
    panel(w().verified, Some(mark), inside.into_any())
}

fn damage(damage: &Damage) -> AnyView {
    let copies: Vec<_> = damage
        .copies
        .iter()
        .map(|id| {
            let id = id.to_string();
            let short = id.get(..8).unwrap_or(&id).to_owned();
            view! { " " <a href=format!("/copies/{id}")>{short}</a> }
        })
        .collect();
    let hurts = (!copies.is_empty()).then(|| view! { <span class="sub">{w().hurts} {copies}</span> });
    view! {
        <li>
            <span class="what">
                <code>{damage.object.clone()}</code>
                <span class="sub">{damage.why.clone()}</span>
                {hurts}
            </span>
        </li>
    }
    .into_any()
}

/// What a clean-up has taken out.
fn freed(vault: &VaultOutcome) -> AnyView {
    let rows = vec![
        (w().freed, format::bytes(vault.freed_bytes).into_any()),
        (w().marked_packs, format::count(vault.marked_packs).into_any()),
    ];
    let inside = view! { <div class="in">{facts(rows)}</div> };
    panel(w().cleaned_up, None, inside.into_any())
}

/// The target of a job.
pub fn at_target(name: &Name) -> (&'static str, AnyView) {
    let name = name.to_string();
    let link = view! { <a href=format!("/targets/{name}")>{name.clone()}</a> };
    (w().copy_target, link.into_any())
}

/// The copy of a job.
pub fn of_copy(copy: CopyId, of: &Name) -> (&'static str, AnyView) {
    let text = put(w().copy_of, &[of.as_str()]);
    let link = view! { <a href=format!("/copies/{copy}")>{text}</a> };
    (w().copy_word, link.into_any())
}

/// What a restore was asked.
pub fn restore_rows(spec: &RestoreSpec, rows: &mut Vec<(&'static str, AnyView)>) {
    rows.push(of_copy(spec.copy, &spec.of));
    let asked = &spec.request;
    let mut to = |way: &'static str, what: String| {
        rows.push((w().restore_way, view! { {way} " " <b>{what}</b> }.into_any()));
    };
    let mut starts = None;
    if let Some(vm) = &asked.vm {
        to(w().restore_new, vm.name.to_string());
        starts = Some((vm.start, vm.instant));
    }
    if let Some(over) = &asked.over {
        to(w().restore_over, over.vm.clone());
        starts = Some((over.start, over.instant));
    }
    if let Some(disks) = &asked.disks {
        to(w().restore_disks, disks.vm.clone());
    }
    if let Some(file) = &asked.file {
        to(w().restore_file, file.format.word().to_owned());
    }
    if let Some((start, instant)) = starts {
        let word = if instant { w().start_instant } else { yes_no(start) };
        rows.push((w().starts, word.into_any()));
    }
}
