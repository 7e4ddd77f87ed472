//! Cohesity's `CopySnapshotTaskStatus`, by its document and its SDK 1.16, and what it has within.
//!
//! Keys are those of the wire; what is not set has no key; what is not known is ignored, as the SDK does.

use crate::words;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

words! {
    /// How a copy task is.
    pub enum CopyStatus {
        /// It waits for its turn.
        Accepted = "kAccepted",
        /// It copies.
        Running = "kRunning",
        /// It is to end, and has not yet.
        Canceling = "kCanceling",
        /// It was ended.
        Canceled = "kCanceled",
        /// The copy is there.
        Success = "kSuccess",
        /// It failed.
        Failure = "kFailure",
        /// The copy is there, and a person must know something of it.
        Warning = "kWarning",
        /// It stands still: by a person, out of its window, or while its target is away.
        OnHold = "kOnHold",
        /// Its time passed while it could not run.
        Missed = "kMissed",
        /// All is copied, and the copy is being made to count. In the SDK, not in the document.
        Finalizing = "kFinalizing",
    }
}

impl CopyStatus {
    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            Self::Canceled | Self::Success | Self::Failure | Self::Warning | Self::Missed
        )
    }

    /// Whether a task that is so may be `next` afterwards.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Accepted => matches!(
                next,
                Self::Running | Self::OnHold | Self::Missed | Self::Canceling | Self::Failure
            ),
            Self::OnHold => matches!(
                next,
                Self::Accepted | Self::Running | Self::Missed | Self::Canceling | Self::Failure
            ),
            Self::Running => matches!(
                next,
                Self::Finalizing | Self::OnHold | Self::Canceling | Self::Failure
            ),
            // The copy counts, or it does not: nobody can end that half-way.
            Self::Finalizing => matches!(next, Self::Success | Self::Warning | Self::Failure | Self::OnHold),
            Self::Canceling => matches!(next, Self::Canceled),
            Self::Canceled | Self::Success | Self::Failure | Self::Warning | Self::Missed => false,
        }
    }

    /// How a run is, by its tasks; `None` of none. What goes on comes before what is over, and of that the worst. The
    /// document says only "aggregated".
    #[must_use]
    pub fn of_run(tasks: impl IntoIterator<Item = Self>) -> Option<Self> {
        tasks.into_iter().max_by_key(|status| match status {
            Self::Success => 0,
            Self::Missed => 1,
            Self::Canceled => 2,
            Self::Warning => 3,
            Self::Failure => 4,
            Self::Accepted => 5,
            Self::OnHold => 6,
            Self::Canceling => 7,
            Self::Finalizing => 8,
            Self::Running => 9,
        })
    }
}

/// The status of the task that copies the snapshot of one machine to a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CopySnapshotTaskStatus {
    /// What went wrong; set when the status is `kFailure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ProtectionSource>,
    /// Figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<CopyRunStats>,
    /// How it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CopyStatus>,
    /// When it ended, in microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_end_time_usecs: Option<i64>,
    /// When it started, in microseconds since 1970: when its snapshot was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_start_time_usecs: Option<i64>,
}

/// A node in the tree of what is protected; here, a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ProtectionSource {
    /// Its id: whole and positive, the same for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The node that it is below: the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<i64>,
    /// What it runs on: `kKVM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What is particular to machines on KVM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_protection_source: Option<KvmProtectionSource>,
}

/// A machine on KVM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct KvmProtectionSource {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `kVirtualMachine`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its id here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// Figures of one copy task, or of a run of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CopyRunStats {
    /// When it began, in microseconds since 1970; none before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time_usecs: Option<i64>,
    /// When it ended; none before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time_usecs: Option<i64>,
    /// Whether only what had changed was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_incremental: Option<bool>,
    /// What there is to go through, in bytes of disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_size_bytes: Option<i64>,
    /// What was gone through; never more than there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_bytes_transferred: Option<i64>,
    /// Bytes of disks in a second, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_transfer_rate_bps: Option<i64>,
    /// What went over the wire, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_bytes_transferred: Option<i64>,
}

impl CopySnapshotTaskStatus {
    /// Of what a server has sent: `None` in, `None` out, and so is a JSON `null`.
    ///
    /// # Errors
    ///
    /// A value of the wrong type, or a status that there is not.
    pub fn from_dictionary(dictionary: Option<&Value>) -> Result<Option<Self>, serde_json::Error> {
        match dictionary {
            None | Some(Value::Null) => Ok(None),
            Some(dictionary) => Self::deserialize(dictionary).map(Some),
        }
    }

    /// As it is sent: what is not set has no key.
    #[must_use]
    pub fn to_dictionary(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // It is a struct of numbers and texts.
            _ => Map::new(),
        }
    }
}

impl<'a> std::iter::Sum<&'a Self> for CopyRunStats {
    /// The figures of a run: those of its tasks together. It began with the first and ends with the last; it is incremental when all are.
    fn sum<I: Iterator<Item = &'a Self>>(tasks: I) -> Self {
        let tasks: Vec<_> = tasks.collect();
        let add = |of: fn(&Self) -> Option<i64>| -> Option<i64> {
            tasks.iter().filter_map(|t| of(t)).reduce(i64::saturating_add)
        };
        let ends: Option<Vec<_>> = tasks.iter().map(|t| t.end_time_usecs).collect();
        let incremental: Vec<_> = tasks.iter().filter_map(|t| t.is_incremental).collect();
        Self {
            start_time_usecs: tasks.iter().filter_map(|t| t.start_time_usecs).min(),
            end_time_usecs: ends.and_then(|ends| ends.into_iter().max()),
            is_incremental: (!incremental.is_empty()).then(|| incremental.iter().all(|is| *is)),
            logical_size_bytes: add(|t| t.logical_size_bytes),
            logical_bytes_transferred: add(|t| t.logical_bytes_transferred),
            logical_transfer_rate_bps: add(|t| t.logical_transfer_rate_bps),
            physical_bytes_transferred: add(|t| t.physical_bytes_transferred),
        }
    }
}
