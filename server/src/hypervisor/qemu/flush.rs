//! What QEMU has written into files goes to the disk before it has to see to that itself: while it does, its guest's devices
//! stand still.

use crate::hypervisor::DiskSwitch;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// How long the freezing of disks may wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Has what was written to files go to the disk.
pub async fn flush(files: Vec<PathBuf>) {
    let flushed = tokio::task::spawn_blocking(move || {
        for file in files {
            // What goes wrong here goes wrong again in QEMU, and is said then.
            let _ = std::fs::File::open(file).and_then(|f| f.sync_data());
        }
    });
    let _ = flushed.await;
}

/// Has what a guest has written go to the disk, as far as that does not take long.
pub async fn before_freezing(switch: &[DiskSwitch]) {
    let files = switch.iter().map(|disk| disk.old.path.clone()).collect();
    let _ = timeout(PATIENCE, flush(files)).await;
}
