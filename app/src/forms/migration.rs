//! The forms that speak of sources, and of machines that are carried over.

use super::machine::number;
use super::parse::Form;
use super::{ADAPT_NO, ADAPT_YES, NETWORK_NONE, NETWORK_SAME, SOURCE_DISKS, SOURCE_LIBVIRT, SOURCE_LOCAL};
use crate::words::w;
use shared::api::{
    AdaptMigration, Call, CheckMigration, CheckOs, CycleNow, DeleteMigratingVm, DeleteSource,
    ExtendMigration, PauseMigration, PostCutover, PostFinalize, PostGroupAction, PostGroupCutover,
    PostJudgement, PostMigratingVm, PostMigrationClone, PostSource, RawCall, ResumeMigration, StartMigration,
    UpdateMigratingVm,
};
use shared::can::limit;
use shared::migrate::groups::{CutOverGroup, GroupAction, GroupResults, MemberResult};
use shared::migrate::{
    CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, CyclePolicy, DisksSource,
    FinalizeMigration, JudgeClone, LibvirtSource, LocalSource, PatchMigratingVm, TargetDefaults, can,
};
use shared::vm::{CloudInit, NewNic};
use shared::{Name, Status};

pub fn source(rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    Ok(match *rest {
        ["create"] => {
            let kind = form.get("kind");
            let path = || form.get("disks.path").unwrap_or_default().to_owned();
            let uri = || form.get("libvirt.uri").unwrap_or_default().to_owned();
            let request = CreateSource {
                name: form.need("name")?,
                local: (kind == Some(SOURCE_LOCAL)).then(LocalSource::default),
                disks: (kind == Some(SOURCE_DISKS)).then(|| DisksSource { path: path() }),
                libvirt: (kind == Some(SOURCE_LIBVIRT)).then(|| LibvirtSource { uri: uri() }),
            };
            request.place()?;
            PostSource { request }.raw()
        }
        [source, "remove"] => DeleteSource {
            source: source.to_owned(),
        }
        .raw(),
        _ => return Err(Status::not_found("form", rest.join("/"))),
    })
}

pub fn parse(rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let (vm, action) = match *rest {
        ["create"] => {
            let request = create(form)?;
            return Ok(PostMigratingVm { request }.raw());
        }
        [vm, "judge", clone] => {
            let request = JudgeClone {
                verdict: form.need("action")?,
                note: form.get("note").unwrap_or_default().to_owned(),
            };
            let (vm, clone) = (vm.to_owned(), clone.to_owned());
            return Ok(PostJudgement { vm, clone, request }.raw());
        }
        [vm, action] => (vm.to_owned(), action),
        _ => return Err(Status::not_found("form", rest.join("/"))),
    };
    Ok(match action {
        "start" => StartMigration { vm }.raw(),
        "pause" => PauseMigration { vm }.raw(),
        "resume" => ResumeMigration { vm }.raw(),
        "cycle" => CycleNow { vm }.raw(),
        "extend" => ExtendMigration { vm }.raw(),
        "check" => CheckMigration { vm }.raw(),
        "adapt" => AdaptMigration { vm }.raw(),
        "check-os" => CheckOs { vm }.raw(),
        "clone" => {
            let request = clone(form)?;
            PostMigrationClone { vm, request }.raw()
        }
        "cutover" => {
            let seconds = number(form, "powerOffAfterSeconds", |field, n| {
                let most = u64::from(limit::BOOT_TIMEOUT_SECONDS);
                limit::within(field, u64::from(n), 1, most, "s")
            })?;
            let usual = CreateCutover::default();
            let request = CreateCutover {
                target: named(form)?,
                power_off_after_seconds: seconds.unwrap_or(usual.power_off_after_seconds),
            };
            PostCutover { vm, request }.raw()
        }
        "finalize" => {
            let request = FinalizeMigration {
                keep_copies: form.is("keepCopies"),
            };
            PostFinalize { vm, request }.raw()
        }
        "edit" => {
            let request = edit(form)?;
            UpdateMigratingVm { vm, request }.raw()
        }
        "delete" => DeleteMigratingVm { vm }.raw(),
        _ => return Err(Status::not_found("action", action)),
    })
}

fn policy(form: Form<'_>) -> Result<CyclePolicy, Status> {
    let number = |field: &str| number(form, field, |_, _| Ok(()));
    let usual = CyclePolicy::default();
    Ok(CyclePolicy {
        idle_seconds: number("policy.idleSeconds")?.unwrap_or(usual.idle_seconds),
        quiesce: form.is("policy.quiesce"),
        keep_last: number("policy.keepLast")?.unwrap_or(usual.keep_last),
        expire_days: number("policy.expireDays")?,
        skip_os_adaptation: match form.get("adaptation") {
            Some(ADAPT_YES) => Some(false),
            Some(ADAPT_NO) => Some(true),
            _ => None,
        },
    })
}

