//! Layers that are merged while their machine runs, and what is left where its process ends just then.

use crate::host::Host;
use crate::monitor::Monitor;
use serde_json::json;
use server::disks::blockdev::node_name;
use server::disks::{Disks, LayerFile};
use server::hypervisor::{HvError, Hypervisor, LayerMerge, MachineSpec};
use std::process::Command;

fn io(layer: &LayerFile, commands: &[&str]) -> String {
    let mut io = Command::new("qemu-io");
    io.args(["-f", "qcow2"]);
    for command in commands {
        io.args(["-c", command]);
    }
    let out = io.arg(&layer.path).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(!said.is_empty(), "{out:?}");
    said
}

/// Three layers with something each, the base first, and the machine that runs on them.
async fn machine(host: &mut Host) -> (Vec<LayerFile>, MachineSpec) {
    let base = host.blank().await;
    let middle = host.overlay(&base).await;
    let active = host.overlay(&middle).await;
    io(&base, &["write -P 1 0 1M"]);
    io(&middle, &["write -P 2 10M 3M"]);
    io(&active, &["write -P 3 20M 1M"]);
    let spec = host.machine(&[&base, &middle, &active]);
    host.hv().start(&spec).await.unwrap();
    (vec![base, middle, active], spec)
}

/// What a layer shows through its own head, which is what all go by who are not told what it stands on.
fn shows(layer: &LayerFile, commands: &[&str]) {
    let said = io(layer, commands);
    assert!(!said.contains("verification failed"), "{said}");
}

fn merge(layers: &[LayerFile], frozen: bool) -> LayerMerge {
    LayerMerge {
        into: layers[if frozen { 1 } else { 2 }].clone(),
        frozen,
        base: None,
        between: layers[..if frozen { 1 } else { 2 }]
            .iter()
            .map(|layer| layer.id)
            .collect(),
    }
}

/// The moment in which the layer's head names the others no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_when_layers_were_merged_takes_nothing_along() {
    let mut host = Host::new();
    for frozen in [true, false, true, false] {
        let (layers, spec) = machine(&mut host).await;
        let (mut monitor, pid) = (Monitor::of(host.dir.path(), spec.id), host.pid(spec.id));
        let killed = std::thread::spawn(move || {
            monitor.until("concluded");
            Command::new("kill").args(["-KILL", &pid]).status().unwrap()
        });
        let merge = merge(&layers, frozen);
        let merged = host.hv().merge_layers(spec.id, &merge, &|_, _| ()).await;
        assert!(killed.join().unwrap().success());
        // It may have been told before the kill.
        if let Err(e) = merged {
            assert!(
                matches!(e, HvError::NotRunning { .. } | HvError::Lost { .. }),
                "{e:?}"
            );
        }
        host.hv().kill(spec.id).await.unwrap();
        let mut reads = vec!["read -P 1 0 1M", "read -P 2 10M 3M"];
        if !frozen {
            reads.push("read -P 3 20M 1M");
        }
        shows(&merge.into, &reads);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_an_earlier_server_has_left_is_brought_to_its_end() {
    let mut host = Host::new();
    let (layers, spec) = machine(&mut host).await;
    let merge = merge(&layers, false);
    let node = node_name(merge.into.id);
    let mut monitor = Monitor::of(host.dir.path(), spec.id);
    let begin = json!({
        "job-id": format!("merge-{node}"),
        "device": node,
        "auto-dismiss": false,
        "auto-finalize": false,
    });
    let begun = monitor.ask("block-stream", &begin);
    assert!(begun["error"].is_null(), "{begun}");
    monitor.until("pending");
    host.restart();
    host.hv().adopt(spec.id).await.unwrap();
    for _ in 0..2 {
        host.hv().merge_layers(spec.id, &merge, &|_, _| ()).await.unwrap();
    }
    host.hv().kill(spec.id).await.unwrap();
    for layer in &layers[..2] {
        std::fs::remove_file(&layer.path).unwrap();
    }
    shows(
        &merge.into,
        &["read -P 1 0 1M", "read -P 2 10M 3M", "read -P 3 20M 1M"],
    );
}

/// A linked clone in another storage: what it stands on is named by its whole path.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_on_a_layer_elsewhere_names_it_after_a_merge_too() {
    let mut host = Host::new();
    let elsewhere = host.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for running in [true, false] {
        let base = host.blank().await;
        let mut layers = vec![base];
        for _ in 0..2 {
            let mut layer = host.layer();
            layer.path = elsewhere.join(layer.path.file_name().unwrap());
            let backing = layers.last().unwrap();
            host.disks.create_overlay(&layer, backing, None).await.unwrap();
            layers.push(layer);
        }
        io(&layers[0], &["write -P 1 0 1M"]);
        io(&layers[1], &["write -P 2 10M 3M"]);
        let spec = host.machine(&layers.iter().collect::<Vec<_>>());
        if running {
            host.hv().start(&spec).await.unwrap();
            let merge = LayerMerge {
                base: Some(layers[0].clone()),
                between: vec![layers[1].id],
                ..merge(&layers, false)
            };
            let merged = host.hv().merge_layers(spec.id, &merge, &|_, _| ()).await;
            merged.unwrap();
            host.hv().kill(spec.id).await.unwrap();
        } else {
            let (into, base) = (&layers[2], Some(&layers[0]));
            let merged = host.disks.merge_up(into, &layers[1..2], base, &|_, _| ()).await;
            merged.unwrap();
        }
        std::fs::remove_file(&layers[1].path).unwrap();
        shows(&layers[2], &["read -P 1 0 1M", "read -P 2 10M 3M"]);
    }
}

/// What a host that loses its power may leave: the head is there, and tables are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_has_only_written_the_head_is_made_again() {
    let host = Host::new();
    let base = host.blank().await;
    let top = host.overlay(&base).await;
    io(&base, &["write -P 1 0 1M"]);
    io(&top, &["write -P 2 10M 3M"]);
    let mut head = Command::new("qemu-img");
    head.args(["rebase", "-u", "-f", "qcow2", "-b", ""])
        .arg(&top.path);
    assert!(head.status().unwrap().success());
    for _ in 0..2 {
        let between = std::slice::from_ref(&base);
        host.disks
            .merge_up(&top, between, None, &|_, _| ())
            .await
            .unwrap();
    }
    std::fs::remove_file(&base.path).unwrap();
    shows(&top, &["read -P 1 0 1M", "read -P 2 10M 3M"]);
}
