//! The copies of a machine: those that are being made, and a timeline of those that are there, for each target.

use super::data::{Copies, Data};
#[cfg(feature = "hydrate")]
use super::data::{copies, each_seen, read_copies};
#[cfg(feature = "hydrate")]
use crate::backend::Way;
use crate::components::button::{self, Button};
use crate::components::copies::{boot_sign, marks, task_tone, tone};
use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::components::job::meter;
use crate::components::list::throttled;
use crate::components::state::{pill, shape};
use crate::components::time::ago;
use crate::env::may;
use crate::feed::on_change;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;
use shared::can::{self, Verdict};
use shared::copy::{Copy, CopyTask, TaskStatus};
use shared::feed::Noun;
use shared::snapshot::SnapshotState;
use shared::vm::Vm;
use shared::{Status, Timestamp};
use std::collections::BTreeMap;

/// How many of a target are drawn; the rest are on the page of all copies.
const DRAWN: usize = 12;

/// Keeps them fresh when the feed tells of a copy or of a target; tasks come with the feed itself.
#[cfg_attr(not(feature = "hydrate"), allow(unused_variables))]
pub fn follow(data: RwSignal<Data>) {
    let looks = RwSignal::new(0_u32);
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if matches!(change.noun(), Noun::Copy | Noun::Target) {
            look();
        }
    });
    #[cfg(feature = "hydrate")]
    Effect::new(move |before: Option<()>| {
        looks.track();
        if before.is_some() {
            fetch(data);
        }
    });
}

#[cfg(feature = "hydrate")]
fn fetch(data: RwSignal<Data>) {
    let way = Way::here();
    let calls = copies(data.with_untracked(|d| d.vm.id));
    let calls = calls.into_iter().map(|call| way.send(call)).collect();
    wasm_bindgen_futures::spawn_local(async move {
        // What was good stays while the server is away.
        let Ok(bodies) = each_seen(calls).await else {
            return;
        };
        let Ok(Some(new)) = read_copies(&bodies, 0) else {
            return;
        };
        data.try_update(|d| match &mut d.copies {
            Some(copies) => copies.merge(new),
            none => *none = Some(new),
        });
    });
}

/// Whether the person may copy a machine.
pub fn may_copy(vm: &Vm) -> Verdict {
    may(Privilege::CopyCreate, Some(vm.id))
}

pub fn section(data: RwSignal<Data>) -> AnyView {
    let copies = Memo::new(move |_| data.with(|d| d.copies.clone()));
    let name = data.with_untracked(|d| d.vm.name.to_string());
    let begin = move || {
        data.with(|d| {
            let button = Button {
                to: format!("/vms/{}?do=copy", d.vm.name),
                label: w().copy_now_dots,
                class: "quiet",
                ..Button::default()
            };
            button::link(button, &may_copy(&d.vm))
        })
    };
    let shown = move || match copies.get() {
        None => {
            let why = put(w().lacks, &[Privilege::CopyRead.word()]);
            view! { <p class="none">{why}</p> }.into_any()
        }
        Some(copies) => drawn(&copies, &name),
    };
    view! {
        <section class="panel" aria-labelledby="copies-title">
            <header>
                <h2 id="copies-title">{w().copies}</h2>
                {begin}
            </header>
            {shown}
        </section>
    }
    .into_any()
}

fn drawn(copies: &Copies, vm: &str) -> AnyView {
    let at_work: Vec<_> = copies
        .tasks
        .iter()
        .filter(|t| !t.status.is_over())
        .map(|task| at_work(task, vm))
        .collect();
    let at_work = (!at_work.is_empty())
        .then(|| view! { <ul class="short" aria-label=w().copies_at_work>{at_work}</ul> });
    // What ended without a copy stands among the copies.
    let mut lines: BTreeMap<&str, Vec<(Timestamp, Point<'_>)>> = BTreeMap::new();
    for copy in &copies.all {
        let point = (copy.snapshot_time, Point::Copy(copy));
        lines.entry(copy.target_name.as_str()).or_default().push(point);
    }
    let came_to_nothing = |t: &&CopyTask| {
        matches!(
            t.status,
            TaskStatus::Failure | TaskStatus::Missed | TaskStatus::Canceled
        )
    };
    for task in copies.tasks.iter().filter(came_to_nothing) {
        let point = (task.create_time, Point::Task(task));
        lines.entry(task.target_name.as_str()).or_default().push(point);
    }
    let none =
        (lines.is_empty() && at_work.is_none()).then(|| view! { <p class="none">{w().no_copies_of}</p> });
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(target, points)| timeline(vm, target, points))
        .collect();
    view! { {at_work} {lines} {none} }.into_any()
}

