//! What is said of migrations, their cycles, test clones and cutovers.

use crate::cli::client::joined;
use crate::cli::client::table::{Table, bytes, millis};
use shared::Timestamp;
use shared::api::{CutoverPage, CyclePage, MigratingVmPage, MigrationClonePage};
use shared::migrate::views::{CutoverJob, Forecast, MigrationClone, MoveStep, ReplicationCycle};
use shared::migrate::{CyclePolicy, MigratingVm, TargetDefaults};

/// Machines that are carried over, for people.
pub fn table(page: MigratingVmPage) -> String {
    let mut table = Table::new([
        "NAME", "MACHINE", "SOURCE", "TARGET", "STATE", "CYCLES", "SYNCED", "NEXT",
    ]);
    for vm in &page.migrating_vms {
        table.row([
            vm.name.to_string(),
            vm.source_vm_name.clone(),
            vm.source_name.to_string(),
            vm.target_name.to_string(),
            state(vm),
            vm.cycles.to_string(),
            time(vm.last_sync_time),
            time(next(vm)),
        ]);
    }
    table.of(page.total_size)
}

fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// When the next cycle begins by itself.
fn next(vm: &MigratingVm) -> Option<Timestamp> {
    vm.next_time.filter(|_| vm.state.cycles())
}

/// How a migration is, in a few words.
fn state(vm: &MigratingVm) -> String {
    match vm.failures {
        0 => vm.state.to_string(),
        1 => format!("{} (the last cycle failed)", vm.state),
        n => format!("{} (the last {n} cycles failed)", vm.state),
    }
}

/// A migration in one line, and what to follow where a cycle is at work.
pub fn line(vm: &MigratingVm) -> String {
    let mut text = format!("{}: {}", vm.name, state(vm));
    if let Some(why) = &vm.error {
        text.push_str(&format!(": {}", why.message));
    }
    match (vm.current_cycle, next(vm)) {
        (Some(job), _) => text.push_str(&format!("\nfollow its cycle: offshoot job wait {job}")),
        (None, Some(next)) => text.push_str(&format!(", next cycle {next}")),
        (None, None) => {}
    }
    text
}

/// When cycles run, in a few words.
fn rests(policy: &CyclePolicy) -> String {
    let rest = millis(u64::from(policy.idle_seconds) * 1000);
    let kept = match policy.keep_last {
        1 => "the last upload is kept".to_owned(),
        n => format!("the last {n} uploads are kept"),
    };
    let quiesced = if policy.quiesce { ", quiesced" } else { "" };
    format!("{rest} of rest between two{quiesced}; {kept}")
}

/// What it is to be where it goes that it was not.
fn there(asked: &TargetDefaults) -> String {
    let mut all = Vec::new();
    all.extend(asked.name.as_ref().map(|name| format!("name {name}")));
    all.extend(asked.cpus.map(|n| format!("processors {n}")));
    all.extend(asked.memory_mib.map(|mib| format!("memory {mib} MiB")));
    all.extend(asked.storage.as_ref().map(|storage| format!("storage {storage}")));
    let nics = asked.network_interfaces.iter().flatten();
    all.extend(nics.map(|nic| format!("nic on {}", nic.network)));
    let labels = asked.labels.iter();
    all.extend(labels.map(|(key, value)| format!("label {key}={value}")));
    all.extend(asked.hostname.as_ref().map(|name| format!("hostname {name}")));
    all.extend(asked.firmware.map(|firmware| format!("firmware {firmware}")));
    if asked.keep_identity == Some(true) {
        all.push("identity kept".to_owned());
    }
    if asked.seed().is_some() {
        all.push("cloud-init seed".to_owned());
    }
    match all.is_empty() {
        true => "as it was".to_owned(),
        false => joined(all),
    }
}

/// How far the last upload is adapted.
fn adaptation(vm: &MigratingVm) -> String {
    match (&vm.adaptation, vm.adapts) {
        (_, false) => "OS adaptation is skipped".to_owned(),
        (None, true) => "the next upload is the first that is adapted".to_owned(),
        (Some(last), true) => match (&last.error, last.over) {
            (Some(why), _) => format!("not adapted: {}", why.message),
            (None, true) => "adapted".to_owned(),
            (None, false) => "being adapted".to_owned(),
        },
    }
}

