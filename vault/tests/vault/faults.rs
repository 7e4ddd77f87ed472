//! A store that fails at each operation in turn, in each way.

use super::support::{Disk, Fault, Memory, again, noise, vault};
use super::{copy, restore};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vault::prune::{self, Pruning};
use vault::{Copy, Key};

fn at(now: i64) -> Pruning {
    Pruning {
        stay: Duration::ZERO,
        ..Pruning::at(now)
    }
}

/// A vault with a copy that stays, and a forgotten one's packs to be cleaned up.
async fn begun() -> (Arc<Memory>, Key, Copy, Disk, Vec<u8>) {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut bytes = noise(8, 500_000);
    let gone = copy(&vault, &[Disk(Arc::new(noise(77, 300_000)))], None)
        .await
        .unwrap();
    let disk = Disk(Arc::new(bytes.clone()));
    let kept = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    vault.forget(gone.id).await.unwrap();
    bytes[123] ^= 1;
    bytes.extend(noise(9, 200_000));
    (store, vault.key().clone(), kept, disk, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_and_a_clean_up_fail_anywhere_and_nothing_is_lost() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::Torn, Fault::Full] {
        let mut n = 0;
        loop {
            let (store, key, kept, disk, bytes) = begun().await;
            let vault = again(&store, &key).await;
            let first = store.operations.load(Ordering::SeqCst);
            *store.fault.lock().unwrap() = Some((first + n, fault));
            let wanted = Disk(Arc::new(bytes));
            let made = copy(&vault, std::slice::from_ref(&wanted), None).await;
            let cleaned = prune::run(&vault, at(10)).await;
            let cleaned_again = prune::run(&vault, at(20)).await;
            let over = store.operations.load(Ordering::SeqCst) <= first + n;
            *store.fault.lock().unwrap() = None;

            // What was there reads as it did, whatever failed.
            let vault = again(&store, &key).await;
            assert!(
                restore(&vault, &kept).await.unwrap()[..] == [disk],
                "{fault:?} at {n}"
            );
            if let Ok(made) = &made {
                assert!(
                    restore(&vault, made).await.unwrap()[..] == [wanted.clone()],
                    "{fault:?} at {n}"
                );
            } else {
                assert!(!over, "{made:?}");
            }
            // Tried again it succeeds, and what was left by the failure is cleaned up.
            let again = copy(&vault, std::slice::from_ref(&wanted), None).await.unwrap();
            assert!(restore(&vault, &again).await.unwrap()[..] == [wanted.clone()]);
            for copy in vault.copies().await.unwrap_or_default() {
                vault.forget(copy.id).await.unwrap();
            }
            for torn in store.names("copies/") {
                store.objects.lock().unwrap().remove(&torn);
            }
            // A writer that could not take its sign of life away is waited for, for a day.
            let day = 100_000_000_000;
            for turn in 1..6 {
                prune::run(&vault, at(turn * day)).await.unwrap();
            }
            let left = store.names("packs/");
            assert!(left.is_empty(), "{fault:?} at {n} leaves {left:?}");
            _ = (cleaned, cleaned_again);
            if over {
                break;
            }
            n += 1;
        }
        assert!(n > 20, "{n} operations are not all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_late_lose_nothing() {
    let (store, key, kept, disk, bytes) = begun().await;
    let vault = again(&store, &key).await;
    store.stale.store(12, Ordering::SeqCst);
    let wanted = Disk(Arc::new(bytes));
    let made = copy(&vault, std::slice::from_ref(&wanted), None).await.unwrap();
    for now in 1..4 {
        prune::run(&vault, at(now)).await.unwrap();
    }
    store.stale.store(0, Ordering::SeqCst);
    assert!(restore(&vault, &kept).await.unwrap()[..] == [disk]);
    assert!(restore(&vault, &made).await.unwrap()[..] == [wanted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_brought_before_a_failure_is_not_brought_again() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    // Three packs and a bit.
    let disk = Disk(Arc::new(noise(4, 100 << 20)));
    let first = store.operations.load(Ordering::SeqCst);
    *store.fault.lock().unwrap() = Some((first + 7, Fault::Refused));
    copy(&vault, std::slice::from_ref(&disk), None).await.unwrap_err();
    *store.fault.lock().unwrap() = None;
    let brought = {
        let objects = store.objects.lock().unwrap();
        let packs = objects.iter().filter(|(name, _)| name.starts_with("packs/"));
        packs.map(|(_, body)| body.len() as u64).sum::<u64>()
    };
    assert!(brought > 32 << 20 && brought < 100 << 20, "{brought}");
    let again = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert!(
        again.moved.reused >= brought - brought / 100,
        "{brought}: {:?}",
        again.moved
    );
}
