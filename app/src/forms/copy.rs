//! The forms that speak of copies, and of the targets that they go to.

use super::machine::{number, whole};
use super::parse::Form;
use super::{NETWORK_NONE, START_AFTER, START_INSTANT, way};
use crate::words::{put, w};
use shared::Status;
use shared::api::{
    Call, CheckTarget, DeleteCopy, DeleteTarget, HoldCopyTask, PostBoot, PostCopyTask, PostRestore,
    PostTarget, PruneTarget, RawCall, ReleaseCopyTask, UpdateCopy, UpdateTarget, VerifyTargetNow,
};
use shared::can::limit;
use shared::copy::{
    BootCopy, CreateCopyTask, PatchCopy, RestoreCopy, RestoreDisks, RestoreFile, RestoreOver, RestoreVm,
};
use shared::target::{
    CreateTarget, LocalPlace, PatchTarget, Place, RemotePlace, S3Place, TargetKind, VerifyTarget,
};
use shared::vm::NewNic;

/// A snapshot of a machine to a target.
pub fn start(vm: &str, form: Form<'_>) -> Result<RawCall, Status> {
    // A snapshot that is there is as it was taken.
    let snapshot = form.get("snapshot").map(str::to_owned);
    let taken = snapshot.is_none();
    let with = |word| taken && form.get("with") == Some(word);
    let request = CreateCopyTask {
        target: form.need("target")?,
        memory: with("memory"),
        quiesce: with("quiesce"),
        snapshot,
        boot: form.is("boot"),
        request_id: form.parse("requestId")?,
    };
    Ok(PostCopyTask {
        vm: vm.to_owned(),
        request,
    }
    .raw())
}

/// What is done to a task that copies.
pub fn task(task: &str, action: &str) -> Result<RawCall, Status> {
    let task = task.to_owned();
    match action {
        "hold" => Ok(HoldCopyTask { task }.raw()),
        "release" => Ok(ReleaseCopyTask { task }.raw()),
        _ => Err(Status::not_found("action", action)),
    }
}

/// What is done with a copy.
pub fn act(copy: &str, action: &str, form: Form<'_>) -> Result<RawCall, Status> {
    let copy = copy.to_owned();
    Ok(match action {
        "restore" => {
            let request = restore(form)?;
            PostRestore { copy, request }.raw()
        }
        "boot" => {
            let seconds = number(form, "bootTimeoutSeconds", |field, n| {
                let most = u64::from(limit::BOOT_TIMEOUT_SECONDS);
                limit::within(field, u64::from(n), 1, most, "s")
            })?;
            let request = BootCopy {
                boot_timeout_seconds: seconds.unwrap_or(BootCopy::default().boot_timeout_seconds),
                boot_pattern: form.get("bootPattern").map(str::to_owned),
            };
            PostBoot { copy, request }.raw()
        }
        "hold" | "release" => {
            let request = PatchCopy {
                legal_hold: action == "hold",
            };
            UpdateCopy { copy, request }.raw()
        }
        "delete" => DeleteCopy { copy }.raw(),
        _ => return Err(Status::not_found("action", action)),
    })
}

fn restore(form: Form<'_>) -> Result<RestoreCopy, Status> {
    let instant = form.get("start") == Some(START_INSTANT);
    let start = instant || form.get("start") == Some(START_AFTER);
    let mut request = RestoreCopy {
        request_id: form.parse("requestId")?,
        ..RestoreCopy::default()
    };
    match form.get("way").unwrap_or(way::VM) {
        way::OVER => {
            let vm: String = form.need("vm")?;
            let confirm = form.get("confirm").unwrap_or_default().to_owned();
            if confirm != vm {
                return Err(Status::invalid("confirm", put(w().confirm_differs, &[&vm])));
            }
            request.over = Some(RestoreOver {
                vm,
                confirm,
                start,
                instant,
            });
        }
        way::DISKS => {
            let ticked = form.0.iter().filter(|(name, _)| name == "number");
            let numbers: Vec<u32> = ticked
                .map(|(_, n)| whole("number", n))
                .collect::<Result<_, _>>()?;
            if numbers.is_empty() {
                return Err(Status::invalid("number", w().nothing_selected));
            }
            request.disks = Some(RestoreDisks {
                vm: form.need("vm")?,
                numbers,
            });
        }
        way::FILE => {
            request.file = Some(RestoreFile {
                disk: form.parse("disk")?.unwrap_or_default(),
                format: form.need("format")?,
            });
        }
        _ => {
            request.vm = Some(RestoreVm {
                name: form.need("name")?,
                cpus: number(form, "cpus", limit::cpus)?,
                memory_mib: number(form, "memoryMib", limit::memory)?,
                network_interfaces: match form.get("network") {
                    None => None,
                    Some(NETWORK_NONE) => Some(Vec::new()),
                    Some(network) => Some(vec![NewNic::on(network)]),
                },
                storage: form.get("storage").map(str::to_owned),
                labels: Default::default(),
                cloud_init: None,
                start,
                instant,
            });
        }
    }
    Ok(request)
}

