//! Many clones at once, and one after another.

use crate::killed::process;
use crate::support::{by, clean_up, create, engine, vm_id};
use crate::*;
use std::collections::HashSet;

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_go_on_from_one_moment_and_are_all_others() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let count = long_run(64, 6);
    let request = InstantClone {
        count: Some(u32::try_from(count).unwrap()),
        network_interfaces: Some(ForkNics::Keep),
        ..InstantClone::default()
    };
    let clones = forked(&jobs, source, request).await;
    assert_eq!(clones.len(), count);
    let (mut names, mut macs, mut uuids) = (HashSet::new(), HashSet::new(), HashSet::new());
    for clone in &clones {
        assert_eq!(
            (&clone.nonce, clone.first_tick),
            (&clones[0].nonce, clones[0].first_tick)
        );
        let own = clone.name.to_string();
        let seen = until(&jobs, clone.vm, |all| all.last().is_some_and(|t| t.2 == own)).await;
        whole(&seen);
        let vm = db::vms::by_id(&jobs.world().db, clone.vm).await.unwrap().unwrap();
        names.insert(own);
        uuids.insert(vm.bios_uuid);
        macs.extend(vm.network_interfaces.iter().map(|nic| nic.mac.clone()));
    }
    assert_eq!((names.len(), macs.len(), uuids.len()), (count, count, count));
    whole(&ticks(&jobs, source));
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_at_once_on_the_simulation() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let request = InstantClone {
        count: Some(64),
        ..InstantClone::default()
    };
    let job = jobs.instant_clone(source, request, by()).await.unwrap();
    let job = succeeded(&jobs, job.id).await;
    assert_eq!(job.outcome.into_inner().fork.unwrap().clones.len(), 64);
    clean_up(&jobs).await;
}

/// How many layers the first disk of a machine has, and how many files there are for each disk.
async fn layers(jobs: &Jobs, dir: &Path, vm: VmId) -> (usize, usize) {
    let vm = db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap();
    let chain = db::layers::chain_of(&jobs.world().db, vm.disks[0].layer).await;
    let files = std::fs::read_dir(dir.join("layers")).unwrap().count();
    (chain.unwrap().len(), files / vm.disks.len())
}

fn descriptors(pid: impl std::fmt::Display) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Forks a machine again and again, and removes each clone; nothing grows.
async fn again_and_again(jobs: &Jobs, dir: &Path, source: VmId, times: usize) {
    let pid = || process(dir, source);
    let (mut pauses, mut most, mut first) = (Vec::new(), (0, 0, 0, 0), None);
    for n in 0..times {
        let job = jobs
            .instant_clone(source, named(&[&format!("again-{n}")]), by())
            .await
            .unwrap();
        let job = succeeded(jobs, job.id).await;
        pauses.extend(job.outcome.pause_micros);
        let clone = job.outcome.into_inner().fork.unwrap().clones[0].vm;
        off_and_gone(jobs, clone).await;
        let (chain, files) = layers(jobs, dir, source).await;
        let of_source = pid().map_or(0, descriptors);
        let own = descriptors("self");
        // Each layer has one; what the devices have is more with every QEMU, and somebody may be connected just now.
        let others = of_source.saturating_sub(chain);
        let at_first = *first.get_or_insert(others);
        assert!(
            others <= at_first + 4,
            "{n}: {others} descriptors, {at_first} at first"
        );
        assert!(chain <= 10 && files <= 11, "{n}: {chain} layers in {files} files");
        most = (
            most.0.max(chain),
            most.1.max(files),
            most.2.max(of_source),
            most.3.max(own),
        );
    }
    eprintln!(
        "{times} forks: at most {most:?} layers, files, descriptors of QEMU and of the server; pauses {pauses:?}"
    );
    assert!(most.0 > 6, "its chain has grown, and been cut: {most:?}");
    assert!(most.3 <= 200, "{most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_again_and_again_on_the_simulation_nothing_grows() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    again_and_again(&jobs, dir.path(), source, long_run(300, 40)).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_again_and_again_nothing_grows_and_its_disk_stays_whole() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    again_and_again(&jobs, dir.path(), source, long_run(100, 10)).await;
    whole(&ticks(&jobs, source));
    let nonce = ticks(&jobs, source)[0].0.clone();
    for action in [PowerAction::PowerOff, PowerAction::Start] {
        let job = jobs.power(source, action, by()).await.unwrap();
        succeeded(&jobs, job.id).await;
    }
    let anew = counts(&jobs, source, 3).await;
    assert_ne!(anew[0].0, nonce, "it boots from what was merged");
    clean_up(&jobs).await;
}
