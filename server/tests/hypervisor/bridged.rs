//! Machines on a bridge of the host, in a network namespace of its own: for that the tests have to run as root.

use crate::fork::agent;
use crate::host::Host;
use serde_json::json;
use server::hypervisor::{Hypervisor, MachineSpec, NicSpec, RunState};
use shared::NetworkId;
use shared::place::NetworkKind;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "OFFSHOOT_TEST_BRIDGE";

/// With a `/sys` of its own, which tells of its interfaces and not of the host's.
fn unshared(command: &str) -> Command {
    let mut unshare = Command::new("unshare");
    let script = format!("mount -t sysfs sysfs /sys && {command}");
    unshare.args(["--net", "--mount", "sh", "-c", &script]);
    unshare
}

#[test]
fn machines_on_a_bridge_reach_each_other_by_taps_that_come_and_go() {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(on_a_bridge());
    }
    let may = unshared("ip link add br0 type bridge").output();
    if !may.as_ref().is_ok_and(|out| out.status.success()) {
        eprintln!("NOT TESTED: no bridge can be made here: {may:?}");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let name = "bridged::machines_on_a_bridge_reach_each_other_by_taps_that_come_and_go";
    let run = format!("exec {} --exact {name} --nocapture", own.display());
    let done = unshared(&run).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stdout)
    );
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

fn taps() -> usize {
    let ports = std::fs::read_dir("/sys/class/net/br0/brif").unwrap();
    ports.count()
}

async fn guest(host: &mut Host, n: u8) -> MachineSpec {
    let base = host.import("demo").await;
    let mut spec = host.machine(&[&base]);
    spec.nics = vec![NicSpec {
        number: 0,
        slot: 5,
        mac: format!("52:54:00:bb:00:0{n}"),
        kind: NetworkKind::Bridge,
        network: NetworkId(uuid::Uuid::nil()),
        forwards: Vec::new(),
        bridge: Some("br0".into()),
        connected: true,
    }];
    host.hv().start(&spec).await.unwrap();
    host.boots(spec.id, 120).await.unwrap();
    let address = format!("ip link set eth0 up; ip addr flush dev eth0; ip addr add 10.8.0.{n}/24 dev eth0");
    let run = json!({ "path": "/bin/sh", "arg": ["-c", address] });
    agent(host, spec.id, "guest-exec", &run).unwrap();
    spec
}

async fn on_a_bridge() {
    ip("link set lo up");
    ip("link add br0 type bridge");
    ip("link set br0 up");
    let mut host = Host::new();
    let (mut first, second) = (guest(&mut host, 1).await, guest(&mut host, 2).await);
    assert_eq!(taps(), 2);
    let ping = "ping -c 5 -W 5 10.8.0.2 >/dev/null && echo it is reached >/dev/ttyS0";
    let run = json!({ "path": "/bin/sh", "arg": ["-c", ping] });
    agent(&host, first.id, "guest-exec", &run).unwrap();
    host.sees(first.id, "it is reached").await.unwrap();

    first.nics[0].connected = false;
    host.hv().connect(&first).await.unwrap();
    assert_eq!(taps(), 1, "with its cable out it has no tap");
    first.nics[0].connected = true;
    host.hv().connect(&first).await.unwrap();
    assert_eq!(taps(), 2);
    host.hv().kill(first.id).await.unwrap();
    assert_eq!(taps(), 1, "its tap goes with it");
    let run = json!({ "path": "/sbin/poweroff", "arg": ["-f"] });
    agent(&host, second.id, "guest-exec", &run).ok();
    while host.hv().state(second.id).await != RunState::Stopped {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(taps(), 0, "also when it ends by itself");
    for spec in [&first, &second] {
        host.hv().forget(spec.id).await.unwrap();
    }
    assert!(Path::new("/sys/class/net/br0").exists());
}
