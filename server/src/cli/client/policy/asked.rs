//! What `offshoot policy add` and `edit` are told.

use crate::cli::Failure;
use crate::cli::client::Api;
use clap::Args;
use shared::Name;
use shared::api::GetPolicy;
use shared::policy::retain::Retention;
use shared::policy::{CreatePolicy, DayOfWeek, PatchPolicy, Schedule, UTC, VerifyRule, Window};

/// Which copies are kept.
#[derive(Args)]
#[group(skip)]
pub struct Rules {
    /// Keep so many of the last copies of each machine; with no rule at all every copy is kept.
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep the newest copy of each of so many hours that have one; 0 for no such rule, here and below.
    #[arg(long, value_name = "N")]
    hourly: Option<u32>,
    /// The newest of each of so many days.
    #[arg(long, value_name = "N")]
    daily: Option<u32>,
    /// Of so many weeks.
    #[arg(long, value_name = "N")]
    weekly: Option<u32>,
    /// Of so many months.
    #[arg(long, value_name = "N")]
    monthly: Option<u32>,
    /// Of so many years.
    #[arg(long, value_name = "N")]
    yearly: Option<u32>,
    /// Keep all that are younger than so many hours.
    #[arg(long, value_name = "HOURS")]
    minimum_age_hours: Option<u32>,
}

impl Rules {
    /// These rules, and for what is not given those.
    pub fn onto(&self, rules: Retention) -> Retention {
        let one = |given: Option<u32>, there| given.map_or(there, |n| Some(n).filter(|n| *n > 0));
        Retention {
            keep_last: one(self.keep_last, rules.keep_last),
            hourly: one(self.hourly, rules.hourly),
            daily: one(self.daily, rules.daily),
            weekly: one(self.weekly, rules.weekly),
            monthly: one(self.monthly, rules.monthly),
            yearly: one(self.yearly, rules.yearly),
            minimum_age_hours: one(self.minimum_age_hours, rules.minimum_age_hours),
        }
    }
}

/// Hours of some days, or of every day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    days: Vec<DayOfWeek>,
    from: String,
    to: String,
}

/// Reads `22:00-06:00`, or `SATURDAY,SUNDAY=00:00-23:59`; whether they are times the server says.
fn hours(text: &str) -> Result<Hours, String> {
    let (days, hours) = text.rsplit_once('=').unwrap_or(("", text));
    let words = days.split(',').filter(|day| !day.is_empty());
    let days = words.map(|day| day.parse::<DayOfWeek>().map_err(|e| e.to_string()));
    let (from, to) = hours
        .split_once('-')
        .ok_or("hours are written 22:00-06:00, or SATURDAY,SUNDAY=22:00-06:00")?;
    Ok(Hours {
        days: days.collect::<Result<_, _>>()?,
        from: from.to_owned(),
        to: to.to_owned(),
    })
}

fn windows(all: Vec<Hours>, zone: &str) -> Vec<Window> {
    let window = |hours: Hours| Window {
        days: hours.days,
        from: hours.from,
        to: hours.to,
        time_zone: zone.to_owned(),
    };
    all.into_iter().map(window).collect()
}

/// A count that 0 takes away.
fn every(n: u32) -> Option<VerifyRule> {
    (n > 0).then_some(VerifyRule { boot_every: n })
}

/// What a new policy is.
#[derive(Args)]
pub struct AddArgs {
    /// Its name.
    name: Name,
    /// When copies are made: five fields of cron, or @hourly, @daily, @weekly, @monthly; only when asked if not given.
    #[arg(long)]
    cron: Option<String>,
    /// The time zone of that and of the windows, such as Europe/Berlin.
    #[arg(long, default_value = UTC)]
    time_zone: String,
    /// Machines, by name or id, with commas between.
    #[arg(long, value_delimiter = ',')]
    vm: Vec<String>,
    /// A label, as key=value: machines that have it when the time comes.
    #[arg(long, required_unless_present = "vm")]
    label: Option<String>,
    /// The targets that each copy goes to, with commas between.
    #[arg(long, value_delimiter = ',', required = true)]
    target: Vec<Name>,
    #[command(flatten)]
    rules: Rules,
    /// Copy the memory, too.
    #[arg(long, conflicts_with = "quiesce")]
    memory: bool,
    /// Have the guest agent freeze the file systems for the moment.
    #[arg(long)]
    quiesce: bool,
    /// Boot every so manyth copy of a machine, to see that it does.
    #[arg(long, value_name = "N")]
    boot_every: Option<u32>,
    /// Hours in which copies may run, such as 22:00-06:00 or SATURDAY,SUNDAY=00:00-23:59; always if none are given.
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    window: Vec<Hours>,
    /// Leave it switched off.
    #[arg(long)]
    disabled: bool,
}

