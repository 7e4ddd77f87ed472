//! Groups: machines that are carried over together. A group is there as long as a migration names it.

use super::MigratingState;
use super::can::Verb;
use crate::{JobId, MigratingVmId, Name, Status, Timestamp, words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// What can be asked of all machines of a group at once.
    pub enum GroupVerb {
        /// Upload them for the first time.
        Start = "START",
        /// No more cycles.
        Pause = "PAUSE",
        /// Cycles again.
        Resume = "RESUME",
        /// A cycle now.
        Cycle = "CYCLE",
        /// A test clone of each.
        Clone = "CLONE",
        /// Adapt their last uploads again.
        Adapt = "ADAPT",
        /// More time until they expire.
        Extend = "EXTEND",
        /// Look at them again.
        Check = "CHECK",
        /// Remove what their migrations kept.
        Finalize = "FINALIZE",
    }
}

impl GroupVerb {
    /// The same, asked of one.
    pub const fn of_one(self) -> Verb {
        match self {
            Self::Start => Verb::Start,
            Self::Pause => Verb::Pause,
            Self::Resume => Verb::Resume,
            Self::Cycle => Verb::Cycle,
            Self::Clone => Verb::Clone,
            Self::Adapt => Verb::Adapt,
            Self::Extend => Verb::Extend,
            Self::Check => Verb::Check,
            Self::Finalize => Verb::Finalize,
        }
    }
}

/// Machines of a group that are cut over together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Its number.
    pub number: u32,
    /// How many machines are in which state.
    pub states: BTreeMap<MigratingState, u32>,
}

/// Machines that are carried over together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its name.
    pub name: Name,
    /// How many machines it has.
    pub migrating_vms: u32,
    /// How many of them run where they were to go.
    pub moved: u32,
    /// How many cannot go on, or failed the last time.
    pub failing: u32,
    /// Its waves, in their order.
    pub waves: Vec<Wave>,
    /// The oldest of their last uploads; none while one of them has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_sync_time: Option<Timestamp>,
    /// The job that cuts it over, or did the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover_job: Option<JobId>,
}

impl Group {
    /// The group that these machines are, all of one.
    pub fn of(name: Name, all: &[super::MigratingVm], cutover_job: Option<JobId>) -> Self {
        let mut waves: BTreeMap<u32, BTreeMap<MigratingState, u32>> = BTreeMap::new();
        for vm in all {
            *waves.entry(vm.wave).or_default().entry(vm.state).or_default() += 1;
        }
        let count =
            |wanted: fn(&super::MigratingVm) -> bool| all.iter().filter(|vm| wanted(vm)).count() as u32;
        let synced = all.iter().map(|vm| vm.last_sync_time);
        Self {
            name,
            migrating_vms: all.len() as u32,
            moved: count(|vm| vm.state.has_moved()),
            failing: count(|vm| vm.error.is_some()),
            waves: waves
                .into_iter()
                .map(|(number, states)| Wave { number, states })
                .collect(),
            oldest_sync_time: synced.min().flatten(),
            cutover_job,
        }
    }
}

/// All groups, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    /// All of them.
    pub groups: Vec<Group>,
}

/// A request for all machines of a group, or of one of its waves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupAction {
    /// What is asked.
    pub verb: GroupVerb,
    /// The wave; all of them if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<u32>,
    /// After how many hours test clones are put up for removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hours: Option<u32>,
    /// Whether the uploads stay at the target when they are finalized.
    #[serde(default)]
    pub keep_copies: bool,
}

/// What became of it for one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemberResult {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// Its name.
    pub name: Name,
    /// The job that does it, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
}

/// What became of it for each machine, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupResults {
    /// One for each.
    pub results: Vec<MemberResult>,
}

/// A request to cut a group over: wave by wave, those of a wave at the same time. A wave in which one fails is the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CutOverGroup {
    /// The only wave that is cut over; all of them, in their order, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<u32>,
    /// How long a guest may take to shut down until its power is taken away, in seconds.
    #[serde(default = "super::two_minutes")]
    pub power_off_after_seconds: u32,
}

impl Default for CutOverGroup {
    fn default() -> Self {
        Self {
            wave: None,
            power_off_after_seconds: super::two_minutes(),
        }
    }
}
