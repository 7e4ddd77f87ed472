//! Copies in words: whether they were seen to boot, what is wrong with them, how a task that makes one is.

use super::state::{Tone, pill};
use super::time::ago;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::clone::ProofStrength;
use shared::copy::{Booted, Copy, TaskStatus};

/// How a boot has ended: its tone and its words.
fn boot_tone(booted: &Booted) -> (Tone, String) {
    match (booted.booted, booted.proof.boot_millis, booted.proof.strength) {
        (true, Some(millis), _) => {
            let took = format::duration(millis as i64 * 1000);
            (Tone::Good, put(w().copy_booted_in, &[&took]))
        }
        (true, None, _) => (Tone::Good, w().copy_booted.to_owned()),
        (false, _, ProofStrength::Displayed) => (Tone::Warn, w().proof_displayed.to_owned()),
        (false, ..) => (Tone::Bad, w().copy_boots_not.to_owned()),
    }
}

/// The tone of a copy as a whole: damage weighs more than a boot before it.
pub fn tone(copy: &Copy) -> Tone {
    match &copy.booted {
        _ if !copy.damage.is_empty() => Tone::Bad,
        Some(booted) => boot_tone(booted).0,
        None => Tone::Still,
    }
}

/// Whether a copy was seen to boot, and when.
pub fn boot_sign(copy: &Copy) -> AnyView {
    let Some(booted) = &copy.booted else {
        return pill(Tone::Still, w().copy_not_booted);
    };
    let (tone, word) = boot_tone(booted);
    view! { {pill(tone, word)} " " <span class="soft">{ago(booted.time)}</span> }.into_any()
}

/// What else a person must know of a copy.
pub fn marks(copy: &Copy) -> AnyView {
    let damaged = (!copy.damage.is_empty()).then(|| view! { " " {pill(Tone::Bad, w().copy_damaged)} });
    let held = copy
        .legal_hold
        .then(|| view! { " " <span class="tag">{w().legal_hold}</span> });
    let memory = copy
        .memory
        .then(|| view! { " " <span class="tag">{w().with_memory}</span> });
    view! { {damaged} {held} {memory} }.into_any()
}

/// What a guest sees of all its disks, in bytes.
pub fn size(copy: &Copy) -> u64 {
    copy.disks.iter().filter(|d| d.slot > 0).map(|d| d.bytes).sum()
}

/// How a task is.
pub fn task_tone(status: TaskStatus) -> (Tone, &'static str) {
    match status {
        TaskStatus::Accepted => (Tone::Still, w().queued),
        TaskStatus::Running => (Tone::Busy, w().job_running),
        TaskStatus::Canceling => (Tone::Busy, w().unwinding),
        TaskStatus::Canceled => (Tone::Still, w().cancelled),
        TaskStatus::Success => (Tone::Good, w().succeeded),
        TaskStatus::Failure => (Tone::Bad, w().failed),
        TaskStatus::Warning => (Tone::Warn, w().task_warning),
        TaskStatus::OnHold => (Tone::Warn, w().on_hold),
        TaskStatus::Missed => (Tone::Warn, w().task_missed),
        TaskStatus::Finalizing => (Tone::Busy, w().task_finalizing),
    }
}

/// Ways to do something in a dialog: a link for each, which the page follows without going anywhere.
pub fn ways(of: &'static str, here: &str, dialog: &str, ways: &[(&str, &'static str)], now: &str) -> AnyView {
    let links: Vec<_> = ways
        .iter()
        .map(|(way, label)| {
            let current = (*way == now).then_some("true");
            let href = format!("{here}?do={dialog}&way={way}");
            view! {
                <a class="button" href=href aria-current=current data-noscroll="">
                    {*label}
                </a>
            }
        })
        .collect();
    view! {
        <div class="choices" role="group" aria-label=of>
            {links}
        </div>
    }
    .into_any()
}

/// What stands in the address after the dialog: the first way if it says none.
pub fn way(first: &'static str) -> Memo<String> {
    let query = leptos_router::hooks::use_location().query;
    Memo::new(move |_| {
        query.with(|q| match q.get_str("way") {
            Some(way) if !way.is_empty() => way.to_owned(),
            _ => first.to_owned(),
        })
    })
}

/// A list of what is so and so.
pub fn facts(rows: Vec<(&'static str, AnyView)>) -> AnyView {
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(term, value)| {
            view! {
                <dt>{term}</dt>
                <dd>{value}</dd>
            }
        })
        .collect();
    view! { <dl class="facts">{rows}</dl> }.into_any()
}
