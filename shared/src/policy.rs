//! Policies: when copies are made, of which machines, where they go, and which are kept.
//!
//! A cron line and the name of a time zone are only carried here: the server, which has the zones, says whether they are any.

pub mod check;
pub mod retain;

use crate::vm::given;
use crate::{Name, PolicyId, Timestamp, VmId, words};
use retain::Retention;
use serde::{Deserialize, Serialize};

words! {
    /// A day of the week.
    pub enum DayOfWeek {
        /// The first of an ISO week.
        Monday = "MONDAY",
        /// The second.
        Tuesday = "TUESDAY",
        /// The third.
        Wednesday = "WEDNESDAY",
        /// The fourth.
        Thursday = "THURSDAY",
        /// The fifth.
        Friday = "FRIDAY",
        /// The sixth.
        Saturday = "SATURDAY",
        /// The last.
        Sunday = "SUNDAY",
    }
}

/// The time zone where none is named.
pub const UTC: &str = "UTC";

/// When copies are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Five fields of cron (minute, hour, day of month, month, day of week), or @hourly, @daily, @weekly or @monthly.
    pub cron: String,
    /// The time zone that they are in, such as Europe/Berlin.
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn utc() -> String {
    UTC.to_owned()
}

/// Hours in which copies may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// The days on which it opens; every day if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<DayOfWeek>,
    /// When it opens, as HH:MM.
    pub from: String,
    /// When it closes, as HH:MM; on the next day if that is not after `from`.
    pub to: String,
    /// The time zone that they are in, such as Europe/Berlin.
    #[serde(default = "utc")]
    pub time_zone: String,
}

/// Which copies are booted to prove them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyRule {
    /// Every how manyth copy of a machine: 1 is every copy.
    pub boot_every: u32,
}

/// When copies are made, of which machines, where they go, and which are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// Its name.
    pub name: Name,
    /// When copies are made; only when a person asks if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The machines that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<VmId>,
    /// The label, as key=value, of more machines: those that have it when the time comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The targets that each copy goes to.
    pub targets: Vec<Name>,
    /// Which copies are kept.
    pub retention: Retention,
    /// Whether memory is copied too.
    pub memory: bool,
    /// Whether the guest is asked to quiesce its file systems.
    pub quiesce: bool,
    /// Which copies are booted to prove them; none if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyRule>,
    /// When copies may run; always if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub window: Vec<Window>,
    /// Whether its schedule and its retention are at work.
    pub enabled: bool,
    /// When it is due next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Timestamp>,
    /// When it was made.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

impl Policy {
    /// The time zone in which the hours, days, weeks, months and years of its retention are.
    pub fn time_zone(&self) -> &str {
        self.schedule.as_ref().map_or(UTC, |s| &s.time_zone)
    }
}

/// A request for a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePolicy {
    /// Its name.
    pub name: Name,
    /// When copies are made; only when a person asks if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Machines, by name or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// The label, as key=value, of more machines: those that have it when the time comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The targets that each copy goes to.
    pub targets: Vec<Name>,
    /// Which copies are kept; all if not given.
    #[serde(default)]
    pub retention: Retention,
    /// Whether memory is copied too.
    #[serde(default)]
    pub memory: bool,
    /// Whether the guest is asked to quiesce its file systems.
    #[serde(default)]
    pub quiesce: bool,
    /// Which copies are booted to prove them; none if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyRule>,
    /// When copies may run; always if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub window: Vec<Window>,
    /// Whether its schedule and its retention are at work; they are if not given.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// A request to change a policy; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchPolicy {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// When copies are made; null if only when a person asks.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Option<Schedule>>,
    /// Machines, by name or id: all that it is to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<Vec<String>>,
    /// The label of more machines; null for none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub label: Option<Option<String>>,
    /// All the targets that each copy is to go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Name>>,
    /// Which copies are kept: all the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Whether memory is copied too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
    /// Whether the guest is asked to quiesce its file systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<bool>,
    /// Which copies are booted to prove them; null for none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub verify: Option<Option<VerifyRule>>,
    /// All the hours in which copies may run; always if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Vec<Window>>,
    /// Whether its schedule and its retention are at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl From<&Policy> for CreatePolicy {
    /// A request for just such a policy, which names machines by id.
    fn from(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            schedule: policy.schedule.clone(),
            vms: policy.vms.iter().map(ToString::to_string).collect(),
            label: policy.label.clone(),
            targets: policy.targets.clone(),
            retention: policy.retention,
            memory: policy.memory,
            quiesce: policy.quiesce,
            verify: policy.verify,
            window: policy.window.clone(),
            enabled: policy.enabled,
        }
    }
}

impl PatchPolicy {
    /// What the whole policy is then, to be checked like a new one.
    pub fn onto(self, policy: CreatePolicy) -> CreatePolicy {
        CreatePolicy {
            name: self.name.unwrap_or(policy.name),
            schedule: self.schedule.unwrap_or(policy.schedule),
            vms: self.vms.unwrap_or(policy.vms),
            label: self.label.unwrap_or(policy.label),
            targets: self.targets.unwrap_or(policy.targets),
            retention: self.retention.unwrap_or(policy.retention),
            memory: self.memory.unwrap_or(policy.memory),
            quiesce: self.quiesce.unwrap_or(policy.quiesce),
            verify: self.verify.unwrap_or(policy.verify),
            window: self.window.unwrap_or(policy.window),
            enabled: self.enabled.unwrap_or(policy.enabled),
        }
    }
}
