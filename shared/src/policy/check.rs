//! Whether a policy can be so: all but its cron line and its time zones, which the server reads.

use super::retain::Retention;
use super::{CreatePolicy, Window};
use crate::Status;
use crate::can::{Verdict, limit};

/// Most machines that a policy names.
pub const MACHINES: usize = 1000;
/// Most targets of a policy.
pub const TARGETS: usize = 16;
/// Most windows of a policy.
pub const WINDOWS: usize = 32;
/// Most copies that one rule of a retention keeps.
pub const KEPT: u32 = 10_000;
/// Longest minimum age, in hours: about a hundred years.
pub const AGE_HOURS: u32 = 876_000;
/// Longest cron line, label or name of a time zone, in bytes.
pub const TEXT_BYTES: usize = 256;

/// Whether there can be such a policy.
pub fn policy(policy: &CreatePolicy) -> Verdict {
    machines(&policy.vms, policy.label.as_deref())?;
    let count = policy.targets.len() as u64;
    limit::within("targets", count, 1, TARGETS as u64, "targets")?;
    for (n, target) in policy.targets.iter().enumerate() {
        if policy.targets[..n].contains(target) {
            return Err(Status::invalid(
                "targets",
                format_args!("{target} is named twice"),
            ));
        }
    }
    if let Some(schedule) = &policy.schedule {
        limit::length("schedule.cron", &schedule.cron, TEXT_BYTES)?;
        limit::length("schedule.timeZone", &schedule.time_zone, TEXT_BYTES)?;
    }
    if let Some(rule) = policy.verify {
        let every = u64::from(rule.boot_every);
        limit::within("verify.bootEvery", every, 1, u64::from(KEPT), "copies")?;
    }
    let count = policy.window.len() as u64;
    limit::within("window", count, 0, WINDOWS as u64, "windows")?;
    policy.window.iter().try_for_each(window)?;
    retention(&policy.retention)
}

/// Whether these are machines: some by name or id, or those with a label, or both.
pub fn machines(vms: &[String], label: Option<&str>) -> Verdict {
    limit::within("vms", vms.len() as u64, 0, MACHINES as u64, "machines")?;
    let Some(label) = label else {
        if vms.is_empty() {
            return Err(Status::invalid("vms", "no machine: name some, or a label"));
        }
        return Ok(());
    };
    limit::length("label", label, TEXT_BYTES)?;
    match label.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(()),
        _ => Err(Status::invalid(
            "label",
            format_args!("{label:?} is no label like tier=gold"),
        )),
    }
}

/// Whether a window opens and closes at times of the day.
pub fn window(window: &Window) -> Verdict {
    limit::length("window.timeZone", &window.time_zone, TEXT_BYTES)?;
    for (field, text) in [("window.from", &window.from), ("window.to", &window.to)] {
        if minute_of_day(text).is_none() {
            return Err(Status::invalid(
                field,
                format_args!("{text:?} is no time of the day like 22:30"),
            ));
        }
    }
    Ok(())
}

/// Whether a retention counts.
pub fn retention(rules: &Retention) -> Verdict {
    for (field, count) in [
        ("retention.keepLast", rules.keep_last),
        ("retention.hourly", rules.hourly),
        ("retention.daily", rules.daily),
        ("retention.weekly", rules.weekly),
        ("retention.monthly", rules.monthly),
        ("retention.yearly", rules.yearly),
    ] {
        if let Some(n) = count {
            limit::within(field, u64::from(n), 1, u64::from(KEPT), "copies")?;
        }
    }
    if let Some(n) = rules.minimum_age_hours {
        let (field, most) = ("retention.minimumAgeHours", u64::from(AGE_HOURS));
        limit::within(field, u64::from(n), 1, most, "hours")?;
    }
    Ok(())
}

/// The minute of the day of a text like 22:30; none if it is not so.
pub fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str, most: u16| {
        let whole = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|n| whole && *n <= most)
    };
    Some(two(hour, 23)? * 60 + two(minute, 59)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn field(change: &[(&str, Value)]) -> Option<String> {
        let mut request = json!({"name": "nightly", "vms": ["web-1"], "targets": ["local"]});
        for (pointer, value) in change {
            request[pointer] = value.clone();
        }
        let request = serde_json::from_value(request).unwrap();
        let wrong = policy(&request).err()?;
        Some(wrong.field().unwrap().to_owned())
    }

    #[test]
    fn a_policy_has_machines_targets_and_limits() {
        let whole = [
            ("label", json!("tier=gold")),
            (
                "schedule",
                json!({"cron": "0 2 * * *", "timeZone": "Europe/Berlin"}),
            ),
            (
                "retention",
                json!({"keepLast": 3, "daily": 7, "minimumAgeHours": 24}),
            ),
            ("verify", json!({"bootEvery": 7})),
            (
                "window",
                json!([{"days": ["MONDAY"], "from": "22:00", "to": "06:00"}]),
            ),
        ];
        assert_eq!(field(&whole), None);
        assert_eq!(field(&[("vms", json!([])), ("label", json!("tier="))]), None);
        for (name, value, wrong) in [
            ("vms", json!([]), "vms"),
            ("vms", json!(vec!["a"; MACHINES + 1]), "vms"),
            ("label", json!("gold"), "label"),
            ("label", json!("=gold"), "label"),
            ("targets", json!([]), "targets"),
            ("targets", json!(["a", "b", "a"]), "targets"),
            (
                "schedule",
                json!({"cron": "*".repeat(TEXT_BYTES + 1)}),
                "schedule.cron",
            ),
            ("verify", json!({"bootEvery": 0}), "verify.bootEvery"),
            ("window", json!([{"from": "22:00", "to": "24:00"}]), "window.to"),
            ("window", json!([{"from": "9:00", "to": "10:00"}]), "window.from"),
            ("retention", json!({"daily": 0}), "retention.daily"),
            ("retention", json!({"yearly": KEPT + 1}), "retention.yearly"),
            (
                "retention",
                json!({"minimumAgeHours": 0}),
                "retention.minimumAgeHours",
            ),
        ] {
            let what = format!("{name} {value}");
            assert_eq!(field(&[(name, value)]).as_deref(), Some(wrong), "{what}");
        }
    }

    #[test]
    fn times_of_the_day() {
        assert_eq!(minute_of_day("00:00"), Some(0));
        assert_eq!(minute_of_day("23:59"), Some(1439));
        for text in [
            "", "24:00", "12:60", "1:00", "01:0", "+1:00", "01:00:00", "0100", "aa:bb",
        ] {
            assert_eq!(minute_of_day(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_patch_does_not_give_stays() {
        let request = json!({"name": "nightly", "vms": ["web-1"], "label": "tier=gold", "targets": ["local"],
            "schedule": {"cron": "@daily"}, "verify": {"bootEvery": 1}});
        let before: CreatePolicy = serde_json::from_value(request).unwrap();
        let patched = |patch: Value| {
            let patch: super::super::PatchPolicy = serde_json::from_value(patch).unwrap();
            patch.onto(before.clone())
        };
        assert_eq!(patched(json!({})), before);
        let without = patched(json!({"schedule": null, "label": null, "verify": null, "enabled": false}));
        let expected = CreatePolicy {
            schedule: None,
            label: None,
            verify: None,
            enabled: false,
            ..before.clone()
        };
        assert_eq!(without, expected);
    }
}
