//! Retention: which copies of a machine at a target are kept.

use super::utc;
use crate::{CopyId, Name, Timestamp, VmId, words};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

words! {
    /// Why a copy is kept.
    pub enum KeepReason {
        /// Nothing says how many are kept: all are.
        Unlimited = "UNLIMITED",
        /// It is among the last ones.
        Last = "LAST",
        /// It is the newest of its hour.
        Hourly = "HOURLY",
        /// It is the newest of its day.
        Daily = "DAILY",
        /// It is the newest of its ISO week.
        Weekly = "WEEKLY",
        /// It is the newest of its month.
        Monthly = "MONTHLY",
        /// It is the newest of its year.
        Yearly = "YEARLY",
        /// It is too young to go.
        MinimumAge = "MINIMUM_AGE",
        /// A person holds it.
        LegalHold = "LEGAL_HOLD",
        /// It is being read, or it is the only one that was proven.
        Needed = "NEEDED",
        /// There is no newer one.
        Newest = "NEWEST",
    }
}

/// Which copies of a machine at a target are kept; with no count at all, every copy is.
///
/// Each rule is for itself, and a copy is kept if any of them keeps it: see [`retain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// How many of the last copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Of how many hours that have a copy, the newest of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// Of how many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Of how many ISO weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Of how many months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// Of how many years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// No copy younger than this goes, in hours, whatever the counts say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_age_hours: Option<u32>,
}

/// A question: which copies would a retention keep?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviewRetention {
    /// The rules.
    pub retention: Retention,
    /// The time zone in which hours, days, weeks, months and years are.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Machines, by name or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// The label, as key=value, of more machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The targets; all if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Name>,
}

/// What a retention would keep now, and what it would drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RetentionPreview {
    /// How many copies would stay.
    pub keep: u64,
    /// How many would go.
    pub drop: u64,
    /// The copies of each machine at each target.
    pub groups: Vec<PreviewGroup>,
}

/// The copies of one machine at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PreviewGroup {
    /// The machine.
    pub vm: VmId,
    /// The target.
    pub target: Name,
    /// Its copies, the newest first.
    pub copies: Vec<CopyVerdict>,
}

/// Whether a copy is kept, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyVerdict {
    /// The copy.
    pub copy: CopyId,
    /// The moment of the machine that it holds.
    pub time: Timestamp,
    /// Whether it is kept.
    pub keep: bool,
    /// All that keeps it.
    pub reasons: Vec<KeepReason>,
}

/// A copy that is at a target, as far as it matters to what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The copy.
    pub id: CopyId,
    /// The moment of the machine that it holds.
    pub time: Timestamp,
    /// Whether a person holds it.
    pub legal_hold: bool,
    /// Whether it is being read, or is the only one of its machine that was proven.
    pub needed: bool,
}

/// A moment as the clocks on the wall show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalDate {
    /// The year.
    pub year: i16,
    /// The month, from 1.
    pub month: u8,
    /// The day of the month, from 1.
    pub day: u8,
    /// The year that the ISO week is of.
    pub iso_year: i16,
    /// The ISO week, from 1.
    pub iso_week: u8,
    /// The hour, from 0.
    pub hour: u8,
}

impl LocalDate {
    /// The period that a rule counts it to, as numbers that no other period of this rule has.
    fn period(self, rule: KeepReason) -> (i16, u8, u8, u8) {
        match rule {
            KeepReason::Hourly => (self.year, self.month, self.day, self.hour),
            KeepReason::Daily => (self.year, self.month, self.day, 0),
            KeepReason::Weekly => (self.iso_year, self.iso_week, 0, 0),
            KeepReason::Monthly => (self.year, self.month, 0, 0),
            _ => (self.year, 0, 0, 0),
        }
    }
}

impl Retention {
    fn periods(&self) -> [(KeepReason, u32); 5] {
        [
            (KeepReason::Hourly, self.hourly),
            (KeepReason::Daily, self.daily),
            (KeepReason::Weekly, self.weekly),
            (KeepReason::Monthly, self.monthly),
            (KeepReason::Yearly, self.yearly),
        ]
        .map(|(rule, count)| (rule, count.unwrap_or(0)))
    }

    /// Whether it lets no copy go, for it counts none.
    pub fn keeps_all(&self) -> bool {
        self.keep_last.unwrap_or(0) == 0 && self.periods().iter().all(|(_, count)| *count == 0)
    }
}

/// Which copies of one machine at one target stay, the newest first: only those that are whole, for others count nothing.
///
/// Each rule is for itself, as in restic: `daily: 7` keeps the newest copy of each of the last seven days that have one, whatever
/// the hourly rule keeps of them. So a greater count never drops a copy, and what was pruned once is not pruned further. An hour
/// that the clocks go through twice is one hour. What is held, needed, too young or the newest stays whatever the counts say,
/// and counts like any other.
pub fn retain(
    copies: &[Held],
    rules: &Retention,
    now: Timestamp,
    local: &dyn Fn(Timestamp) -> LocalDate,
) -> Vec<CopyVerdict> {
    let mut copies = copies.to_vec();
    copies.sort_unstable_by_key(|copy| std::cmp::Reverse((copy.time, copy.id)));
    let mut reasons = vec![Vec::new(); copies.len()];
    let mut keep = |n: usize, why| reasons[n].push(why);

    if rules.keeps_all() {
        (0..copies.len()).for_each(|n| keep(n, KeepReason::Unlimited));
    }
    let last = rules.keep_last.unwrap_or(0) as usize;
    (0..copies.len().min(last)).for_each(|n| keep(n, KeepReason::Last));
    let dates: Vec<_> = copies.iter().map(|copy| local(copy.time)).collect();
    for (rule, count) in rules.periods() {
        // Clocks that go back a day show a period again: it is counted once for all that.
        let mut seen = HashSet::new();
        for (n, date) in dates.iter().enumerate() {
            if seen.len() == count as usize {
                break;
            }
            if seen.insert(date.period(rule)) {
                keep(n, rule);
            }
        }
    }
    let young = i64::from(rules.minimum_age_hours.unwrap_or(0)) * HOUR;
    for (n, copy) in copies.iter().enumerate() {
        for (so, why) in [
            // A copy from ahead of the clock is not young where no age is asked for.
            (young > 0 && now.since(copy.time) < young, KeepReason::MinimumAge),
            (copy.legal_hold, KeepReason::LegalHold),
            (copy.needed, KeepReason::Needed),
            (n == 0, KeepReason::Newest),
        ] {
            if so {
                keep(n, why);
            }
        }
    }

    let verdict = |(copy, reasons): (Held, Vec<_>)| CopyVerdict {
        copy: copy.id,
        time: copy.time,
        keep: !reasons.is_empty(),
        reasons,
    };
    copies.into_iter().zip(reasons).map(verdict).collect()
}

/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

#[cfg(test)]
mod tests;
