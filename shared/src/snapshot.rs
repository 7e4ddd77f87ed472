//! Snapshots: a tree of frozen moments of a machine's disks.

use crate::vm::Vm;
use crate::{Name, SnapshotId, Timestamp, VmId, words};
use serde::{Deserialize, Serialize};

words! {
    /// How far a snapshot has come.
    pub enum SnapshotState {
        /// A job is at work on it.
        Creating = "CREATING",
        /// It can be used.
        Ready = "READY",
    }

    /// What a snapshot guarantees about the data in it, and how that was reached.
    pub enum Consistency {
        /// The machine was off.
        Offline = "OFFLINE",
        /// Taken while it ran, as after a power cut: journals replay.
        Online = "ONLINE",
        /// The guest agent froze the file systems.
        GuestAgent = "GUEST_AGENT",
        /// Freezing was asked for, but no agent answered.
        NoGuestAgent = "NO_GUEST_AGENT",
        /// The agent answered, but freezing failed.
        QuiesceFailed = "QUIESCE_FAILED",
    }
}

/// What the memory of a snapshot goes on in: a machine as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemoryNeeds {
    /// Number of processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Number of NICs.
    pub nics: u32,
    /// Their PCI slots; older snapshots do not say.
    #[serde(default)]
    pub slots: Vec<u32>,
}

impl MemoryNeeds {
    /// What memory taken of this machine would go on in.
    pub fn of(vm: &Vm) -> Self {
        let nics = &vm.network_interfaces;
        Self {
            cpus: vm.cpus,
            memory_mib: vm.memory_mib,
            nics: nics.len() as u32,
            slots: nics.iter().map(|nic| nic.slot).collect(),
        }
    }
}

/// A snapshot of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its id, for ever.
    pub id: SnapshotId,
    /// The machine it is of.
    pub vm: VmId,
    /// Its name, unique among the machine's living snapshots.
    pub name: Name,
    /// What a person wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The snapshot it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// Whether the machine's disks stand on it now.
    pub current: bool,
    /// How far it has come.
    pub state: SnapshotState,
    /// What it guarantees.
    pub consistency: Consistency,
    /// Whether memory is kept with it.
    pub memory: bool,
    /// Bytes that the memory takes on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What the memory goes on in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_needs: Option<MemoryNeeds>,
    /// How long QEMU took to switch the disks over, in microseconds: the guest's disks stood still no longer. With memory, how
    /// long the guest stood still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_micros: Option<u64>,
    /// Bytes that its frozen layers take on the host.
    #[serde(default)]
    pub allocated_bytes: u64,
    /// When the disks were frozen.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// A request for a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TakeSnapshot {
    /// Its name; made from the time if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What a person writes about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether memory is kept too, of the same moment: the machine must run.
    #[serde(default)]
    pub memory: bool,
    /// Whether the guest agent freezes the file systems for the moment.
    #[serde(default)]
    pub quiesce: bool,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

/// A request to take a machine back to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevertSnapshot {
    /// Whether what is now is kept as a snapshot first; else it is lost.
    #[serde(default)]
    pub keep_current: bool,
    /// The name of that snapshot; made from the time if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whether the guest goes on where it was, if the snapshot has its memory.
    #[serde(default = "yes")]
    pub memory: bool,
    /// Whether the machine is powered on afterwards, if the guest does not go on.
    #[serde(default)]
    pub start: bool,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

fn yes() -> bool {
    true
}

impl Default for RevertSnapshot {
    fn default() -> Self {
        Self {
            keep_current: false,
            name: None,
            memory: true,
            start: false,
            request_id: None,
        }
    }
}

/// A snapshot's place in the tree that people look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRow<'a> {
    /// How many branches it is in, from 1: what goes on without a branch stays where it is.
    pub level: usize,
    /// Whether a branch begins with it.
    pub branch: bool,
    /// The snapshot; none is NOW, the running state.
    pub snapshot: Option<&'a Snapshot>,
}

