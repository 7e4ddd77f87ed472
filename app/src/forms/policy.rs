//! The forms that speak of policies.

use super::machine::{number, values};
use super::parse::Form;
use crate::words::{put, w};
use shared::api::{Call, DeletePolicy, PostPolicy, RawCall, RunPolicy, UpdatePolicy};
use shared::policy::check;
use shared::policy::retain::Retention;
use shared::policy::{CreatePolicy, DayOfWeek, PatchPolicy, Schedule, UTC, VerifyRule, Window};
use shared::{Name, Status};

pub fn parse(rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let change = |policy: &str, request| {
        let policy = policy.to_owned();
        UpdatePolicy { policy, request }.raw()
    };
    Ok(match *rest {
        ["create"] => {
            let request = whole(form)?;
            check::policy(&request)?;
            PostPolicy { request }.raw()
        }
        [policy, "edit"] => {
            let all = whole(form)?;
            check::policy(&all)?;
            let request = PatchPolicy {
                name: Some(all.name),
                schedule: Some(all.schedule),
                vms: Some(all.vms),
                label: Some(all.label),
                targets: Some(all.targets),
                retention: Some(all.retention),
                memory: Some(all.memory),
                quiesce: Some(all.quiesce),
                verify: Some(all.verify),
                window: Some(all.window),
                enabled: Some(all.enabled),
            };
            change(policy, request)
        }
        [policy, "retention"] => {
            let request = PatchPolicy {
                retention: Some(retention(form)?),
                ..PatchPolicy::default()
            };
            change(policy, request)
        }
        [policy, switch @ ("on" | "off")] => {
            let request = PatchPolicy {
                enabled: Some(switch == "on"),
                ..PatchPolicy::default()
            };
            change(policy, request)
        }
        [policy, "run"] => RunPolicy {
            policy: policy.to_owned(),
        }
        .raw(),
        [policy, "delete"] => DeletePolicy {
            policy: policy.to_owned(),
        }
        .raw(),
        _ => return Err(Status::not_found("form", rest.join("/"))),
    })
}

/// A whole policy, as the editor has it.
fn whole(form: Form<'_>) -> Result<CreatePolicy, Status> {
    let zone = form.get("schedule.timeZone").unwrap_or(UTC).to_owned();
    let ticked = form.0.iter().filter(|(name, _)| name == "targets");
    let targets: Vec<Name> = ticked
        .map(|(_, name)| name.parse().map_err(|why| Status::invalid("targets", why)))
        .collect::<Result<_, _>>()?;
    let verify = number(form, "verify.bootEvery", |_, _| Ok(()))?;
    Ok(CreatePolicy {
        name: form.need("name")?,
        schedule: form.get("schedule.cron").map(|cron| Schedule {
            cron: cron.to_owned(),
            time_zone: zone.clone(),
        }),
        vms: values(form, "vms").map(str::to_owned).collect(),
        label: form.get("label").map(str::to_owned),
        targets,
        retention: retention(form)?,
        memory: form.get("with") == Some("memory"),
        quiesce: form.get("with") == Some("quiesce"),
        verify: verify.map(|boot_every| VerifyRule { boot_every }),
        window: windows(form, &zone)?,
        enabled: form.is("enabled"),
    })
}

fn retention(form: Form<'_>) -> Result<Retention, Status> {
    let number = |field: &str| number(form, field, |_, _| Ok(()));
    let rules = Retention {
        keep_last: number("retention.keepLast")?,
        hourly: number("retention.hourly")?,
        daily: number("retention.daily")?,
        weekly: number("retention.weekly")?,
        monthly: number("retention.monthly")?,
        yearly: number("retention.yearly")?,
        minimum_age_hours: number("retention.minimumAgeHours")?,
    };
    check::retention(&rules)?;
    Ok(rules)
}

/// Windows, a line for each: `SAT SUN 00:00-06:00`; without days it is every day.
fn windows(form: Form<'_>, zone: &str) -> Result<Vec<Window>, Status> {
    let lines = form.get("window").unwrap_or_default().lines();
    lines
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| window(line, zone).ok_or_else(|| Status::invalid("window", put(w().no_window, &[line]))))
        .collect()
}

fn window(line: &str, zone: &str) -> Option<Window> {
    let mut words: Vec<&str> = line.split(|c: char| c == ',' || c.is_whitespace()).collect();
    let (from, to) = words.pop()?.split_once('-')?;
    let day = |word: &&str| {
        let word = word.to_ascii_uppercase();
        let mut all = DayOfWeek::ALL.iter();
        // Its first letters are enough.
        all.find(|day| word.len() > 1 && day.word().starts_with(&word))
            .copied()
    };
    let days = words.iter().filter(|word| !word.is_empty()).map(day);
    let window = Window {
        days: days.collect::<Option<_>>()?,
        from: from.to_owned(),
        to: to.to_owned(),
        time_zone: zone.to_owned(),
    };
    check::window(&window).is_ok().then_some(window)
}

/// What a page says when it was done.
pub fn done(rest: &[&str]) -> &'static str {
    match rest {
        ["create"] => w().flash_added,
        [_, "run"] => w().flash_run,
        [_, "delete"] => w().flash_removed,
        _ => w().flash_described,
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
