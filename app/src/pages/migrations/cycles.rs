//! The cycles of a migration: the one at work, all of them drawn, and as a table.

use crate::components::error;
use crate::components::job::meter;
use crate::components::state::{Tone, pill};
use crate::components::time::{ago, took};
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::migrate::views::{CycleStepName, ReplicationCycle};
use shared::migrate::{CycleState, MigratingVm};

/// How many are drawn and listed.
pub const LISTED: u32 = 40;

/// The height of the drawing, how wide a cycle's place in it is, and for how many there is always room.
const HEIGHT: u64 = 100;
const SLOT: usize = 12;
const SLOTS: usize = 24;
/// The width of a bar.
const BAR: usize = 4;

pub fn section(vm: Memo<MigratingVm>, cycles: Memo<Vec<ReplicationCycle>>) -> AnyView {
    let shown = move || {
        cycles.with(|all| {
            if all.is_empty() {
                return view! { <p class="none">{w().no_cycles}</p> }.into_any();
            }
            view! { {at_work(all)} {chart(all)} {table(all)} }.into_any()
        })
    };
    let older = move || {
        let older = vm
            .with(|v| v.cycles)
            .saturating_sub(cycles.with(|all| all.len() as u64));
        (older > 0).then(|| {
            let text = put(w().older_copies, &[&format::count(older)]);
            view! { <p class="none">{text}</p> }
        })
    };
    view! {
        <section class="panel list" aria-labelledby="cycles-title">
            <header>
                <h2 id="cycles-title">{w().cycles}</h2>
            </header>
            {shown}
            {older}
        </section>
    }
    .into_any()
}

/// The cycle at work: what it is at, how far, how fast, and what holds it up.
fn at_work(all: &[ReplicationCycle]) -> Option<AnyView> {
    let over = |c: &&ReplicationCycle| matches!(c.state, CycleState::Running | CycleState::Paused);
    let cycle = all.iter().find(over)?;
    let (tone, word) = match cycle.steps.last() {
        _ if cycle.state == CycleState::Paused => (Tone::Warn, w().on_hold),
        None => (Tone::Still, w().queued),
        Some(step) => (Tone::Busy, step_word(step.name)),
    };
    let label = put(w().cycle_number, &[&cycle.number.to_string()]);
    let link = view! { <a href=format!("/jobs/{}", cycle.id)>{label.clone()}</a> };
    let meter = (cycle.total_bytes > 0).then(|| meter(cycle.replicated_bytes, cycle.total_bytes, label));
    let rate = cycle.last_two_minutes_average_bytes_per_second.map(|rate| {
        let (n, unit) = format::rate(rate as f64);
        put(w().rate_lately, &[&n, unit])
    });
    let lines: Vec<_> = rate
        .into_iter()
        .chain(cycle.hold_reason.clone())
        .chain(cycle.warnings.iter().cloned())
        .map(|line| view! { <span class="sub">{line}</span> })
        .collect();
    Some(
        view! {
            <div class="in">
                <div>{link} " " {pill(tone, word)} " " {meter} {lines}</div>
            </div>
        }
        .into_any(),
    )
}

fn step_word(step: CycleStepName) -> &'static str {
    match step {
        CycleStepName::InitializingReplication => w().step_taking_snapshot,
        CycleStepName::Replicating => w().board_uploading,
        CycleStepName::PostProcessing => w().task_finalizing,
    }
}

/// What the height stands for: the largest cycle but for the first, beside which all others would be nothing.
fn scale(all: &[ReplicationCycle]) -> u64 {
    let size = |c: &ReplicationCycle| c.changed_bytes.max(c.stored_bytes);
    let later = all.iter().filter(|c| c.number > 1).map(size).max();
    let largest = later.filter(|n| *n > 0).or_else(|| all.iter().map(size).max());
    largest.unwrap_or(0).max(1)
}

/// All of them, the newest on the right. The table has the same in words.
fn chart(all: &[ReplicationCycle]) -> AnyView {
    let (top, slots) = (scale(all), all.len().max(SLOTS));
    let bars: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(back, cycle)| bars(cycle, (slots - 1 - back) * SLOT, top))
        .collect();
    view! {
        <div class="in cycles">
            <svg
                viewBox=format!("0 0 {} {HEIGHT}", slots * SLOT)
                preserveAspectRatio="none"
                role="img"
                aria-label=w().cycles_chart
            >
                {bars}
            </svg>
            <p class="soft key">
                <span class="changed">{w().cycle_changed}</span>
                <span class="stored">{w().copy_stored}</span>
                <span>{put(w().cycles_scale, &[&format::bytes(top)])}</span>
            </p>
        </div>
    }
    .into_any()
}

