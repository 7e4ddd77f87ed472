//! What is cancelled ends soon, also when the store never answers.

use super::copy;
use super::support::{Disk, Memory, Restored, again, noise, vault};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vault::{CancellationToken, Change, Error, Vault};

/// Cancels once the store holds somebody up, and looks how long it takes from there.
async fn ends<T: std::fmt::Debug>(
    store: &Memory,
    cancel: &CancellationToken,
    work: impl Future<Output = vault::Result<T>>,
) {
    let (ended, begin) = tokio::join!(work, async {
        store.hung.notified().await;
        cancel.cancel();
        Instant::now()
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    // The store never answers.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

async fn hanging() -> (Arc<Memory>, Vault, vault::Copy, Disk) {
    let store = Arc::new(Memory::default());
    let made = vault(&store).await;
    let disk = Disk(Arc::new(noise(1, 70 << 20)));
    let copied = copy(&made, std::slice::from_ref(&disk), None).await.unwrap();
    let vault = again(&store, made.key()).await;
    (store, vault, copied, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_ends() {
    let (store, vault, copied, disk) = hanging().await;
    // Packs that are not taken: more of them than fit into memory.
    let writer = vault.begin(3).await.unwrap();
    *store.hang.lock().unwrap() = Some(("packs/", 0));
    let cancel = CancellationToken::new();
    let other = Arc::new(Disk(Arc::new(noise(2, 200 << 20))));
    let work = writer.disk("d", other, None, serde_json::Value::Null, &cancel);
    ends(&store, &cancel, work).await;
    // A table of the copy before that does not come.
    let cancel = CancellationToken::new();
    let change = Change {
        parent: &copied.disks[0],
        ranges: &[5..6],
    };
    let work = writer.disk(
        "d",
        Arc::new(disk),
        Some(change),
        serde_json::Value::Null,
        &cancel,
    );
    ends(&store, &cancel, work).await;
    *store.hang.lock().unwrap() = None;
    writer.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_does_not_wait_for_ever_to_leave() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let writer = vault.begin(1).await.unwrap();
    *store.hang.lock().unwrap() = Some(("", 0));
    let begin = tokio::time::Instant::now();
    writer.leave().await;
    assert_eq!(begin.elapsed().as_secs(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_ends() {
    let (store, vault, copied, disk) = hanging().await;
    let reader = vault.reader().await.unwrap();
    let sink = Arc::new(Restored(Mutex::new(vec![0; disk.0.len()])));
    // At a piece of the table, and at chunks.
    for after in [0, 1, 5] {
        *store.hang.lock().unwrap() = Some(("packs/", after));
        let cancel = CancellationToken::new();
        let work = reader.restore(&copied.disks[0], sink.clone(), &|_| (), &cancel);
        ends(&store, &cancel, work).await;
    }
}