impl AddArgs {
    /// What the server is asked.
    pub fn request(self) -> CreatePolicy {
        CreatePolicy {
            name: self.name,
            window: windows(self.window, &self.time_zone),
            schedule: self.cron.map(|cron| Schedule {
                cron,
                time_zone: self.time_zone,
            }),
            vms: self.vm,
            label: self.label,
            targets: self.target,
            retention: self.rules.onto(Retention::default()),
            memory: self.memory,
            quiesce: self.quiesce,
            verify: self.boot_every.and_then(every),
            enabled: !self.disabled,
        }
    }
}

/// What becomes of a policy.
#[derive(Args)]
pub struct EditArgs {
    /// Its name or id.
    policy: String,
    /// Another name.
    #[arg(long)]
    name: Option<Name>,
    /// When copies are made.
    #[arg(long)]
    cron: Option<String>,
    /// Make copies only when asked.
    #[arg(long, conflicts_with_all = ["cron", "time_zone"])]
    no_schedule: bool,
    /// The time zone of the schedule, and of windows that are given.
    #[arg(long)]
    time_zone: Option<String>,
    /// Machines, all of them, by name or id, with commas between.
    #[arg(long, value_delimiter = ',', conflicts_with = "no_vms")]
    vm: Option<Vec<String>>,
    /// Name no machines: those with the label alone.
    #[arg(long)]
    no_vms: bool,
    /// A label, as key=value.
    #[arg(long, conflicts_with = "no_label")]
    label: Option<String>,
    /// Name no label.
    #[arg(long)]
    no_label: bool,
    /// The targets, all of them, with commas between.
    #[arg(long, value_delimiter = ',')]
    target: Option<Vec<Name>>,
    #[command(flatten)]
    rules: Rules,
    /// Whether the memory is copied, too: true or false.
    #[arg(long)]
    memory: Option<bool>,
    /// Whether the guest agent freezes the file systems: true or false.
    #[arg(long)]
    quiesce: Option<bool>,
    /// Boot every so manyth copy of a machine; 0 for none.
    #[arg(long, value_name = "N")]
    boot_every: Option<u32>,
    /// Hours in which copies may run: all of them.
    #[arg(long, value_name = "HOURS", value_parser = hours, conflicts_with = "no_windows")]
    window: Vec<Hours>,
    /// Let copies run at any time.
    #[arg(long)]
    no_windows: bool,
    /// Whether it is at work: true or false.
    #[arg(long)]
    enabled: Option<bool>,
}

impl EditArgs {
    /// The policy and what is to change of it; of schedule and rules, what is not given is as the server has it.
    pub async fn request(self, api: &Api) -> Result<(String, PatchPolicy), Failure> {
        let policy = self.policy.clone();
        let now = api.client()?.call(&GetPolicy { policy }).await?;
        let there = now.window.first().filter(|_| now.schedule.is_none());
        let there = there.map_or_else(|| now.time_zone(), |window| &window.time_zone);
        let zone = self.time_zone.clone().unwrap_or_else(|| there.to_owned());
        let cron = self.cron.clone();
        let cron = cron.or_else(|| now.schedule.as_ref().map(|schedule| schedule.cron.clone()));
        let timed = self.cron.is_some() || self.time_zone.is_some();
        let time_zone = zone.clone();
        let schedule = match self.no_schedule {
            true => Some(None),
            false => cron
                .filter(|_| timed)
                .map(|cron| Some(Schedule { cron, time_zone })),
        };
        let retention = self.rules.onto(now.retention);
        let request = PatchPolicy {
            name: self.name,
            schedule,
            vms: if self.no_vms { Some(Vec::new()) } else { self.vm },
            label: if self.no_label {
                Some(None)
            } else {
                self.label.map(Some)
            },
            targets: self.target,
            retention: (retention != now.retention).then_some(retention),
            memory: self.memory,
            quiesce: self.quiesce,
            verify: self.boot_every.map(every),
            window: (self.no_windows || !self.window.is_empty()).then(|| windows(self.window, &zone)),
            enabled: self.enabled,
        };
        Ok((self.policy, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_of_every_day_or_of_some() {
        let all = hours("22:00-06:00").unwrap();
        assert_eq!(
            (all.days.len(), all.from.as_str(), all.to.as_str()),
            (0, "22:00", "06:00")
        );
        let some = hours("SATURDAY,SUNDAY=00:00-12:00").unwrap();
        assert_eq!(some.days, [DayOfWeek::Saturday, DayOfWeek::Sunday]);
        for wrong in ["", "22:00", "SOMEDAY=22:00-23:00", "SATURDAY="] {
            assert!(hours(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_is_given_kept_or_taken_away() {
        let rules = Rules {
            keep_last: Some(5),
            hourly: Some(0),
            daily: None,
            weekly: None,
            monthly: None,
            yearly: None,
            minimum_age_hours: None,
        };
        let there = Retention {
            hourly: Some(24),
            daily: Some(7),
            ..Retention::default()
        };
        let wanted = Retention {
            keep_last: Some(5),
            daily: Some(7),
            ..Retention::default()
        };
        assert_eq!(rules.onto(there), wanted);
    }
}