/// A migration, with all that there is to say of it.
pub fn shown(vm: &MigratingVm) -> String {
    let mut lines = Vec::new();
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("{name:<8} {value}"));
        }
    };
    field("name", Some(vm.name.to_string()));
    field("id", Some(vm.id.to_string()));
    field("state", Some(format!("{} since {}", state(vm), vm.state_time)));
    field("error", vm.error.as_ref().map(ToString::to_string));
    field(
        "machine",
        Some(format!("{} ({})", vm.source_vm_name, vm.source_vm)),
    );
    field("source", Some(vm.source_name.to_string()));
    field("target", Some(vm.target_name.to_string()));
    field("there", Some(there(&vm.target_defaults)));
    let group = vm.group.as_ref();
    field("group", group.map(|group| format!("{group}, wave {}", vm.wave)));
    field("system", Some(adaptation(vm)));
    field("cycles", Some(format!("{}, {}", vm.cycles, rests(&vm.policy))));
    field("at work", vm.current_cycle.map(|job| format!("cycle, job {job}")));
    field("synced", vm.last_sync_time.map(|time| time.to_string()));
    field("upload", vm.last_copy.map(|copy| copy.to_string()));
    field("next", next(vm).map(|time| time.to_string()));
    field("cutover", vm.cutover_job.map(|job| format!("job {job}")));
    field("became", vm.target_vm.map(|vm| vm.to_string()));
    field("expires", vm.expire_time.map(|time| time.to_string()));
    field("made", Some(vm.create_time.to_string()));
    lines.join("\n")
}

/// How long something took, if it is over.
fn took(start: Timestamp, end: Option<Timestamp>) -> String {
    let ms = end.and_then(|end| u64::try_from(end.since(start) / 1000).ok());
    ms.map(millis).unwrap_or_default()
}

/// How far a cycle has gone through the disks; nothing once it is over.
fn done(cycle: &ReplicationCycle) -> String {
    match (cycle.end_time, cycle.total_bytes) {
        (Some(_), _) | (None, 0) => String::new(),
        (None, all) => format!("{} of {}", bytes(cycle.replicated_bytes), bytes(all)),
    }
}

/// Cycles, for people.
pub fn cycles(page: CyclePage) -> String {
    let mut table = Table::new([
        "CYCLE", "STATE", "STEP", "DONE", "CHANGED", "STORED", "MOMENT", "TOOK", "JOB", "WHY",
    ]);
    for cycle in &page.replication_cycles {
        let step = cycle.steps.iter().find(|step| step.end_time.is_none());
        let error = cycle.error.as_ref().map(|error| error.message.clone());
        let why = cycle.hold_reason.clone().or(error);
        let warnings = || Some(joined(&cycle.warnings)).filter(|all| !all.is_empty());
        table.row([
            cycle.number.to_string(),
            cycle.state.to_string(),
            step.map(|step| step.name.to_string()).unwrap_or_default(),
            done(cycle),
            bytes(cycle.changed_bytes),
            bytes(cycle.stored_bytes),
            time(cycle.snapshot_time),
            took(cycle.create_time, cycle.end_time),
            cycle.id.to_string(),
            why.or_else(warnings).unwrap_or_default(),
        ]);
    }
    table.of(page.total_size)
}

/// The step that a test clone or a cutover is at.
fn at(steps: &[MoveStep]) -> String {
    let step = steps.iter().find(|step| step.end_time.is_none());
    step.map(|step| step.name.to_string()).unwrap_or_default()
}

/// What a person says of a test clone, in a few words.
fn verdict(clone: &MigrationClone) -> String {
    let said = &clone.judged;
    let word = said.verdict.map(|verdict| verdict.to_string());
    let note = Some(said.note.as_str()).filter(|note| !note.is_empty());
    match (word, note) {
        (Some(word), Some(note)) => format!("{word}: {note}"),
        (Some(word), None) => word,
        (None, _) => String::new(),
    }
}

