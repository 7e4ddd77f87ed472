//! Isolated networks: those on one reach each other, and nobody else does.

use crate::support::{by, clean_up, vm_id};
use crate::*;
use server::db::places::NetworkRow;
use shared::NetworkId;
use shared::edit::{ChangeNic, EditVm};
use shared::place::NetworkKind;
use shared::vm::NewNic;

async fn network(jobs: &Jobs, name: &str) {
    let row = NetworkRow {
        id: NetworkId(uuid::Uuid::now_v7()),
        name: name.parse().unwrap(),
        kind: NetworkKind::Isolated,
        bridge: None,
    };
    let db = &jobs.world().db;
    db.write(move |tx| Box::pin(async move { db::places::insert_network(tx, &row).await }))
        .await
        .unwrap();
}

/// A guest on a network, with an address of its own.
async fn on(jobs: &Jobs, name: &str, network: &str, address: &str) -> VmId {
    let mut request = create(name, true);
    request.disks = vec![NewDisk::Image(DiskOfImage {
        image: "counting".into(),
        size_gib: None,
    })];
    request.network_interfaces = Some(vec![NewNic::on(network)]);
    let made = jobs.create_vm(request, by()).await.unwrap();
    succeeded(jobs, made.id).await;
    let vm = vm_id(jobs, name).await;
    counts(jobs, vm, 3).await;
    configure(jobs, vm, address);
    vm
}

fn configure(jobs: &Jobs, vm: VmId, address: &str) {
    guest_says(
        jobs,
        vm,
        &format!("ip link set eth0 up; ip addr flush dev eth0; ip addr add {address}/24 dev eth0"),
    );
}

fn reaches(jobs: &Jobs, vm: VmId, address: &str) -> bool {
    guest_says(
        jobs,
        vm,
        &format!("ping -c 3 -W 3 {address} >/dev/null && echo yes"),
    )
    .contains("yes")
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_on_one_isolated_network_reach_each_other_and_those_on_another_do_not() {
    let dir = support::dir();
    let jobs = support::engine(dir.path(), QEMU, None).await;
    let image = "counting".parse().unwrap();
    jobs.world().register_image(&image, &guest("demo")).await.unwrap();
    for name in ["lab", "other"] {
        network(&jobs, name).await;
    }
    let first = on(&jobs, "first", "lab", "10.9.0.1").await;
    let second = on(&jobs, "second", "lab", "10.9.0.2").await;
    let third = on(&jobs, "third", "other", "10.9.0.3").await;
    assert!(reaches(&jobs, first, "10.9.0.2"));
    assert!(reaches(&jobs, second, "10.9.0.1"));
    assert!(!reaches(&jobs, third, "10.9.0.1"));
    assert!(!reaches(&jobs, first, "10.9.0.3"));

    // The server ends and comes back: its machines have gone on.
    jobs.stop().await;
    drop(jobs);
    let jobs = support::engine(dir.path(), QEMU, None).await;
    assert!(reaches(&jobs, first, "10.9.0.2"));

    // One that moves is among the others from then on.
    let to = EditVm {
        change_nics: vec![ChangeNic {
            nic: 0,
            network: Some("lab".into()),
            mac: None,
            forwards: None,
        }],
        ..EditVm::default()
    };
    let moved = jobs.edit_vm(third, to, by()).await.unwrap();
    succeeded(&jobs, moved.id).await;
    configure(&jobs, third, "10.9.0.3");
    assert!(reaches(&jobs, third, "10.9.0.1"));
    // Forks join only when they have an address of their own.
    let fork = forked(&jobs, first, named(&["forked"])).await.remove(0).vm;
    configure(&jobs, fork, "10.9.0.4");
    assert!(reaches(&jobs, fork, "10.9.0.2"));
    clean_up(&jobs).await;
}