pub fn target(rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let own = |name: &str| name.to_owned();
    Ok(match *rest {
        ["create"] => {
            let request = create(form)?;
            PostTarget { request }.raw()
        }
        [target, "edit"] => {
            let place = place(form)?;
            let request = PatchTarget {
                name: Some(form.need("name")?),
                local: place.local,
                s3: place.s3,
                remote: place.remote,
                // No limit is 0 to the API.
                bytes_per_second: Some(rate(form)?.unwrap_or(0)),
                at_once: number(form, "atOnce", |_, _| Ok(()))?,
            };
            UpdateTarget {
                target: own(target),
                request,
            }
            .raw()
        }
        [target, "check"] => CheckTarget { target: own(target) }.raw(),
        [target, "verify"] => {
            let percent = number(form, "percent", |field, n| {
                limit::within(field, u64::from(n), 1, 100, "percent")
            })?;
            let request = VerifyTarget {
                percent: percent.unwrap_or(100),
            };
            VerifyTargetNow {
                target: own(target),
                request,
            }
            .raw()
        }
        [target, "prune"] => PruneTarget { target: own(target) }.raw(),
        [target, "detach"] => DeleteTarget { target: own(target) }.raw(),
        _ => return Err(Status::not_found("form", rest.join("/"))),
    })
}

/// MiB in a second, as bytes; none for no limit.
fn rate(form: Form<'_>) -> Result<Option<u64>, Status> {
    let mib = number(form, "bytesPerSecond", |_, _| Ok(()))?;
    Ok(mib.filter(|n| *n > 0).map(|n| u64::from(n) << 20))
}

/// Where a target is. A secret that is not typed stays as it was.
fn place(form: Form<'_>) -> Result<Place, Status> {
    let text = |name: &str| form.get(name).map(str::to_owned);
    let mut place = Place::default();
    match form.need("kind")? {
        TargetKind::Local => {
            place.local = Some(LocalPlace {
                path: form.need("local.path")?,
            });
        }
        TargetKind::S3 => {
            place.s3 = Some(S3Place {
                endpoint: text("s3.endpoint"),
                region: text("s3.region"),
                bucket: form.need("s3.bucket")?,
                prefix: text("s3.prefix"),
                access_key_id: form.need("s3.accessKeyId")?,
                secret_access_key: text("s3.secretAccessKey"),
            });
        }
        TargetKind::Remote => {
            place.remote = Some(RemotePlace {
                url: form.need("remote.url")?,
                target: form.need("remote.target")?,
                token: text("remote.token"),
            });
        }
    }
    Ok(place)
}

fn create(form: Form<'_>) -> Result<CreateTarget, Status> {
    let (attach, passphrase) = (form.is("attach"), form.get("passphrase"));
    // A new one is typed twice: with a slip in it nobody could open the vault.
    if !attach && passphrase != form.get("again") {
        return Err(Status::invalid("again", w().passwords_differ));
    }
    let place = place(form)?;
    let request = CreateTarget {
        name: form.need("name")?,
        local: place.local,
        s3: place.s3,
        remote: place.remote,
        attach,
        passphrase: passphrase.map(str::to_owned),
        recipient: form.get("recipient").map(str::to_owned),
        identity: form.get("identity").map(str::to_owned),
        bytes_per_second: rate(form)?,
        at_once: number(form, "atOnce", |_, _| Ok(()))?,
    };
    request.check()?;
    Ok(request)
}

/// What a page says when it was done.
pub fn done(parts: &[&str]) -> &'static str {
    match parts {
        ["vms", ..] => w().flash_copy,
        ["copyTasks", _, "hold"] => w().flash_task_held,
        ["copyTasks", ..] => w().flash_task_released,
        ["copies", _, "restore"] => w().flash_restore,
        ["copies", _, "boot"] => w().flash_boot,
        ["copies", _, "hold"] => w().flash_hold,
        ["copies", _, "release"] => w().flash_hold_back,
        ["copies", ..] => w().flash_copy_gone,
        ["targets", "create"] => w().flash_added,
        ["targets", _, "check"] => w().flash_checked,
        ["targets", _, "verify"] => w().flash_verify,
        ["targets", _, "prune"] => w().flash_prune,
        ["targets", _, "detach"] => w().flash_detached,
        _ => w().flash_described,
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