/// Test clones, for people.
pub fn clones(page: MigrationClonePage) -> String {
    let mut table = Table::new([
        "ID", "STATE", "STEP", "CLONE", "UPLOAD", "VERDICT", "REMOVE", "CREATED", "WHY",
    ]);
    for clone in &page.clone_jobs {
        let error = clone.error.as_ref().map(|error| error.message.clone());
        table.row([
            clone.id.to_string(),
            clone.state.to_string(),
            at(&clone.steps),
            clone
                .target
                .as_ref()
                .map(|vm| vm.name.to_string())
                .unwrap_or_default(),
            clone.copy.to_string(),
            verdict(clone),
            time(clone.remove_time),
            clone.create_time.to_string(),
            clone.hold_reason.clone().or(error).unwrap_or_default(),
        ]);
    }
    table.of(page.total_size)
}

/// A test clone in one line.
pub fn clone_line(clone: &MigrationClone) -> String {
    let name = clone.target.as_ref().map(|vm| format!(" {}", vm.name));
    let said = Some(verdict(clone)).filter(|said| !said.is_empty());
    let state = said.unwrap_or_else(|| clone.state.to_string());
    format!(
        "test clone{}: {state}, job {}",
        name.unwrap_or_default(),
        clone.id
    )
}

/// Cutovers, for people.
pub fn cutovers(page: CutoverPage) -> String {
    let mut table = Table::new([
        "ID", "STATE", "STEP", "MACHINE", "DOWNTIME", "CREATED", "TOOK", "WHY",
    ]);
    for cutover in &page.cutover_jobs {
        let error = cutover.error.as_ref().map(|error| error.message.clone());
        table.row([
            cutover.id.to_string(),
            cutover.state.to_string(),
            at(&cutover.steps),
            cutover
                .target
                .as_ref()
                .map(|vm| vm.name.to_string())
                .unwrap_or_default(),
            cutover.downtime_millis.map(millis).unwrap_or_default(),
            cutover.create_time.to_string(),
            took(cutover.create_time, cutover.end_time),
            error.unwrap_or_default(),
        ]);
    }
    table.of(page.total_size)
}

/// A cutover in one line.
pub fn cutover_line(cutover: &CutoverJob) -> String {
    let message = cutover.state_message.as_ref().map(|text| format!(" ({text})"));
    format!(
        "cutover: {}{}, job {}",
        cutover.state,
        message.unwrap_or_default(),
        cutover.id
    )
}

/// How long each part of a cutover is likely to take.
pub fn forecast(forecast: &Forecast) -> String {
    let part = |ms: Option<u64>| ms.map_or_else(|| "not measured yet".to_owned(), millis);
    [
        ("to shut the source down", forecast.shutting_down_millis),
        ("to upload what has changed last", forecast.final_sync_millis),
        ("to adapt its system", forecast.adapting_millis),
        ("to start it where it goes", forecast.instantiating_millis),
        ("nothing of it runs for", forecast.downtime_millis()),
    ]
    .map(|(what, ms)| format!("{what:<32} {}", part(ms)))
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::vm::NewNic;

    #[test]
    fn what_was_not_measured_is_not_forecast() {
        let all = Forecast {
            shutting_down_millis: Some(5000),
            final_sync_millis: Some(2000),
            adapting_millis: Some(0),
            instantiating_millis: Some(500),
        };
        assert!(forecast(&all).ends_with(" 7.5 s"), "{}", forecast(&all));
        let some = Forecast {
            instantiating_millis: None,
            ..all
        };
        let text = forecast(&some);
        assert_eq!(text.matches("not measured yet").count(), 2, "{text}");
    }

    #[test]
    fn what_it_is_to_be_is_said_in_a_few_words() {
        assert_eq!(there(&TargetDefaults::default()), "as it was");
        let asked = TargetDefaults {
            cpus: Some(4),
            network_interfaces: Some(vec![NewNic::on("lan")]),
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
            ..TargetDefaults::default()
        };
        assert_eq!(there(&asked), "processors 4, nic on lan, label tier=gold");
    }

    #[test]
    fn rest_and_what_is_kept_are_said_in_a_few_words() {
        let policy = CyclePolicy::default();
        assert_eq!(
            rests(&policy),
            "60 min 0 s of rest between two; the last 2 uploads are kept"
        );
        let other = CyclePolicy {
            idle_seconds: 30,
            quiesce: true,
            keep_last: 1,
            ..policy
        };
        assert_eq!(
            rests(&other),
            "30.0 s of rest between two, quiesced; the last upload is kept"
        );
    }
}