/// Something on a timeline.
enum Point<'a> {
    Copy(&'a Copy),
    Task(&'a CopyTask),
}

/// The copies at a target, the newest first.
fn timeline(vm: &str, target: &str, mut points: Vec<(Timestamp, Point<'_>)>) -> AnyView {
    points.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let all = points.len();
    let rows: Vec<_> = points
        .iter()
        .take(DRAWN)
        .map(|(time, point)| match point {
            Point::Copy(copy) => copied(copy, *time),
            Point::Task(task) => failed(task, *time),
        })
        .collect();
    let id = format!("copies-at-{target}");
    let more = (all > DRAWN).then(|| {
        let text = put(w().older_copies, &[&format::count((all - DRAWN) as u64)]);
        view! { <p class="none"><a href=format!("/copies?q={vm}&target={target}")>{text}</a></p> }
    });
    view! {
        <div class="line-of">
            <h3 id=id.clone()>
                <a href=format!("/targets/{target}")>{target.to_owned()}</a>
            </h3>
            <ol class="timeline" aria-labelledby=id>
                {rows}
            </ol>
            {more}
        </div>
    }
    .into_any()
}

fn copied(copy: &Copy, time: Timestamp) -> AnyView {
    let tone = tone(copy);
    let stored = put(w().stored_there, &[&format::bytes(copy.figures.stored_bytes)]);
    view! {
        <li>
            <span class=tone.ink()>{shape(tone)}</span>
            <span class="what">
                <a href=format!("/copies/{}", copy.id)>{ago(time)}</a>
                <span class="sub">{copy.snapshot_name.to_string()} " · " {stored} {marks(copy)}</span>
            </span>
            <span class="sign">{boot_sign(copy)}</span>
        </li>
    }
    .into_any()
}

/// A task that came to nothing.
fn failed(task: &CopyTask, time: Timestamp) -> AnyView {
    let (tone, word) = task_tone(task.status);
    view! {
        <li>
            <span class=tone.ink()>{shape(tone)}</span>
            <span class="what">
                <a href=format!("/jobs/{}", task.id)>{ago(time)}</a>
                <span class="sub">{task.error.clone()}</span>
            </span>
            <span class="sign">{pill(tone, word)}</span>
        </li>
    }
    .into_any()
}

/// A task that copies, with its figures.
fn at_work(task: &CopyTask, vm: &str) -> AnyView {
    let (tone, word) = task_tone(task.status);
    let held = task.status == TaskStatus::OnHold;
    let may_hold = may(Privilege::CopyCreate, Some(task.vm)).and_then(|()| match task.status {
        TaskStatus::Canceling => Err(Status::precondition(w().being_undone)),
        _ => Ok(()),
    });
    let (action, label) = if held {
        ("release", w().release_task)
    } else {
        ("hold", w().hold_task)
    };
    let hold = Button {
        to: format!("/do/copyTasks/{}/{action}", task.id),
        label,
        class: "quiet",
        back: format!("/vms/{vm}"),
        of: task.target_name.to_string(),
        ..Button::default()
    };
    let stop = Button {
        to: format!("/jobs/{}?do=cancel", task.id),
        label: w().cancel_dots,
        class: "quiet",
        ..Button::default()
    };
    let may_cancel = may(Privilege::JobUpdate, Some(task.vm));
    let warnings: Vec<_> = task
        .warnings
        .iter()
        .chain(&task.hold_reason)
        .map(|line| view! { <span class="sub">{line.clone()}</span> })
        .collect();
    let title = put(w().copy_to, &[task.target_name.as_str()]);
    view! {
        <li>
            <span class="what">
                <a href=format!("/jobs/{}", task.id)>{title}</a>
                " " {pill(tone, word)}
                <span class="sub">{task.snapshot_name.as_ref().map(ToString::to_string)}</span>
                {warnings}
            </span>
            {button::post(hold, &may_hold)}
            {button::link(stop, &may_cancel)}
            {progress(task)}
        </li>
    }
    .into_any()
}

/// How far it is, how fast, and what it spared.
fn progress(task: &CopyTask) -> Option<AnyView> {
    let stats = &task.stats;
    let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    let (done, total) = (
        bytes(stats.seed.logical_bytes_transferred)?,
        bytes(stats.seed.logical_size_bytes)?,
    );
    let mut parts = Vec::new();
    if let Some(rate) = stats.recent_rate_bps {
        let (n, unit) = format::rate(rate as f64);
        parts.push(put(w().rate_lately, &[&n, unit]));
    }
    for (bytes, sentence) in [
        (Some(stats.stored_bytes), w().stored_there),
        (
            Some(stats.saved_by_dedupe_bytes).filter(|n| *n > 0),
            w().spared_by_dedupe,
        ),
        (
            Some(stats.saved_by_compression_bytes).filter(|n| *n > 0),
            w().spared_by_compression,
        ),
    ] {
        parts.extend(bytes.map(|n| put(sentence, &[&format::bytes(n)])));
    }
    let label = put(w().copy_to, &[task.target_name.as_str()]);
    Some(
        view! {
            {meter(done, total, label)}
            <span class="sub whole">{parts.join(" · ")}</span>
        }
        .into_any(),
    )
}

/// Asks for a copy.
pub fn copy_now(data: RwSignal<Data>) -> AnyView {
    let name = data.with_untracked(|d| d.vm.name.to_string());
    let title = put(w().copy_now_title, &[&name]);
    dialog("copy", title, move || {
        let action = format!("/do/vms/{name}/copy");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let ready = |d: &Data| {
            let all = d.snapshots.iter().filter(|s| s.state == SnapshotState::Ready);
            all.rev()
                .map(|s| (s.name.to_string(), s.name.to_string()))
                .collect::<Vec<_>>()
        };
        let mut of = data.with_untracked(ready);
        let old = !of.is_empty();
        of.insert(0, (String::new(), w().copy_of_now.to_owned()));
        let runs = data.with_untracked(|d| can::can_snapshot_memory(&d.vm).is_ok());
        let with = runs.then(|| {
            view! {
                <fieldset>
                    <legend>{w().copy_taken_with}</legend>
                    {fields.radio("with", "quiesce", w().quiesce, w().quiesce_hint, true)}
                    {fields.radio("with", "memory", w().snapshot_memory, w().snapshot_memory_hint, false)}
                    {fields.radio("with", "", w().quiesce_no, "", false)}
                </fieldset>
            }
        });
        let verdict = move || {
            data.with(|d| {
                may_copy(&d.vm)?;
                let targets = d.copies.as_ref().and_then(|c| c.targets.as_ref());
                if targets.is_some_and(Vec::is_empty) {
                    return Err(Status::precondition(w().no_target_yet));
                }
                // One of its snapshots can be copied where none can be taken.
                can::can_copy(&d.vm, None, false).or_else(|why| if old { Ok(()) } else { Err(why) })
            })
        };
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=copy"))}
                {data.with_untracked(|d| target(&fields, d.copies.as_ref()))}
                {fields.choice("snapshot", w().copy_what, w().copy_what_hint.to_owned(), of, "")}
                {with}
                {fields.tick("boot", w().boot_afterwards.to_owned(), w().boot_afterwards_hint, false)}
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("go", w().copy_do, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

/// Where to: a choice where the person may see what there is.
fn target(fields: &Fields, copies: Option<&Copies>) -> AnyView {
    match copies.and_then(|c| c.targets.as_ref()) {
        Some(targets) => {
            let first = targets.iter().find(|(_, away)| away.is_none());
            let first = first.map(|(name, _)| name.clone()).unwrap_or_default();
            let word = |(name, away): &(String, Option<String>)| {
                let word = match away {
                    Some(_) => format!("{name} · {}", w().out_of_reach),
                    None => name.clone(),
                };
                (name.clone(), word)
            };
            let all = targets.iter().map(word).collect();
            fields.choice("target", w().copy_target, String::new(), all, &first)
        }
        None => fields.line(Line {
            name: "target",
            label: w().copy_target,
            required: true,
            ..Line::default()
        }),
    }
}