/// How high the bar of so many bytes is: what there is shows, and what is larger than the scale is as high as can be.
fn height(bytes: u64, top: u64) -> u64 {
    let tall = u128::from(bytes) * u128::from(HEIGHT) / u128::from(top.max(1));
    let tall = tall.min(u128::from(HEIGHT)) as u64;
    if bytes > 0 { tall.max(1) } else { 0 }
}

fn bars(cycle: &ReplicationCycle, x: usize, top: u64) -> AnyView {
    let bar = |class: &'static str, x: usize, bytes: u64| {
        let tall = height(bytes, top);
        let y = HEIGHT - tall;
        // What is cut off says so.
        let cut = (bytes > top).then(|| view! { <rect class="cut" x=x y="6" width=BAR height="3"></rect> });
        view! {
            <rect class=class x=x y=y width=BAR height=tall></rect>
            {cut}
        }
    };
    let title = format!(
        "{}: {} {}, {} {}",
        put(w().cycle_number, &[&cycle.number.to_string()]),
        w().cycle_changed,
        format::bytes(cycle.changed_bytes),
        w().copy_stored,
        format::bytes(cycle.stored_bytes),
    );
    let class = match cycle.state {
        CycleState::Failed => "failed",
        _ => "",
    };
    // Below a `<g>`, `<title>` is that of SVG.
    view! {
        <g class=class>
            <title>{title}</title>
            {bar("changed", x + 1, cycle.changed_bytes)}
            {bar("stored", x + 1 + BAR, cycle.stored_bytes)}
        </g>
    }
    .into_any()
}

fn table(all: &[ReplicationCycle]) -> AnyView {
    let rows: Vec<_> = all.iter().map(row).collect();
    view! {
        <table>
            <thead>
                <tr>
                    <th scope="col">{w().cycles}</th>
                    <th scope="col">{w().state}</th>
                    <th scope="col">{w().took}</th>
                    <th scope="col" class="num">{w().cycle_changed}</th>
                    <th scope="col" class="num">{w().copy_stored}</th>
                    <th scope="col" class="num">{w().cycle_rate}</th>
                </tr>
            </thead>
            <tbody>{rows}</tbody>
        </table>
    }
    .into_any()
}

fn row(cycle: &ReplicationCycle) -> AnyView {
    let (tone, word) = match cycle.state {
        CycleState::Running => (Tone::Busy, w().job_running),
        CycleState::Paused => (Tone::Warn, w().on_hold),
        CycleState::Failed => (Tone::Bad, w().failed),
        CycleState::Succeeded => (Tone::Good, w().succeeded),
    };
    let began = cycle.steps.first().map(|step| step.start_time);
    let why = cycle.error.as_ref().map(|why| {
        let text = error::sentence(error::said(why));
        view! { <span class="sub">{text}</span> }
    });
    view! {
        <tr>
            <td class="head wrap">
                <a href=format!("/jobs/{}", cycle.id)>{put(w().cycle_number, &[&cycle.number.to_string()])}</a>
                <small class="soft">{ago(cycle.create_time)}</small>
            </td>
            <td data-label=w().state>{pill(tone, word)} {why}</td>
            <td class="soft" data-label=w().took>
                {took(began, cycle.end_time)}
            </td>
            <td class="num" data-label=w().cycle_changed>
                {format::bytes(cycle.changed_bytes)}
            </td>
            <td class="num" data-label=w().copy_stored>
                {format::bytes(cycle.stored_bytes)}
            </td>
            <td class="num" data-label=w().cycle_rate>
                {rate(cycle)}
            </td>
        </tr>
    }
    .into_any()
}

/// How fast what had changed was uploaded.
fn rate(cycle: &ReplicationCycle) -> Option<String> {
    let step = cycle
        .steps
        .iter()
        .find(|step| step.name == CycleStepName::Replicating)?;
    let micros = step.end_time?.since(step.start_time);
    if micros <= 0 || cycle.changed_bytes == 0 {
        return None;
    }
    let (n, unit) = format::rate(cycle.changed_bytes as f64 / (micros as f64 / 1e6));
    Some(format!("{n} {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_what_there_is_and_never_grows_out_of_the_drawing() {
        assert_eq!(height(0, 100), 0);
        assert_eq!(height(1, u64::MAX), 1);
        assert_eq!(height(50, 100), 50);
        assert_eq!(height(u64::MAX, 1), HEIGHT);
        assert_eq!(height(5, 0), HEIGHT);
    }
}
