//! The snapshots of a machine as a tree, with NOW where its disks stand.

use super::button::{self, Button};
use super::state::{Tone, shape};
use super::time::ago;
use crate::env::may;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;
use shared::can::{self, Verdict};
use shared::snapshot::{Consistency, Snapshot, SnapshotState, tree};
use shared::vm::Vm;

/// What a snapshot guarantees: a word, and what it means.
pub fn consistency(c: Consistency) -> (&'static str, &'static str) {
    match c {
        Consistency::Offline => (w().cons_offline, w().cons_offline_why),
        Consistency::Online => (w().cons_online, w().cons_online_why),
        Consistency::GuestAgent => (w().cons_agent, w().cons_agent_why),
        Consistency::NoGuestAgent => (w().cons_no_agent, w().cons_no_agent_why),
        Consistency::QuiesceFailed => (w().cons_failed, w().cons_failed_why),
    }
}

/// The tree; `changed` is how many bytes were written since the last snapshot, where that is known.
pub fn snapshots(vm: &Vm, all: &[Snapshot], changed: Option<u64>) -> AnyView {
    let rows: Vec<_> = tree(all)
        .into_iter()
        .map(|row| {
            // The style sheet knows eight levels; branches in more stand at the eighth.
            let level = row.level.min(8).to_string();
            match row.snapshot {
                Some(snapshot) => taken(vm, snapshot, level, row.branch),
                None => now(changed, level, row.branch),
            }
        })
        .collect();
    view! {
        <ul class="tree" aria-label=w().snapshots>
            {rows}
        </ul>
    }
    .into_any()
}

/// What can be done to a snapshot beside cloning from it.
fn more(vm: &Vm, s: &Snapshot) -> AnyView {
    let go = |what: &str, label, class, verdict: Verdict| {
        let button = Button {
            to: format!("/vms/{}?do={what}&snapshot={}", vm.name, s.id),
            label,
            class,
            ..Button::default()
        };
        button::link(button, &verdict)
    };
    let items = view! {
        {go("revert", w().revert_dots, "", may(Privilege::SnapshotRevert, Some(vm.id)).and_then(|()| can::can_revert(vm, s)))}
        {go("delete-snapshot", w().delete_snapshot_dots, "danger", may(Privilege::SnapshotDelete, Some(vm.id)).and_then(|()| can::can_delete_snapshot(vm, s)))}
    };
    button::menu(s.name.to_string(), items.into_any())
}

fn taken(vm: &Vm, s: &Snapshot, level: String, branch: bool) -> AnyView {
    let (word, why) = consistency(s.consistency);
    let ready = s.state == SnapshotState::Ready;
    let mut about = vec![why.to_owned()];
    if let Some(micros) = s.pause_micros {
        about.push(put(w().paused_for, &[&format::duration(micros as i64)]));
    }
    if s.allocated_bytes > 0 {
        about.push(put(w().takes_bytes, &[&format::bytes(s.allocated_bytes)]));
    }
    if let Some(bytes) = s.memory_bytes {
        about.push(put(w().memory_kept, &[&format::bytes(bytes)]));
    }
    let memory = s
        .memory_bytes
        .map(|bytes| put(w().memory_kept, &[&format::bytes(bytes)]));
    let memory = memory.map(|text| view! { <span class="sub">{text}</span> });
    let clone = format!("/vms/{}/clone?source={}", vm.name, s.id);
    let name = s.name.to_string();
    let label = put(w().clone_from, &[&name]);
    view! {
        <li class=branch.then_some("branch") data-level=level>
            <span class="ink-still">{shape(if ready { Tone::Still } else { Tone::Busy })}</span>
            <span class="what">
                {name} {memory} {(!s.description.is_empty()).then(|| view! { <span class="sub">{s.description.clone()}</span> })}
            </span>
            <span class="tag" title=about.join(" ")>
                {if ready { word } else { w().being_taken }}
            </span>
            <span class="when">{ago(s.create_time)}</span>
            {ready.then(|| view! { <a class="quiet button" href=clone aria-label=label>{w().clone_here}</a> })}
            {more(vm, s)}
        </li>
    }
    .into_any()
}

fn now(changed: Option<u64>, level: String, branch: bool) -> AnyView {
    let changed = changed.map(|n| put(w().bytes_changed, &[&format::bytes(n)]));
    view! {
        <li class=if branch { "now branch" } else { "now" } data-level=level>
            <span>{shape(Tone::Good)}</span>
            <span class="what">{w().now}</span>
            <span class="when">{changed}</span>
        </li>
    }
    .into_any()
}
