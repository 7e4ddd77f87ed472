//! A copy is made once, however often its maker begins.

use super::support::{Disk, Fault, Memory, noise, vault};
use super::{restore, what};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;
use vault::{CancellationToken, Copy, Error, Result, Vault};

/// Copies a disk under this id; `fault` is for the so-maniest operation of the commit. Answers how many that had, too.
async fn copy(
    store: &Arc<Memory>,
    vault: &Vault,
    id: Uuid,
    disk: &Disk,
    fault: Option<(u64, Fault)>,
) -> (Result<Copy>, u64) {
    let writer = vault.begin(1).await.unwrap();
    let source = Arc::new(disk.clone());
    let cancel = CancellationToken::new();
    let made = writer.disk("d", source, None, serde_json::Value::Null, &cancel);
    let made = made.await.unwrap();
    let before = store.operations.load(Ordering::SeqCst);
    *store.fault.lock().unwrap() = fault.map(|(n, fault)| (before + n, fault));
    let made = writer.commit(vec![made], what(id, None)).await;
    *store.fault.lock().unwrap() = None;
    (made, store.operations.load(Ordering::SeqCst) - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_commit_of_the_same_id_answers_with_the_first() {
    for unconditional in [false, true] {
        let store = Arc::new(Memory::default());
        store.unconditional.store(unconditional, Ordering::SeqCst);
        let vault = vault(&store).await;
        let id = Uuid::new_v4();
        let disk = Disk(Arc::new(noise(1, 200_000)));
        let first = copy(&store, &vault, id, &disk, None).await.0.unwrap();
        assert_eq!(first.id, id);
        let other = Disk(Arc::new(noise(2, 200_000)));
        let second = copy(&store, &vault, id, &other, None).await.0.unwrap();
        assert_eq!(second, first);
        assert_eq!(vault.copies().await.unwrap(), std::slice::from_ref(&first));
        assert!(restore(&vault, &first).await.unwrap()[..] == [disk]);
        assert!(store.names("writers/").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_commit_it_is_right_when_done_again() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::Torn] {
        for n in 0.. {
            let store = Arc::new(Memory::default());
            let vault = vault(&store).await;
            let id = Uuid::new_v4();
            let disk = Disk(Arc::new(noise(1, 200_000)));
            let (tried, all) = copy(&store, &vault, id, &disk, Some((n, fault))).await;
            let again = copy(&store, &vault, id, &disk, None).await.0.unwrap();
            assert_eq!(vault.copy(id).await.unwrap(), again);
            if let Ok(tried) = tried {
                assert_eq!(tried, again, "{fault:?} at {n}");
            }
            assert!(restore(&vault, &again).await.unwrap()[..] == [disk]);
            if n >= all {
                assert!(n > 3, "{n} operations are not all");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_copy_is_there_is_one_request() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let id = Uuid::new_v4();
    let disk = Disk(Arc::new(noise(1, 200_000)));
    copy(&store, &vault, id, &disk, None).await.0.unwrap();
    let before = store.operations.load(Ordering::SeqCst);
    vault.copy(id).await.unwrap();
    let none = vault.copy(Uuid::new_v4()).await;
    assert!(matches!(none, Err(Error::NoCopy(_))), "{none:?}");
    assert_eq!(store.operations.load(Ordering::SeqCst) - before, 2);
}
