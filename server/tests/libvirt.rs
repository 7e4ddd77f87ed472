//! A machine of a libvirt, carried over while it runs: a real libvirtd of the test's own, with a real guest.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../libvirt/tests/daemon/mod.rs"]
mod daemon;
mod support;

use daemon::Daemon;
use server::inventory::migrations as inventory;
use server::jobs::Jobs;
use shared::api::ListQuery;
use shared::job::JobState;
use shared::migrate::views::ReplicationCycle;
use shared::migrate::{
    CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, CyclePolicy, LibvirtSource,
    MigratingState,
};
use shared::snapshot::Consistency;
use shared::vm::Firmware;
use std::path::Path;
use support::counting::{QEMU, counts};
use support::migrating::{carry, is, synced, when};
use support::{by, clean_up, dir, ended, engine_of, guest, quiet, target, until, vm_id};

async fn cycles(jobs: &Jobs) -> Vec<ReplicationCycle> {
    let all = inventory::cycles(jobs.world(), "moved", &ListQuery::default()).await;
    let mut cycles = all.unwrap().items;
    cycles.reverse();
    cycles
}

fn at(uri: &str) -> CreateSource {
    CreateSource {
        name: "here".parse().unwrap(),
        local: None,
        disks: None,
        libvirt: Some(LibvirtSource { uri: uri.into() }),
    }
}

/// An engine with a libvirt as its source, and a target called `vault`.
async fn site(dir: &Path, daemon: &Daemon) -> Jobs {
    let jobs = engine_of(dir, QEMU, None, |_| ()).await;
    target(&jobs, "vault").await;
    jobs.create_source(at(&daemon.uri())).await.unwrap();
    jobs
}

fn state(daemon: &Daemon, name: &str) -> String {
    daemon.virsh(&["domstate", name]).trim().to_owned()
}

