//! What clones can do, and what is kept of them.

use crate::support::{by, clean_up, create, engine, kept_ready, vm_id};
use crate::*;
use shared::Code;
use shared::snapshot::TakeSnapshot;

#[tokio::test(flavor = "multi_thread")]
async fn forks_of_forks_live_on_without_their_source_and_can_do_what_every_machine_can() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let mut line = vec![source];
    let deepest = long_run(8, 3);
    for depth in 1..=deepest {
        let parent = *line.last().unwrap();
        let clones = forked(&jobs, parent, named(&[&format!("depth-{depth}")])).await;
        let clone = clones[0].vm;
        let own = format!("depth-{depth}");
        let seen = until(&jobs, clone, |all| all.last().is_some_and(|t| t.2 == own)).await;
        let before = ticks(&jobs, parent);
        assert_eq!(clones[0].nonce.as_ref(), Some(&seen[0].0));
        assert_eq!(clones[0].first_tick, Some(seen[0].1));
        assert!(
            before.iter().any(|t| (&t.0, t.1) == (&seen[0].0, seen[0].1)),
            "{depth}: it goes on where its parent was"
        );
        whole(&seen);
        line.push(clone);
    }
    for &vm in &line {
        whole(&ticks(&jobs, vm));
    }

    // The source goes, and costs its clones nothing.
    off_and_gone(&jobs, source).await;
    let last = *line.last().unwrap();
    let before = ticks(&jobs, last).len();
    counts(&jobs, last, before + 5).await;

    // A fork is a machine like any other.
    let taken = jobs.snapshot(last, TakeSnapshot::default(), by()).await.unwrap();
    succeeded(&jobs, taken.id).await;
    let nonce = ticks(&jobs, last)[0].0.clone();
    let off = jobs.power(last, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    let on = jobs.power(last, PowerAction::Start, by()).await.unwrap();
    succeeded(&jobs, on.id).await;
    let anew = counts(&jobs, last, 3).await;
    assert_ne!(anew[0].0, nonce, "started cold it boots from its own disks");
    assert_eq!(anew[0].2, format!("depth-{deepest}"), "and kept its name");
    let vm = db::vms::by_id(&jobs.world().db, last).await.unwrap().unwrap();
    assert!(vm.network_interfaces.iter().all(|nic| nic.connected));

    for &vm in &line[1..] {
        off_and_gone(&jobs, vm).await;
    }
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_that_is_kept_outlives_its_machine_and_the_server() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let kept = InstantClone {
        keep_point: true,
        point_name: Some("kept".parse().unwrap()),
        config: [("guestinfo.role".to_owned(), "r".repeat(50_000))].into(),
        ..named(&["first"])
    };
    let first = forked(&jobs, source, kept).await.remove(0);
    let point = db::fork_points::find(&jobs.world().db, "kept")
        .await
        .unwrap()
        .unwrap()
        .point;
    assert!(
        point.memory_bytes > 16 << 20 && point.memory_bytes < 128 << 20,
        "{point:#?}"
    );
    assert_eq!(point.clones, 1);
    let refused = jobs.delete_fork_point(point.id, by()).await.unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition, "{refused}");
    for vm in [first.vm, source] {
        off_and_gone(&jobs, vm).await;
    }
    assert_eq!(
        kept_ready(dir.path()).len(),
        1,
        "a process waits for the next fork"
    );
    jobs.stop().await;
    drop(jobs);
    assert_eq!(kept_ready(dir.path()), [], "and ends with the server");

    let jobs = engine(dir.path(), QEMU, None).await;
    let again = InstantClone {
        fork_point: Some("kept".into()),
        ..named(&["again-a", "again-b", "again-c"])
    };
    let clones = forked(&jobs, source, again).await;
    for clone in &clones {
        assert_eq!(
            (&clone.nonce, clone.first_tick),
            (&first.nonce, first.first_tick),
            "the same instant as before"
        );
        whole(&counts(&jobs, clone.vm, 5).await);
    }
    let waiting = kept_ready(dir.path());
    let next = InstantClone {
        fork_point: Some("kept".into()),
        config: [("guestinfo.role".to_owned(), "next".to_owned())].into(),
        ..named(&["next"])
    };
    let mut next = forked(&jobs, source, next).await;
    assert_eq!(
        waiting,
        [next[0].vm],
        "the process that waited has become the next fork"
    );
    whole(&until(&jobs, next[0].vm, |all| all.last().is_some_and(|t| t.2 == "next")).await);
    assert_eq!(next[0].first_tick, first.first_tick, "the same instant as before");
    let other = InstantClone {
        fork_point: Some("kept".into()),
        bios_uuid: Some(uuid::Uuid::new_v4()),
        network_interfaces: Some(ForkNics::Disconnect),
        ..named(&["other"])
    };
    let waiting = kept_ready(dir.path());
    next.extend(forked(&jobs, source, other).await);
    assert_eq!(
        kept_ready(dir.path()),
        waiting,
        "one with another UUID cannot be had by it"
    );
    let connected = async || {
        let vm = db::vms::by_id(&jobs.world().db, next[1].vm).await.unwrap();
        vm.unwrap().network_interfaces[0].connected
    };
    assert!(!connected().await);
    let job = jobs.connect(next[1].vm, true, Default::default(), by()).await;
    succeeded(&jobs, job.unwrap().id).await;
    assert!(connected().await);
    let refused = jobs.connect(next[1].vm, true, Default::default(), by()).await;
    assert_eq!(refused.unwrap_err().code, Code::FailedPrecondition);
    for clone in clones.iter().chain(&next) {
        off_and_gone(&jobs, clone.vm).await;
    }
    let gone = jobs.delete_fork_point(point.id, by()).await.unwrap();
    succeeded(&jobs, gone.id).await;
    assert_eq!(kept_ready(dir.path()), [], "nobody can fork it any more");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_forked_while_a_clone_of_it_is_copied() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let name = "wait-at-preparing-vm-disks";
    let request = serde_json::json!({ "snapshotNow": {}, "mode": "FULL", "target": { "name": name } });
    let copied = jobs
        .clone_vm(source, serde_json::from_value(request).unwrap(), by())
        .await
        .unwrap();
    let sim = jobs.world().hypervisor.clone();
    sim.as_sim().unwrap().until_waiting(name).await;
    for n in 0..2 {
        let taken = jobs
            .snapshot(source, TakeSnapshot::default(), by())
            .await
            .unwrap();
        let fork = jobs
            .instant_clone(source, named(&[&format!("beside-{n}")]), by())
            .await
            .unwrap();
        for job in [taken, fork] {
            succeeded(&jobs, job.id).await;
        }
    }
    let off = jobs.power(source, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    let gone = jobs.delete_vm(source, by()).await.unwrap();
    let now = db::jobs::by_id(&jobs.world().db, copied.id)
        .await
        .unwrap()
        .unwrap();
    assert!(now.job.end_time.is_none(), "it still waits: {:?}", now.job.state);
    let deleting = db::jobs::by_id(&jobs.world().db, gone.id).await.unwrap().unwrap();
    assert_eq!(
        deleting.job.state,
        JobState::Queued,
        "what is copied from stays until then"
    );
    sim.as_sim().unwrap().release(name);
    for job in [copied, gone] {
        succeeded(&jobs, job.id).await;
    }
    clean_up(&jobs).await;
}
