use super::*;
use crate::disks::{Disks, SimDisks};
use uuid::Uuid;

fn machine(name: &str) -> MachineSpec {
    MachineSpec {
        id: VmId(Uuid::now_v7()),
        name: name.parse().unwrap(),
        cpus: 1,
        memory_mib: 256,
        bios_uuid: Uuid::nil(),
        vmgenid: Uuid::nil(),
        disks: Vec::new(),
        firmware: None,
        seed: None,
        seed_slot: 0,
        nics: Vec::new(),
        config: Default::default(),
    }
}

#[test]
fn a_name_asks_at_its_step_only() {
    assert!(asks("fail-at-copy", "fail-at-", "copy"));
    assert!(asks("fail-at-copy-7", "fail-at-", "copy"));
    assert!(!asks("fail-at-copying", "fail-at-", "copy"));
    assert!(!asks("wait-at-copy", "fail-at-", "copy"));
    assert!(!asks("web-fail-at-copy", "fail-at-", "copy"));
}

#[tokio::test]
async fn gates_fail_wait_and_are_released() {
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::new(dir.path()).unwrap();
    sim.gate(&["web", "fail-at-copy"], "start").await.unwrap();
    let failed = sim.gate(&["web", "fail-at-copy-2"], "copy").await;
    assert!(matches!(failed, Err(HvError::Simulated { .. })), "{failed:?}");

    // One who goes away waits no longer.
    let mut waiting = Box::pin(sim.gate(&["wait-at-copy"], "copy"));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("nobody released it"),
        () = sim.until_waiting("wait-at-copy") => {
            assert_eq!(sim.waiting(), [("wait-at-copy".into(), "copy".into())]);
        }
    }
    drop(waiting);
    assert_eq!(sim.waiting(), []);

    let release = async {
        sim.until_waiting("wait-at-copy").await;
        sim.release("wait-at-copy");
    };
    let (passed, ()) = tokio::join!(sim.gate(&["wait-at-copy"], "copy"), release);
    passed.unwrap();
    sim.gate(&["wait-at-copy"], "copy")
        .await
        .expect("released for ever");
}

#[tokio::test]
async fn machines_survive_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (machine("a"), machine("b"));
    let sim = Sim::new(dir.path()).unwrap();
    let mut events = sim.events();
    assert_eq!(sim.state(a.id).await, RunState::Stopped);
    for _ in 0..2 {
        sim.start(&a).await.unwrap();
        sim.start(&b).await.unwrap();
    }
    sim.control(b.id, Control::Pause).await.unwrap();
    let paused = RunState::Paused(PauseReason::User);
    for (vm, state) in [
        (a.id, RunState::Running),
        (b.id, RunState::Running),
        (b.id, paused),
    ] {
        assert_eq!(
            events.try_recv().unwrap(),
            MachineEvent {
                vm,
                state,
                ended: None
            }
        );
    }
    assert!(events.try_recv().is_err());

    let sim = Sim::new(dir.path()).unwrap();
    assert_eq!(sim.adopt(a.id).await.unwrap(), RunState::Running);
    assert_eq!(sim.adopt(b.id).await.unwrap(), paused);
    assert!(matches!(
        sim.forget(a.id).await,
        Err(HvError::StillRunning { .. })
    ));
    let mut events = sim.events();
    sim.control(a.id, Control::ShutDown).await.unwrap();
    for _ in 0..2 {
        sim.kill(b.id).await.unwrap();
        sim.forget(b.id).await.unwrap();
    }
    let ended = |e: MachineEvent| (e.vm, e.ended.unwrap());
    assert_eq!(ended(events.try_recv().unwrap()), (a.id, Ended::GuestShutDown));
    assert_eq!(ended(events.try_recv().unwrap()), (b.id, Ended::Killed));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(Sim::new(dir.path()).unwrap().state(a.id).await, RunState::Stopped);
}

#[tokio::test]
async fn a_guest_boots_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::new(dir.path()).unwrap();
    let vm = machine("web");
    let expect = |pattern: Option<&str>| BootExpectation {
        pattern: pattern.map(|p| regex::Regex::new(p).unwrap()),
        timeout: Duration::from_secs(1),
    };
    assert!(matches!(
        sim.watch_boot(vm.id, &expect(None), &|_| {}).await,
        Err(BootError::Ended(_))
    ));
    sim.start(&vm).await.unwrap();
    let proof = sim.watch_boot(vm.id, &expect(None), &|_| {}).await.unwrap();
    assert_eq!(proof.strength, ProofStrength::Agent);
    let proof = sim
        .watch_boot(vm.id, &expect(Some("^web login")), &|_| {})
        .await
        .unwrap();
    assert_eq!(
        (proof.strength, proof.matched.as_deref()),
        (ProofStrength::Serial, Some("web login: "))
    );
    let never = sim.watch_boot(vm.id, &expect(Some("never")), &|_| {}).await;
    assert!(matches!(never, Err(BootError::Timeout { .. })));
    assert!(sim.screen(vm.id).await.unwrap().starts_with(b"\x89PNG"));
}

#[tokio::test]
async fn layers_have_sizes_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let layer = |name: &str| LayerFile {
        id: LayerId(Uuid::now_v7()),
        path: dir.path().join(name),
        shown: None,
    };
    let (base, over, flat) = (layer("base"), layer("over"), layer("flat"));
    let disks = SimDisks;
    assert!(
        disks.create_overlay(&over, &base, None).await.is_err(),
        "on nothing"
    );
    disks.create_blank(&base, 1 << 30).await.unwrap();
    disks.create_overlay(&over, &base, Some(2 << 30)).await.unwrap();
    disks
        .create_overlay(&over, &base, None)
        .await
        .expect("it is there");
    let told = std::sync::Mutex::new(Vec::new());
    disks
        .copy_flat(&[base, over], &flat, &|done, total| {
            told.lock().unwrap().push((done, total))
        })
        .await
        .unwrap();
    assert_eq!(SimDisks.info(&flat).await.unwrap().virtual_bytes, 2 << 30);
    assert!(
        told.into_inner()
            .unwrap()
            .last()
            .is_some_and(|(done, total)| done == total)
    );
    for _ in 0..2 {
        disks.remove(&flat.path).await.unwrap();
    }
    assert!(disks.info(&flat).await.is_err());
}