/// What the machine is to be; `now` has what no field shows.
fn defaults(form: Form<'_>, now: TargetDefaults) -> Result<TargetDefaults, Status> {
    let number = |field: &str| number(form, field, |_, _| Ok(()));
    Ok(TargetDefaults {
        name: form.parse("targetDefaults.name")?,
        cpus: number("targetDefaults.cpus")?,
        memory_mib: number("targetDefaults.memoryMib")?,
        network_interfaces: match form.get("network") {
            None => None,
            Some(NETWORK_NONE) => Some(Vec::new()),
            Some(NETWORK_SAME) => now.network_interfaces,
            Some(network) => Some(vec![NewNic::on(network)]),
        },
        storage: form.get("storage").map(str::to_owned),
        labels: now.labels,
        cloud_init: match (form.get("userData").map(str::to_owned), now.cloud_init) {
            (None, None) => None,
            (user_data, now) => {
                let now = now.unwrap_or_default();
                Some(CloudInit { user_data, ..now }).filter(|ci| *ci != CloudInit::default())
            }
        },
        metadata: now.metadata,
        hostname: form.get("targetDefaults.hostname").map(str::to_owned),
        firmware: form.parse("targetDefaults.firmware")?,
        keep_identity: form.is("keepIdentity").then_some(true),
    })
}

fn edit(form: Form<'_>) -> Result<PatchMigratingVm, Status> {
    let now: String = form.need("targetDefaults")?;
    let now = serde_json::from_str(&now).map_err(|e| Status::invalid("targetDefaults", e))?;
    let (policy, defaults) = (policy(form)?, defaults(form, now)?);
    can::policy(&policy)?;
    can::defaults("targetDefaults", &defaults)?;
    let group: Option<Name> = form.parse("group")?;
    Ok(PatchMigratingVm {
        name: Some(form.need("name")?),
        target_defaults: Some(defaults),
        policy: Some(policy),
        group: Some(group.map(|name| name.to_string()).unwrap_or_default()),
        wave: form.parse("wave")?,
    })
}

fn create(form: Form<'_>) -> Result<CreateMigratingVm, Status> {
    let request = CreateMigratingVm {
        name: form.need("name")?,
        source: form.need("source")?,
        source_vm: form.need("sourceVm")?,
        target: form.need("target")?,
        target_defaults: defaults(form, TargetDefaults::default())?,
        policy: policy(form)?,
        group: form.parse("group")?,
        wave: form.parse("wave")?.unwrap_or(1),
    };
    can::migration(&request)?;
    Ok(request)
}

/// What a machine is to be beside what its migration says: its name.
fn named(form: Form<'_>) -> Result<TargetDefaults, Status> {
    Ok(TargetDefaults {
        name: form.parse("target.name")?,
        ..TargetDefaults::default()
    })
}

fn clone(form: Form<'_>) -> Result<CreateMigrationClone, Status> {
    Ok(CreateMigrationClone {
        copy: None,
        target: named(form)?,
        isolated: form.is("isolated"),
        start: form.is("start"),
        keep_hours: number(form, "keepHours", |field, n| {
            limit::within(field, u64::from(n), 1, u64::from(can::MOST_DAYS) * 24, "hours")
        })?,
    })
}

pub fn group(rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let (group, action) = match *rest {
        [group, action] => (group.to_owned(), action),
        _ => return Err(Status::not_found("form", rest.join("/"))),
    };
    Ok(match action {
        "act" => {
            let request = GroupAction {
                verb: form.need("action")?,
                wave: form.parse("wave")?,
                keep_hours: None,
                keep_copies: false,
            };
            PostGroupAction { group, request }.raw()
        }
        "cutover" => {
            let usual = CutOverGroup::default().power_off_after_seconds;
            let request = CutOverGroup {
                // Beside the other choice of the same page.
                wave: form.parse("cutoverWave")?,
                power_off_after_seconds: form.parse("powerOffAfterSeconds")?.unwrap_or(usual),
            };
            PostGroupCutover { group, request }.raw()
        }
        _ => return Err(Status::not_found("action", action)),
    })
}

/// What became of it for each machine of a group.
pub fn each(answer: &str) -> Option<Vec<crate::backend::Outcome>> {
    let all: GroupResults = serde_json::from_str(answer).ok()?;
    let one = |member: MemberResult| match member.error {
        Some(why) => Err(why),
        None => Ok(String::new()),
    };
    Some(all.results.into_iter().map(one).collect())
}

/// Whether what answers has the id of a job that does what was asked.
pub fn is_job(rest: &[&str]) -> bool {
    matches!(rest, [_, "clone" | "cutover" | "finalize" | "adapt"])
}

/// What a page says when it was done.
pub fn done(rest: &[&str]) -> &'static str {
    match rest {
        ["create"] => w().flash_added,
        [_, "edit"] => w().flash_described,
        [_, "remove" | "delete"] => w().flash_removed,
        [_, "start"] => w().flash_cycles_start,
        [_, "pause"] => w().flash_cycles_pause,
        [_, "resume"] => w().flash_task_released,
        [_, "cycle"] => w().flash_cycle,
        [_, "extend"] => w().flash_extended,
        [_, "check"] => w().flash_checked,
        [_, "adapt"] => w().flash_adapt,
        [_, "check-os"] => w().flash_check_os,
        [_, "clone"] => w().flash_test_clone,
        [_, "cutover"] => w().flash_cut_over,
        [_, "finalize"] => w().flash_finalize,
        _ => w().flash_described,
    }
}

#[cfg(test)]
#[path = "migration_tests.rs"]
mod tests;
