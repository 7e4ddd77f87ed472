//! Machines without a system, or with one of 512 bytes.

use crate::host::{Host, is_png, next};
use server::disks::{Disks, LayerFile};
use server::hypervisor::{
    BootError, Control, DiskSpec, DiskSwitch, Ended, HvError, Hypervisor, NicSpec, RunState,
};
use shared::NetworkId;
use shared::clone::ProofStrength;
use shared::place::NetworkKind;
use shared::vm::PauseReason;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_machine_is_started_paused_adopted_and_killed() {
    let mut host = Host::new();
    let spec = {
        let disk = host.blank().await;
        let mut spec = host.machine(&[&disk]);
        let nic = |number, kind| NicSpec {
            number,
            slot: 5 + number,
            network: NetworkId(uuid::Uuid::nil()),
            forwards: Vec::new(),
            mac: "52:54:00:12:34:56".into(),
            kind,
            bridge: None,
            connected: true,
        };
        spec.nics = vec![nic(0, NetworkKind::User), nic(1, NetworkKind::Isolated)];
        spec
    };
    let vm = spec.id;
    let mut events = host.hv().events();
    assert_eq!(host.hv().state(vm).await, RunState::Stopped);
    assert!(matches!(
        host.hv().screen(vm).await,
        Err(HvError::NotRunning { .. })
    ));

    for _ in 0..2 {
        host.hv().start(&spec).await.unwrap();
    }
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    let Err(BootError::NoBootableDevice(line)) = host.boots(vm, 60).await else {
        panic!("it cannot boot")
    };
    assert!(line.contains("No bootable device"), "{line}");
    assert!(is_png(&host.hv().screen(vm).await.unwrap()));
    assert!(matches!(host.hv().quiesce(vm).await, Err(HvError::NoAgent(_))));
    assert!(matches!(
        host.hv().forget(vm).await,
        Err(HvError::StillRunning { .. })
    ));

    let paused = RunState::Paused(PauseReason::User);
    host.hv().control(vm, Control::Pause).await.unwrap();
    assert_eq!(next(&mut events).await, (paused, None));

    // The server ends, the machine does not.
    host.restart();
    let mut events = host.hv().events();
    assert_eq!(host.hv().adopt(vm).await.unwrap(), paused);
    assert_eq!(next(&mut events).await, (paused, None));
    host.hv().control(vm, Control::Resume).await.unwrap();
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    host.hv().control(vm, Control::Reset).await.unwrap();

    for _ in 0..2 {
        host.hv().kill(vm).await.unwrap();
    }
    assert_eq!(next(&mut events).await, (RunState::Stopped, Some(Ended::Killed)));
    assert_eq!(host.hv().adopt(vm).await.unwrap(), RunState::Stopped);
    for _ in 0..2 {
        host.hv().forget(vm).await.unwrap();
    }
    assert!(!host.hv().serial_log(vm).exists());
    assert!(events.try_recv().is_err(), "each change is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_nobody_waits_for_leaves_a_machine_that_can_be_killed() {
    let mut host = Host::new();
    let disk = host.blank().await;
    let spec = host.machine(&[&disk]);
    let mut events = host.hv().events();
    // Polled once: it has begun.
    assert!(futures::FutureExt::now_or_never(host.hv().start(&spec)).is_none());
    host.hv().kill(spec.id).await.unwrap();
    host.hv().start(&spec).await.unwrap();
    assert_eq!(host.hv().state(spec.id).await, RunState::Running);
    host.hv().kill(spec.id).await.unwrap();
    assert_eq!(host.hv().state(spec.id).await, RunState::Stopped);
    while let Ok(event) = events.try_recv() {
        assert_eq!(event.vm, spec.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_start_says_why() {
    let mut host = Host::new();
    let disk = host.blank().await;
    let running = host.machine(&[&disk]);
    host.hv().start(&running).await.unwrap();
    let second = host.machine(&[&disk]);
    let why = host.hv().start(&second).await.unwrap_err().to_string();
    assert!(why.contains("lock"), "{why}");
    assert_eq!(host.hv().state(second.id).await, RunState::Stopped);

    let missing = host.layer();
    let spec = host.machine(&[&missing]);
    let why = host.hv().start(&spec).await.unwrap_err().to_string();
    assert!(why.contains("No such file"), "{why}");

    let mut bridged = host.machine(&[&missing]);
    let bridge = Some("none0".into());
    bridged.nics = vec![NicSpec {
        number: 0,
        slot: 5,
        network: NetworkId(uuid::Uuid::nil()),
        forwards: Vec::new(),
        mac: "52:54:00:00:00:01".into(),
        connected: true,
        kind: NetworkKind::Bridge,
        bridge,
    }];
    let refused = host.hv().start(&bridged).await.unwrap_err().to_string();
    assert!(refused.contains("no such bridge"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_shot_is_told_as_crashed() {
    let mut host = Host::new();
    let disk = host.blank().await;
    let spec = host.machine(&[&disk]);
    let mut events = host.hv().events();
    host.hv().start(&spec).await.unwrap();
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    let record = host
        .dir
        .path()
        .join("run")
        .join(spec.id.to_string())
        .join("process");
    let pid = std::fs::read_to_string(record)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    let (state, Some(Ended::Crashed(why))) = next(&mut events).await else {
        panic!("not told as crashed")
    };
    assert_eq!(state, RunState::Stopped);
    assert!(why.contains("signal 9"), "{why}");
    assert!(matches!(host.boots(spec.id, 5).await, Err(BootError::Ended(_))));
}

/// A disk whose boot sector writes `text` to the serial port, and then, if it is to, tells that the kernel panicked.
async fn writes(host: &Host, text: &str, panics: bool) -> LayerFile {
    const TEXT_AT: u8 = 0x40;
    let mut sector = vec![
        0xfc, // cld
        0x31, 0xc0, 0x8e, 0xd8, // ds = 0
        0xbe, TEXT_AT, 0x7c, // si = the text
        0xba, 0xf8, 0x03, // dx = the serial port
        0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // out, until the zero
    ];
    if panics {
        sector.extend([0xba, 0x05, 0x05, 0xb0, 0x01, 0xee]); // pvpanic
    }
    sector.extend([0xf4, 0xeb, 0xfd]); // halt for ever
    sector.resize(TEXT_AT.into(), 0);
    sector.extend(text.bytes());
    assert!(sector.len() < 510);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    let (raw, qcow2) = (
        host.dir.path().join("sector"),
        host.dir.path().join("sector.qcow2"),
    );
    std::fs::write(&raw, sector).unwrap();
    let made = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &qcow2])
        .status();
    assert!(made.unwrap().success());
    let layer = host.layer();
    host.import_to(&layer, &qcow2).await;
    layer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_says_it_panicked_stands_still_until_it_is_reset() {
    let mut host = Host::new();
    let disk = writes(&host, "Linux version 6\r\nOops\r\n", true).await;
    let spec = host.machine(&[&disk]);
    let vm = spec.id;
    let mut events = host.hv().events();
    host.hv().start(&spec).await.unwrap();
    let Err(BootError::Panic(line)) = host.boots(vm, 60).await else {
        panic!("it panics")
    };
    assert_eq!(line, "Oops");
    let panicked = RunState::Paused(PauseReason::GuestPanicked);
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    assert_eq!(next(&mut events).await, (panicked, None));
    assert!(is_png(&host.hv().screen(vm).await.unwrap()));
    host.hv().control(vm, Control::Reset).await.unwrap();
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    assert_eq!(next(&mut events).await, (panicked, None), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_without_an_agent_is_booted_when_it_has_settled() {
    let mut host = Host::new();
    let disk = writes(
        &host,
        "Linux version 6\r\nRun /sbin/init as init process\r\nweb login: ",
        false,
    )
    .await;
    let spec = host.machine(&[&disk]);
    host.hv().start(&spec).await.unwrap();
    let asked = host.sees(spec.id, "^web login: $").await.unwrap();
    assert_eq!(
        (asked.strength, asked.matched.as_deref()),
        (ProofStrength::Serial, Some("web login:"))
    );
    let proof = host.boots(spec.id, 60).await.unwrap();
    assert_eq!(
        (proof.strength, proof.matched.as_deref()),
        (ProofStrength::Serial, Some("Linux version 6"))
    );
    assert!(
        proof.boot_millis >= Some(10_000),
        "not before it has settled: {proof:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_on_one_base_are_frozen_all_or_none() {
    let mut host = Host::new();
    let base = host.blank().await;
    let (a, b) = (host.overlay(&base).await, host.overlay(&base).await);
    let mut spec = host.machine(&[&base, &a]);
    spec.disks.push(DiskSpec {
        number: 1,
        slot: 5,
        chain: vec![base.clone(), b.clone()],
    });
    host.hv().start(&spec).await.unwrap();

    let good = DiskSwitch {
        old: a.clone(),
        new: host.overlay(&a).await,
    };
    let missing = DiskSwitch {
        old: b.clone(),
        new: host.layer(),
    };
    let refused = host
        .hv()
        .freeze_disks(spec.id, &[good.clone(), missing.clone()])
        .await;
    assert!(matches!(refused, Err(HvError::Refused { .. })), "{refused:?}");
    // What was refused left nothing behind: the same, once all is there, is taken.
    host.disks.create_overlay(&missing.new, &b, None).await.unwrap();
    let switch = [good, missing];
    assert!(host.hv().freeze_disks(spec.id, &switch).await.unwrap().micros > 0);
    assert_eq!(host.hv().freeze_disks(spec.id, &switch).await.unwrap().micros, 0);
    // The frozen layers are nobody's to write: another machine can stand on them.
    let over = host.overlay(&a).await;
    let clone = host.machine(&[&base, &a, &over]);
    host.hv().start(&clone).await.unwrap();
    // The same from the beginning: what the disks stand on now.
    host.hv().kill(spec.id).await.unwrap();
    for (disk, switched) in spec.disks.iter_mut().zip(&switch) {
        disk.chain.push(switched.new.clone());
    }
    host.hv().start(&spec).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_monitor_is_connected_to_again() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut host = Host::new();
    let disk = host.blank().await;
    let spec = host.machine(&[&disk]);
    let vm = spec.id;
    let mut events = host.hv().events();
    host.hv().start(&spec).await.unwrap();
    assert_eq!(next(&mut events).await, (RunState::Running, None));

    // The second monitor, which nobody uses yet: it cuts the first, and pauses the machine unseen.
    let socket = host.dir.path().join("run").join(vm.to_string()).join("watch");
    let (read, mut write) = tokio::net::UnixStream::connect(socket)
        .await
        .unwrap()
        .into_split();
    let mut lines = BufReader::new(read).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("QMP"));
    for command in [
        r#"{"execute":"qmp_capabilities"}"#,
        r#"{"execute":"yank","arguments":{"instances":[{"type":"chardev","id":"qmp"}]}}"#,
        r#"{"execute":"stop"}"#,
    ] {
        write.write_all(command.as_bytes()).await.unwrap();
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(!line.contains("error"), "{line}");
            if line.contains("return") {
                break;
            }
        }
    }
    assert_eq!(
        next(&mut events).await,
        (RunState::Paused(PauseReason::User), None)
    );
    host.hv().control(vm, Control::Resume).await.unwrap();
    assert_eq!(next(&mut events).await, (RunState::Running, None));
}