fn moments(daemon: &Daemon, name: &str) -> usize {
    daemon
        .virsh(&["checkpoint-list", name, "--name"])
        .split_whitespace()
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_a_libvirt_is_carried_over_while_it_runs() {
    let (dir, daemon) = (dir(), Daemon::start());
    let disk = daemon.put("web.qcow2", &guest("demo"));
    let uuid = daemon.define("web", 256, &[(&disk, "qcow2")]);
    daemon.virsh(&["start", "web"]);
    daemon.virsh(&["autostart", "web"]);
    let jobs = site(dir.path(), &daemon).await;
    let has = inventory::inventory(jobs.world(), "here").await.unwrap().vms;
    assert_eq!(has.len(), 1);
    assert_eq!(
        (has[0].id.as_str(), has[0].name.as_str(), has[0].running),
        (uuid.as_str(), "web", Some(true))
    );
    assert_eq!(
        (has[0].cpus, has[0].memory_mib, has[0].firmware),
        (Some(1), Some(256), Some(Firmware::Bios))
    );
    assert_eq!(
        (has[0].os.as_deref(), &has[0].refusal),
        (Some("debian/12"), &None)
    );

    let said = daemon.virsh(&["event", "web", "agent-lifecycle", "--timeout", "120"]);
    assert!(said.contains("connected"), "{said}");
    let quiet_ones = CreateMigratingVm {
        policy: CyclePolicy {
            quiesce: true,
            // The demo guest is no system that is known.
            skip_os_adaptation: Some(true),
            ..CyclePolicy::default()
        },
        ..carry("moved", "web")
    };
    jobs.create_migrating_vm(quiet_ones).await.unwrap();
    when(&jobs, |vm| vm.state == MigratingState::Ready).await;
    let first = synced(&jobs).await;
    let copy = server::db::copies::by_id(&jobs.world().db, first.last_copy.unwrap()).await;
    let copy = copy.unwrap().unwrap();
    assert_eq!(
        (copy.consistency, copy.machine.nics),
        (Consistency::GuestAgent, 0)
    );

    // The second reads what was written since.
    let size = has[0].disk_bytes[0];
    daemon.write("web", &format!("write -P 7 {} 1M", size - (1 << 20)));
    jobs.cycle_now("moved").await.unwrap();
    when(&jobs, |vm| vm.cycles == 2 && vm.current_cycle.is_none()).await;
    let done = cycles(&jobs).await;
    assert!(done[0].changed_bytes > 8 << 20, "{:#?}", done[0]);
    let changed = done[1].changed_bytes;
    assert!((1 << 20..8 << 20).contains(&changed), "{:#?}", done[1]);
    assert_eq!(
        (state(&daemon, "web").as_str(), moments(&daemon, "web")),
        ("running", 1)
    );

    // Without its checkpoint all of it is read, and that is said.
    let name = daemon.virsh(&["checkpoint-list", "web", "--name"]);
    daemon.virsh(&["checkpoint-delete", "web", name.trim(), "--metadata"]);
    jobs.cycle_now("moved").await.unwrap();
    let third = when(&jobs, |vm| vm.cycles == 3 && vm.current_cycle.is_none()).await;
    assert_eq!(third.failures, 0, "{third:#?}");
    let job = server::db::jobs::by_id(&jobs.world().db, shared::JobId(third.last_copy.unwrap().0)).await;
    let job = job.unwrap().unwrap().job;
    let warnings = &job.outcome.copy.as_ref().unwrap().warnings;
    assert!(
        warnings.iter().any(|w| w.contains("all was read")),
        "{warnings:?}"
    );

    let clone = jobs.migration_clone("moved", CreateMigrationClone::default(), by());
    let clone = ended(&jobs, clone.await.unwrap().id).await;
    assert_eq!(clone.state, JobState::Succeeded, "{clone:#?}");
    let made = clone.resources.iter().find(|r| r.noun == shared::feed::Noun::Vm);
    counts(&jobs, made.unwrap().id.parse().unwrap(), 3).await;
    quiet(&jobs).await;

    // One that is cancelled starts it again.
    let cut = jobs
        .cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap();
    let is_off = |job: &shared::job::Job| {
        job.steps
            .iter()
            .any(|s| s.name == shared::job::step::FINAL_SYNC && s.start_time.is_some())
    };
    until(&jobs, cut.id, is_off).await;
    jobs.cancel(cut.id).await.unwrap();
    assert_eq!(ended(&jobs, cut.id).await.state, JobState::Cancelled);
    assert_eq!(state(&daemon, "web"), "running");
    quiet(&jobs).await;

    let request = CreateCutover {
        power_off_after_seconds: 1,
        ..CreateCutover::default()
    };
    when(&jobs, |vm| {
        vm.state == MigratingState::Active && vm.current_cycle.is_none()
    })
    .await;
    let cut = jobs.cut_over("moved", request, by()).await.unwrap();
    let cut = ended(&jobs, cut.id).await;
    assert_eq!(cut.state, JobState::Succeeded, "{cut:#?}");
    assert!(cut.outcome.downtime_millis.is_some(), "{cut:#?}");
    assert_eq!(is(&jobs).await.state, MigratingState::Cutover);
    assert_eq!(state(&daemon, "web"), "shut off");
    assert!(!daemon.virsh(&["dominfo", "web"]).contains("enable"));
    let last = cycles(&jobs).await.pop().unwrap();
    assert!(last.changed_bytes < size / 2, "{last:#?}");
    counts(&jobs, vm_id(&jobs, "moved").await, 3).await;
    quiet(&jobs).await;
    let end = jobs
        .finalize_migration("moved", Default::default(), by())
        .await
        .unwrap();
    assert_eq!(ended(&jobs, end.id).await.state, JobState::Succeeded);
    assert_eq!(
        (moments(&daemon, "web"), state(&daemon, "web").as_str()),
        (0, "shut off")
    );
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_libvirt_to_read_from_is_refused() {
    let (dir, daemon) = (dir(), Daemon::start());
    let jobs = site(dir.path(), &daemon).await;
    for (uri, field, says) in [
        ("test:///default", Some("libvirt.uri"), "test driver"),
        (
            "qemu+ssh://h/system?command=/bin/sh",
            Some("libvirt.uri"),
            "command",
        ),
        ("qemu:///session?socket=/nowhere", None, "must run on this host"),
    ] {
        let refused = jobs.create_source(at(uri)).await.unwrap_err();
        assert_eq!(refused.field(), field, "{refused}");
        assert!(refused.message.contains(says), "{refused}");
    }
    clean_up(&jobs).await;
}
