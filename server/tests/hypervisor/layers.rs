//! Disks without a machine.

use crate::host::{Host, MIB};
use server::disks::{DiskError, Disks};
use std::path::Path;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_names_another_file_is_refused() {
    let host = Host::new();
    let base = host.blank().await;
    let refused = async |path: &Path| match host.disks.inspect(path, None, 1 << 40).await {
        Err(DiskError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert!(
        refused(&host.overlay(&base).await.path)
            .await
            .contains("backing file")
    );
    let path = host.dir.path().join("data-file.qcow2");
    let data = format!("data_file={}", host.dir.path().join("data").display());
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", &data])
        .args([path.as_os_str(), "1M".as_ref()])
        .status();
    assert!(made.unwrap().success());
    assert!(refused(&path).await.contains("another file"));
    std::fs::write(&path, vec![0; 4096]).unwrap();
    assert!(refused(&path).await.contains("not known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cancelled_leaves_what_remove_takes_away() {
    let host = Host::new();
    let base = host.import("demo").await;
    let flat = host.layer();
    let (begun, mut at) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |done, _| {
        let _ = begun.send(done);
    };
    let chain = [base];
    let copy = host.disks.copy_flat(&chain, &flat, &progress);
    tokio::select! {
        done = copy => panic!("not cancelled in time: {done:?}"),
        _ = async { while at.recv().await.is_some_and(|done| done == 0) {} } => {}
    }
    assert!(!flat.path.exists(), "nothing half made under its name");
    for _ in 0..2 {
        host.disks.remove(&flat.path).await.unwrap();
    }
    let left = std::fs::read_dir(host.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|n| n.to_string_lossy().starts_with(&flat.id.to_string()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_may_be_given_and_what_is_there_stays() {
    let host = Host::new();
    let base = host.blank().await;
    let large = host.layer();
    host.disks
        .create_overlay(&large, &base, Some(128 * MIB))
        .await
        .unwrap();
    // A repeat finds it, and does not make it anew.
    host.disks.create_overlay(&large, &base, None).await.unwrap();
    assert_eq!(host.disks.info(&large).await.unwrap().virtual_bytes, 128 * MIB);
    let check = Command::new("qemu-img")
        .arg("check")
        .arg(&large.path)
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
}
