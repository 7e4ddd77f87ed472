//! Machines with the demo guest.

use crate::host::{Host, MIB, is_png, next};
use server::disks::{DiskError, Disks, LayerFile};
use server::hypervisor::{BootError, Control, DiskSpec, DiskSwitch, Ended, HvError, Hypervisor, RunState};
use shared::LayerId;
use shared::clone::ProofStrength;
use shared::vm::{CloudInit, PauseReason};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_is_frozen_cloned_and_shut_down() {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let spec = host.machine(&[&base, &first]);
    let vm = spec.id;
    host.hv().start(&spec).await.unwrap();
    let proof = host.boots(vm, 120).await.unwrap();
    assert_eq!(proof.strength, ProofStrength::Agent);
    assert!(proof.boot_millis.is_some_and(|ms| ms > 100), "{proof:?}");
    let seen = host.sees(vm, r"offshoot-guest nonce=\w+ tick=\d+").await.unwrap();
    assert_eq!(seen.strength, ProofStrength::Serial);

    // Quiesced, and not: repeated, it is left as it is.
    assert!(host.hv().quiesce(vm).await.unwrap() > 0);
    let second = host.overlay(&first).await;
    let switch = [DiskSwitch {
        old: first.clone(),
        new: second.clone(),
    }];
    let frozen = host.hv().freeze_disks(vm, &switch).await.unwrap();
    assert!((1..5_000_000).contains(&frozen.micros), "{frozen:?}");
    assert_eq!(host.hv().freeze_disks(vm, &switch).await.unwrap().micros, 0);
    for _ in 0..2 {
        host.hv().unquiesce(vm).await.unwrap();
    }
    let third = host.overlay(&second).await;
    let switch = [DiskSwitch {
        old: second.clone(),
        new: third.clone(),
    }];
    host.hv().freeze_disks(vm, &switch).await.unwrap();
    let wrong = [DiskSwitch {
        old: first.clone(),
        new: host.overlay(&first).await,
    }];
    assert!(matches!(
        host.hv().freeze_disks(vm, &wrong).await,
        Err(HvError::NotActive { .. })
    ));

    // A linked clone stands on the frozen layer while the source runs, and has an identity of its own.
    let overlay = host.overlay(&first).await;
    let mut clone = host.machine(&[&base, &first, &overlay]);
    let seed = host.dir.path().join("seed");
    host.disks
        .write_seed(&seed, "i-2", "the-clone", &CloudInit::default())
        .await
        .unwrap();
    (clone.seed, clone.seed_slot) = (Some(seed), 5);
    host.hv().start(&clone).await.unwrap();
    host.sees(clone.id, r"offshoot-guest nonce=\w+ tick=\d+ host=the-clone")
        .await
        .unwrap();

    // A full clone shows what the frozen chain shows.
    let flat = host.layer();
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |done, total| told.lock().unwrap().push((done, total));
    let chain = [base.clone(), first.clone()];
    host.disks.copy_flat(&chain, &flat, &progress).await.unwrap();
    let told = told.into_inner().unwrap();
    assert!(
        told.len() > 10 && told.is_sorted_by_key(|(done, _)| *done),
        "{told:?}"
    );
    assert!(told.iter().all(|(done, total)| done <= total) && told.last().is_some_and(|(d, t)| d == t));
    host.disks
        .copy_flat(&chain, &flat, &|_, _| {})
        .await
        .expect("it is there");
    let same = Command::new("qemu-img")
        .args(["compare", "-U"])
        .args([&first.path, &flat.path])
        .output()
        .unwrap();
    assert!(same.status.success(), "{same:?}");
    let info = |path: &Path| {
        let out = Command::new("qemu-img")
            .args(["info", "-U", "--output=json"])
            .arg(path)
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    assert!(info(&flat.path).get("backing-filename").is_none());
    assert_eq!(
        info(&flat.path)["virtual-size"],
        host.disks.info(&flat).await.unwrap().virtual_bytes
    );

    // One boot, and no tick lost.
    let ticks = host.ticks(vm);
    let field = |line: &str, key: &str| {
        let rest = line.split(key).nth(1).unwrap();
        rest.split(' ').next().unwrap().to_owned()
    };
    let nonce = field(&ticks[0], "nonce=");
    for (n, line) in ticks[..ticks.len() - 1].iter().enumerate() {
        assert_eq!(
            (field(line, "nonce="), field(line, "tick=")),
            (nonce.clone(), (n + 1).to_string())
        );
    }

    // A log that is cut goes on at its beginning.
    std::fs::File::options()
        .write(true)
        .open(host.hv().serial_log(vm))
        .unwrap()
        .set_len(0)
        .unwrap();
    host.sees(vm, r"offshoot-guest nonce=\w+ tick=\d+ host=\w+$")
        .await
        .unwrap();
    assert!(!std::fs::read(host.hv().serial_log(vm)).unwrap().contains(&0));

    let mut events = host.hv().events();
    host.hv().control(vm, Control::ShutDown).await.unwrap();
    assert_eq!(
        next(&mut events).await,
        (RunState::Stopped, Some(Ended::GuestShutDown))
    );
    // It stands on four layers now, and boots from them.
    let mut again = spec.clone();
    again.disks = vec![DiskSpec {
        number: 0,
        slot: 4,
        chain: vec![base, first, second, third],
    }];
    host.hv().start(&again).await.unwrap();
    assert_eq!(host.boots(vm, 120).await.unwrap().strength, ProofStrength::Agent);
    let ticks = host
        .sees(vm, r"offshoot-guest nonce=")
        .await
        .unwrap()
        .matched
        .unwrap();
    assert_ne!(field(&ticks, "nonce="), nonce, "another boot");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_frozen_is_thawed_by_the_next_server() {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let disk = host.overlay(&base).await;
    let spec = host.machine(&[&base, &disk]);
    host.hv().start(&spec).await.unwrap();
    assert_eq!(
        host.boots(spec.id, 120).await.unwrap().strength,
        ProofStrength::Agent
    );
    assert!(host.hv().quiesce(spec.id).await.unwrap() > 0);
    let socket = host
        .dir
        .path()
        .join("run")
        .join(spec.id.to_string())
        .join("agent");
    assert_eq!(ask_agent(&socket).await, "frozen");
    host.restart();
    assert_eq!(host.hv().adopt(spec.id).await.unwrap(), RunState::Running);
    let thawed = async { while ask_agent(&socket).await != "thawed" {} };
    tokio::time::timeout(Duration::from_secs(60), thawed)
        .await
        .expect("thawed");
}

/// Whether the file systems are frozen, asked past the server.
async fn ask_agent(socket: &Path) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
    let mut agent = BufStream::new(tokio::net::UnixStream::connect(socket).await.unwrap());
    agent
        .write_all(b"{\"execute\":\"guest-fsfreeze-status\"}\n")
        .await
        .unwrap();
    agent.flush().await.unwrap();
    let mut answer = String::new();
    agent.read_line(&mut answer).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    answer["return"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_no_boot() {
    let mut host = Host::new();
    let base = host.import("panic").await;
    let disk = host.overlay(&base).await;
    let spec = host.machine(&[&base, &disk]);
    host.hv().start(&spec).await.unwrap();
    let Err(BootError::Panic(line)) = host.boots(spec.id, 120).await else {
        panic!("it panics")
    };
    assert!(line.contains("Kernel panic"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_loader_that_waits_is_displayed_not_booted() {
    let mut host = Host::new();
    let base = host.import("menu").await;
    let disk = host.overlay(&base).await;
    let spec = host.machine(&[&base, &disk]);
    host.hv().start(&spec).await.unwrap();
    host.sees(spec.id, "boot: ?$").await.unwrap();
    let Err(e @ BootError::Timeout { .. }) = host.boots(spec.id, 3).await else {
        panic!("it never boots")
    };
    let why = e.to_string();
    assert!(
        why.contains("displayed, not booted") && why.contains("serial port last said"),
        "{why}"
    );
    assert!(is_png(&host.hv().screen(spec.id).await.unwrap()));
}

/// Runs `test` again in a mount namespace of its own, where it may mount; returns whether this is that run.
fn in_namespace(test: &str) -> bool {
    const INSIDE: &str = "OFFSHOOT_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let root = rustix::process::geteuid().is_root();
    let run = Command::new("unshare")
        .args(if root {
            &["--mount"][..]
        } else {
            &["--mount", "--map-root-user"]
        })
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(
        run.expect("unshare, of util-linux").success(),
        "failed in its namespace"
    );
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_pauses_guests_and_room_lets_them_go_on() {
    if !in_namespace("guest::a_full_host_pauses_guests_and_room_lets_them_go_on") {
        return;
    }
    let mut host = Host::new();
    let base = host.import("demo").await;
    let small = host.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "small"])
        .arg(&small)
        .status();
    assert!(mounted.unwrap().success());
    let id = LayerId(Uuid::now_v7());
    let disk = LayerFile {
        id,
        path: small.join("disk.qcow2"),
        shown: None,
    };
    host.disks.create_overlay(&disk, &base, None).await.unwrap();
    let free = host.disks.space(&small).await.unwrap().free;
    let ballast = small.join("ballast");
    std::fs::write(&ballast, vec![1; free as usize]).unwrap();

    let copy = LayerFile {
        id: LayerId(Uuid::now_v7()),
        path: small.join("copy.qcow2"),
        shown: None,
    };
    let refused = host
        .disks
        .copy_flat(std::slice::from_ref(&base), &copy, &|_, _| {})
        .await;
    let Err(DiskError::NoSpace { need, free, dir }) = refused else {
        panic!("{refused:?}")
    };
    assert!(need > 10 * MIB && free < MIB && dir == small);

    let spec = host.machine(&[&base, &disk]);
    let mut events = host.hv().events();
    host.hv().start(&spec).await.unwrap();
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    // It mounts its root, and with that writes.
    let full = RunState::Paused(PauseReason::NoSpace);
    assert_eq!(next(&mut events).await, (full, None));
    // The next server knows why, too.
    host.restart();
    let mut events = host.hv().events();
    assert_eq!(host.hv().adopt(spec.id).await.unwrap(), full);
    assert_eq!(next(&mut events).await, (full, None));
    std::fs::remove_file(&ballast).unwrap();
    host.hv().hurry().await;
    assert_eq!(next(&mut events).await, (RunState::Running, None));
    assert_eq!(
        host.boots(spec.id, 120).await.unwrap().strength,
        ProofStrength::Agent
    );
}