/// The rows of the tree, depth first, with NOW below the current snapshot (or first, where there is none).
///
/// A chain of parents that is broken or goes in circles cannot loop: what is left over stands at the top.
pub fn tree(snapshots: &[Snapshot]) -> Vec<TreeRow<'_>> {
    fn place<'a>(
        rows: &mut Vec<TreeRow<'a>>,
        left: &mut Vec<&'a Snapshot>,
        of: Option<&Snapshot>,
        level: usize,
    ) {
        let (parent, now) = (of.map(|s| s.id), of.is_some_and(|s| s.current));
        let ways = left.iter().filter(|s| s.parent == parent).count() + usize::from(now);
        let branch = parent.is_some() && ways > 1;
        let level = level + usize::from(branch);
        while let Some(at) = left.iter().position(|s| s.parent == parent) {
            let snapshot = left.remove(at);
            put(rows, left, snapshot, level, branch);
        }
        if now {
            rows.push(TreeRow {
                level,
                branch,
                snapshot: None,
            });
        }
    }
    fn put<'a>(
        rows: &mut Vec<TreeRow<'a>>,
        left: &mut Vec<&'a Snapshot>,
        snapshot: &'a Snapshot,
        level: usize,
        branch: bool,
    ) {
        rows.push(TreeRow {
            level,
            branch,
            snapshot: Some(snapshot),
        });
        place(rows, left, Some(snapshot), level);
    }
    let mut left: Vec<&Snapshot> = snapshots.iter().collect();
    left.sort_by_key(|s| (s.create_time, s.id));
    let mut rows = Vec::with_capacity(left.len() + 1);
    place(&mut rows, &mut left, None, 1);
    while !left.is_empty() {
        let orphan = left.remove(0);
        put(&mut rows, &mut left, orphan, 1, false);
    }
    if !rows.iter().any(|r| r.snapshot.is_none()) {
        rows.insert(
            0,
            TreeRow {
                level: 1,
                branch: false,
                snapshot: None,
            },
        );
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn snapshot(n: u128, parent: Option<u128>, current: bool) -> Snapshot {
        Snapshot {
            id: SnapshotId(Uuid::from_u128(n)),
            vm: VmId(Uuid::nil()),
            name: format!("s{n}").parse().unwrap(),
            description: String::new(),
            parent: parent.map(|p| SnapshotId(Uuid::from_u128(p))),
            current,
            state: SnapshotState::Ready,
            consistency: Consistency::Online,
            memory: false,
            memory_bytes: None,
            memory_needs: None,
            pause_micros: None,
            allocated_bytes: 0,
            create_time: Timestamp::from_micros(n as i64),
            generation: 0,
        }
    }

    fn drawn(all: &[Snapshot]) -> Vec<(usize, bool, String)> {
        let name = |s: Option<&Snapshot>| s.map_or("now".to_owned(), |s| s.name.to_string());
        let rows = tree(all).into_iter();
        rows.map(|r| (r.level, r.branch, name(r.snapshot))).collect()
    }

    #[test]
    fn now_stands_below_the_current_snapshot_and_only_branches_are_indented() {
        let row = |level, branch, name: &str| (level, branch, name.to_owned());
        let branched = [
            snapshot(1, None, false),
            snapshot(2, Some(1), true),
            snapshot(3, Some(1), false),
        ];
        let rows = [
            row(1, false, "s1"),
            row(2, true, "s2"),
            row(2, false, "now"),
            row(2, true, "s3"),
        ];
        assert_eq!(drawn(&branched), rows);
        let chain = [
            snapshot(1, None, false),
            snapshot(2, Some(1), false),
            snapshot(3, Some(2), true),
        ];
        let rows = ["s1", "s2", "s3", "now"].map(|name| row(1, false, name));
        assert_eq!(drawn(&chain), rows);
        // Taken back to the middle: what was goes one way, and what is now another.
        let back = [
            snapshot(1, None, false),
            snapshot(2, Some(1), true),
            snapshot(3, Some(2), false),
        ];
        let rows = [
            row(1, false, "s1"),
            row(1, false, "s2"),
            row(2, true, "s3"),
            row(2, true, "now"),
        ];
        assert_eq!(drawn(&back), rows);
    }

    proptest! {
        #[test]
        fn any_parents_even_circles_give_every_snapshot_once(parents in prop::collection::vec(prop::option::of(0u128..12), 0..12)) {
            let all: Vec<_> = parents.iter().enumerate().map(|(n, p)| snapshot(n as u128, *p, n == 3)).collect();
            let rows = tree(&all);
            prop_assert_eq!(rows.len(), all.len() + 1);
            prop_assert_eq!(rows.iter().filter(|r| r.snapshot.is_none()).count(), 1);
        }
    }
}
