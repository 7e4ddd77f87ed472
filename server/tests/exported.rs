//! Exported machines, carried over from a directory: a real OVA, with a real guest in it.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use server::inventory::migrations as inventory;
use server::jobs::Jobs;
use shared::CopyId;
use shared::api::ListQuery;
use shared::job::JobState;
use shared::migrate::views::ReplicationCycle;
use shared::migrate::{
    CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, CyclePolicy, DisksSource,
    MigratingState, MigratingVm, TargetDefaults,
};
use shared::vm::Firmware;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::counting::{QEMU, counts};
use support::migrating::{brought, carry, is, synced, when, within};
use support::{by, clean_up, dir, ended, engine_of, guest, quiet, target, vm_id};

fn tool(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {arguments:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const OVF: &str = r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File ovf:id="f" ovf:href="web-disk1.vmdk"/></References>
  <DiskSection><Info/><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="1"/></DiskSection>
  <VirtualSystem ovf:id="web"><Info/><Name>Web server</Name>
    <OperatingSystemSection ovf:id="96"><Info/><Description>Demo guest</Description></OperatingSystemSection>
    <VirtualHardwareSection><Info/>
      <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>256</rasd:VirtualQuantity></Item>
      <Item><rasd:HostResource>ovf:/disk/d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>"#;

/// Exports the disk as another system would.
fn export(work: &Path, disk: &Path, ova: &Path) {
    let vmdk = work.join("web-disk1.vmdk");
    let options = ["convert", "-O", "vmdk", "-o", "subformat=streamOptimized"];
    tool("qemu-img", &[&options[..], &[text(disk), text(&vmdk)]].concat());
    std::fs::write(work.join("web.ovf"), OVF).unwrap();
    let half = work.join("half");
    let files = ["web.ovf", "web-disk1.vmdk"];
    tool(
        "tar",
        &[
            &["--format=ustar", "-cf", text(&half), "-C", text(work)][..],
            &files,
        ]
        .concat(),
    );
    std::fs::rename(half, ova).unwrap();
}

/// As [`carry`], of what is no system that is known.
fn as_it_is(name: &str, vm: &str) -> CreateMigratingVm {
    CreateMigratingVm {
        policy: CyclePolicy {
            skip_os_adaptation: Some(true),
            ..CyclePolicy::default()
        },
        ..carry(name, vm)
    }
}

async fn cycles(jobs: &Jobs) -> Vec<ReplicationCycle> {
    let all = inventory::cycles(jobs.world(), "moved", &ListQuery::default()).await;
    let mut cycles = all.unwrap().items;
    cycles.reverse();
    cycles
}

/// An engine that reads exports from below a directory, as a source called `here`, and has a target called `vault`.
async fn site(dir: &Path, exports: &Path) -> Jobs {
    std::fs::create_dir_all(exports).unwrap();
    let roots = vec![exports.canonicalize().unwrap()];
    let jobs = engine_of(dir, QEMU, None, |world| world.images.roots = roots).await;
    target(&jobs, "vault").await;
    let source = CreateSource {
        name: "here".parse().unwrap(),
        local: None,
        libvirt: None,
        disks: Some(DisksSource {
            path: text(exports).into(),
        }),
    };
    jobs.create_source(source).await.unwrap();
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ova_is_carried_over_tried_and_cut_over() {
    let dir = dir();
    let (exports, work) = (dir.path().join("exports"), dir.path().join("work"));
    std::fs::create_dir_all(&work).unwrap();
    let jobs = site(dir.path(), &exports).await;
    let (disk, ova) = (work.join("disk.qcow2"), exports.join("web.ova"));
    std::fs::copy(guest("demo"), &disk).unwrap();
    export(&work, &disk, &ova);
    std::fs::write(exports.join("broken.qcow2"), "no image").unwrap();

    let has = inventory::inventory(jobs.world(), "here").await.unwrap().vms;
    let names: Vec<_> = has
        .iter()
        .map(|vm| (vm.name.as_str(), vm.refusal.is_some()))
        .collect();
    assert_eq!(names, [("Web server", false), ("broken", true)]);
    let web = &has[0];
    assert_eq!(
        (web.cpus, web.memory_mib, web.os.as_deref()),
        (Some(1), Some(256), Some("Demo guest"))
    );

    jobs.create_migrating_vm(as_it_is("moved", "web.ova"))
        .await
        .unwrap();
    when(&jobs, |vm| vm.state == MigratingState::Ready).await;
    synced(&jobs).await;
    let first = &cycles(&jobs).await[0];
    assert!(first.stored_bytes > 1 << 20, "{first:#?}");
    // What was converted for it is gone.
    let left = std::fs::read_dir(dir.path().join("uploads")).unwrap().count();
    assert_eq!(left, 0);

    // A file that nobody has written is not read again.
    jobs.cycle_now("moved").await.unwrap();
    when(&jobs, |vm| vm.cycles == 2 && vm.current_cycle.is_none()).await;
    assert_eq!(cycles(&jobs).await[1].changed_bytes, 0);

    // Of one that was written what has changed is stored.
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 7 200M 1M", text(&disk)],
    );
    export(&work, &disk, &ova);
    jobs.cycle_now("moved").await.unwrap();
    when(&jobs, |vm| vm.cycles == 3 && vm.current_cycle.is_none()).await;
    let third = &cycles(&jobs).await[2];
    assert!(
        third.changed_bytes > 0 && third.stored_bytes < 1 << 20,
        "{third:#?}"
    );

    let clone = jobs
        .migration_clone("moved", CreateMigrationClone::default(), by())
        .await
        .unwrap();
    let clone = ended(&jobs, clone.id).await;
    assert_eq!(clone.state, JobState::Succeeded, "{clone:#?}");
    let made = clone
        .resources
        .iter()
        .find(|r| r.noun == shared::feed::Noun::Vm)
        .unwrap();
    counts(&jobs, made.id.parse().unwrap(), 3).await;

    let cut = jobs
        .cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap();
    let cut = ended(&jobs, cut.id).await;
    assert_eq!(cut.state, JobState::Succeeded, "{cut:#?}");
    assert_eq!(is(&jobs).await.state, MigratingState::Cutover);
    counts(&jobs, vm_id(&jobs, "moved").await, 3).await;
    quiet(&jobs).await;
    let end = jobs
        .finalize_migration("moved", Default::default(), by())
        .await
        .unwrap();
    assert_eq!(ended(&jobs, end.id).await.state, JobState::Succeeded);
    assert!(ova.exists(), "the source is left as it is");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_and_nothing_outside_is() {
    let dir = dir();
    let exports = dir.path().join("exports");
    let jobs = site(dir.path(), &exports).await;
    let outside = CreateSource {
        name: "outside".parse().unwrap(),
        local: None,
        disks: Some(DisksSource { path: "/etc".into() }),
        libvirt: None,
    };
    let refused = jobs.create_source(outside).await.unwrap_err();
    assert_eq!(refused.field(), Some("disks.path"), "{refused}");

    // Of two disks: one raw, as it lies there, one qcow2; it boots by EFI.
    let pair = exports.join("pair");
    std::fs::create_dir(&pair).unwrap();
    let raw = pair.join("a.raw");
    let mut head = vec![0; 1 << 20];
    head[512..520].copy_from_slice(b"EFI PART");
    let kind = b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
    head[1024..1040].copy_from_slice(kind);
    std::fs::write(&raw, head).unwrap();
    let second = pair.join("b.qcow2");
    let plain = dir.path().join("plain");
    tool("qemu-img", &["create", "-q", "-f", "qcow2", text(&plain), "3M"]);
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 5 0 64k", text(&plain)],
    );
    // Compressed, as many exports are: it is converted.
    let convert = ["convert", "-c", "-O", "qcow2", text(&plain), text(&second)];
    tool("qemu-img", &convert);
    jobs.create_migrating_vm(as_it_is("moved", "pair")).await.unwrap();
    when(&jobs, |vm| vm.state == MigratingState::Ready).await;
    let synced = synced(&jobs).await;
    let copy = server::db::copies::by_id(&jobs.world().db, synced.last_copy.unwrap());
    let copy = copy.await.unwrap().unwrap();
    assert_eq!(copy.machine.firmware, Firmware::Efi);
    let sizes: Vec<_> = copy.disks.iter().map(|d| (d.bytes >> 20, d.slot == 0)).collect();
    assert_eq!(sizes[..2], [(1, false), (3, false)]);
    assert!(sizes.len() == 3 && sizes[2].1, "{sizes:?}");

    // One of its disks is written: the other is neither read again nor asked how it boots.
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 6 64k 64k", text(&second)],
    );
    jobs.cycle_now("moved").await.unwrap();
    let synced = when(&jobs, |vm| vm.cycles == 2 && vm.current_cycle.is_none()).await;
    assert_eq!(synced.failures, 0, "{synced:#?}");

    // It goes away, and comes back.
    std::fs::rename(&pair, exports.join(".away")).unwrap();
    jobs.cycle_now("moved").await.unwrap();
    let failed = when(&jobs, |vm| vm.failures == 1).await;
    assert!(failed.error.unwrap().message.contains("not at here any more"));
    assert_eq!(failed.last_copy, synced.last_copy);
    std::fs::rename(exports.join(".away"), &pair).unwrap();
    jobs.cycle_now("moved").await.unwrap();
    when(&jobs, |vm| vm.failures == 0 && vm.current_cycle.is_none()).await;

    std::fs::write(exports.join("bad.qcow2"), "no image").unwrap();
    let bad = CreateMigratingVm {
        target: "vault".into(),
        ..carry("bad", "bad.qcow2")
    };
    jobs.create_migrating_vm(bad).await.unwrap();
    let bad = loop {
        let vm = inventory::migrating_vm(jobs.world(), "bad").await.unwrap();
        if vm.state != MigratingState::Pending {
            break vm;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(bad.state, MigratingState::Error);
    assert!(bad.error.unwrap().message.contains("cannot be carried over"));
    clean_up(&jobs).await;
}

/// A disk with a system on it that is known, and has all drivers in its kernel, and programs, but would not boot.
fn system(work: &Path, disk: &Path) {
    let root = work.join("root");
    for dir in [
        "bin",
        "boot",
        "dev",
        "etc",
        "proc",
        "sys",
        "tmp",
        "usr",
        "var",
        "lib/modules/6.1.0",
    ] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let has = |name: &str, text: &[u8]| std::fs::write(root.join(name), text).unwrap();
    has("etc/fstab", b"");
    has("etc/debian_version", b"12.1\n");
    has(
        "etc/os-release",
        b"ID=debian\nVERSION_ID=12\nPRETTY_NAME=Debian\n",
    );
    has("etc/hostname", b"old\n");
    has("etc/machine-id", b"0123456789abcdef0123456789abcdef\n");
    has("boot/vmlinuz-6.1.0", b"MZ");
    let drivers = ["virtio_blk", "virtio_pci", "virtio_scsi", "virtio_net"];
    let drivers = drivers.map(|name| format!("kernel/drivers/{name}.ko\n"));
    has("lib/modules/6.1.0/modules.builtin", drivers.concat().as_bytes());
    for program in ["/bin/sh", "/bin/ls", "/bin/rm"] {
        let needs = Command::new("ldd").arg(program).output().unwrap();
        let needs = String::from_utf8(needs.stdout).unwrap();
        let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain([program]) {
            let to = root.join(file.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(file, to).unwrap();
        }
    }
    let raw = work.join("raw");
    std::fs::File::create(&raw).unwrap().set_len(64 << 20).unwrap();
    tool("mke2fs", &["-q", "-t", "ext4", "-d", text(&root), text(&raw)]);
    tool("qemu-img", &["convert", "-O", "qcow2", text(&raw), text(disk)]);
}

/// What a file of the system on the first disk of a copy says.
async fn says(jobs: &Jobs, copy: CopyId, file: &str, work: &Path) -> String {
    let disk = work.join(copy.to_string());
    if !disk.exists() {
        brought(jobs, copy, &disk).await;
    }
    let out = Command::new("debugfs")
        .args(["-R", &format!("cat {file}")])
        .arg(&disk)
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_is_adapted_beside_what_was_uploaded() {
    let dir = dir();
    let (exports, work) = (dir.path().join("exports"), dir.path().join("work"));
    std::fs::create_dir_all(&work).unwrap();
    let jobs = site(dir.path(), &exports).await;
    let disk = exports.join("old.qcow2");
    system(&work, &disk);
    let request = CreateMigratingVm {
        target_defaults: TargetDefaults {
            hostname: Some("new.example.org".into()),
            ..TargetDefaults::default()
        },
        ..carry("moved", "old.qcow2")
    };
    jobs.create_migrating_vm(request).await.unwrap();
    when(&jobs, |vm| vm.state == MigratingState::Ready).await;
    jobs.start_migration("moved").await.unwrap();
    let over = |vm: &MigratingVm| vm.adaptation.as_ref().is_some_and(|last| last.over);
    let vm = within(&jobs, LONG, over).await;
    let adapted = vm
        .adapted
        .unwrap_or_else(|| panic!("it is adapted: {:#?}", vm.adaptation));
    assert_eq!(Some(adapted.upload), vm.last_copy);
    let job = vm.adaptation.unwrap().job.unwrap();
    let job = server::db::jobs::by_id(&jobs.world().db, job).await.unwrap();
    let told = job.unwrap().job.outcome.read().unwrap().adapted.unwrap();
    assert_eq!(told.os.unwrap().distribution, "debian");
    // Of what was not changed nothing is written anew.
    assert!(
        (1..8 << 20).contains(&told.written_bytes),
        "{}",
        told.written_bytes
    );

    // What is only looked at is told as it was done, and nothing comes of it.
    let check = jobs.check_os("moved", by()).await.unwrap();
    let check = ended(&jobs, check.id).await;
    assert_eq!(check.state, JobState::Succeeded, "{check:#?}");
    let would = check.outcome.read().unwrap().adapted.unwrap();
    assert_eq!((would.done, would.written_bytes), (told.done, 0));
    assert_eq!(is(&jobs).await.adapted, Some(adapted));

    assert_eq!(says(&jobs, adapted.upload, "/etc/hostname", &work).await, "old\n");
    let name = says(&jobs, adapted.copy, "/etc/hostname", &work).await;
    assert_eq!(name, "new.example.org\n");
    assert_eq!(says(&jobs, adapted.copy, "/etc/machine-id", &work).await, "");
    let head = says(&jobs, adapted.copy, "/etc/os-release", &work).await;
    assert!(head.starts_with("ID=debian"), "{head}");
    for copy in [adapted.upload, adapted.copy] {
        tool("e2fsck", &["-fn", text(&work.join(copy.to_string()))]);
    }
    clean_up(&jobs).await;
}

/// To adapt a Debian, and to boot it, on a busy host without KVM.
const LONG: Duration = Duration::from_secs(900);

/// What a Debian says of itself on the serial port when it has booted, by name.
async fn marks(jobs: &Jobs, vm: shared::VmId) -> std::collections::HashMap<String, String> {
    let end = Instant::now() + LONG;
    loop {
        let log = std::fs::read(jobs.world().hypervisor.serial_log(vm)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let line = log
            .lines()
            .find(|line| line.starts_with("mark machine=") && line.contains(" end"));
        if let Some(line) = line {
            let words = line.split(' ').filter_map(|word| word.trim().split_once('='));
            return words.map(|(name, value)| (name.into(), value.into())).collect();
        }
        let tail = &log[log.len().saturating_sub(2000)..];
        assert!(Instant::now() < end, "it says nothing: {tail}");
        // The log is a file that QEMU writes: nothing tells of it here.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: make soak"]
async fn a_debian_of_other_hardware_goes_all_the_way() {
    let dir = dir();
    let exports = dir.path().join("exports");
    let jobs = site(dir.path(), &exports).await;
    let script = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../guest/debian.sh");
    let out = Command::new(script).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    std::fs::copy(said.lines().last().unwrap(), exports.join("debian.qcow2")).unwrap();
    let request = CreateMigratingVm {
        target_defaults: TargetDefaults {
            hostname: Some("new.example.org".into()),
            cpus: Some(2),
            memory_mib: Some(1024),
            ..TargetDefaults::default()
        },
        ..carry("moved", "debian.qcow2")
    };
    jobs.create_migrating_vm(request).await.unwrap();
    when(&jobs, |vm| vm.state == MigratingState::Ready).await;
    jobs.start_migration("moved").await.unwrap();
    let vm = within(&jobs, LONG, |vm| {
        vm.adaptation.as_ref().is_some_and(|last| last.over)
    })
    .await;
    assert!(vm.adapted.is_some(), "{:#?}", vm.adaptation);
    let job = vm.adaptation.unwrap().job.unwrap();
    let job = server::db::jobs::by_id(&jobs.world().db, job)
        .await
        .unwrap()
        .unwrap()
        .job;
    let adapted = job.outcome.read().unwrap().adapted.unwrap();
    assert_eq!(adapted.os.unwrap().distribution, "debian");
    assert!(adapted.written_bytes > 0 && !adapted.done.is_empty());

    // What nobody has written since is adapted already: the cutover takes what was done ahead.
    let cut = jobs
        .cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap();
    let cut = ended(&jobs, cut.id).await;
    assert_eq!(cut.state, JobState::Succeeded, "{cut:#?}");
    println!("off for {:?} ms", cut.outcome.read().unwrap().downtime_millis);
    let said = marks(&jobs, vm_id(&jobs, "moved").await).await;
    let say = |name: &str| said.get(name).map(String::as_str);
    assert_eq!(say("host"), Some("new.example.org"), "{said:?}");
    // The recipe of the image has both.
    assert_ne!(say("machine"), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(say("machine").map(str::len), Some(32), "{said:?}");
    let mut lines = String::new();
    for n in 1..=200_000 {
        lines.push_str(&format!("{n}\n"));
    }
    let file = dir.path().join("data");
    std::fs::write(&file, lines).unwrap();
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(say("data"), sum.split(' ').next(), "{said:?}");
    clean_up(&jobs).await;
}
