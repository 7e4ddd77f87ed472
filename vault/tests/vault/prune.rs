//! Clean-ups beside writers.

use super::support::{Disk, Memory, noise, vault};
use super::{copy, restore};
use std::sync::Arc;
use std::time::Duration;
use vault::CancellationToken;
use vault::prune::{self, Pruned, Pruning};

fn at(now: i64) -> Pruning {
    Pruning {
        stay: Duration::from_secs(10),
        ..Pruning::at(now * 1_000_000)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_then_removed_and_not_before_its_time() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let gone = copy(&vault, &[Disk(Arc::new(noise(1, 300_000)))], None)
        .await
        .unwrap();
    let disk = Disk(Arc::new(noise(2, 300_000)));
    let stays = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert_eq!(prune::run(&vault, at(1)).await.unwrap(), Pruned::default());
    vault.forget(gone.id).await.unwrap();
    let marked = prune::run(&vault, at(2)).await.unwrap();
    assert_eq!((marked.marked, marked.removed, marked.waiting), (1, 0, 1));
    assert_eq!(prune::run(&vault, at(11)).await.unwrap().removed, 0);
    let removed = prune::run(&vault, at(12)).await.unwrap();
    assert_eq!((removed.removed, removed.waiting), (1, 0));
    assert!(removed.removed_bytes > 300_000);
    assert!(store.names("marks/").is_empty() && store.names("writers/").is_empty());
    assert!(restore(&vault, &stays).await.unwrap()[..] == [disk]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_began_before_the_mark_may_take_what_is_marked() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let disk = Disk(Arc::new(noise(1, 300_000)));
    let gone = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    let writer = vault.begin(1).await.unwrap();
    vault.forget(gone.id).await.unwrap();
    assert_eq!(prune::run(&vault, at(1)).await.unwrap().marked, 1);
    // Its time is over, but not the writer.
    assert_eq!(prune::run(&vault, at(50)).await.unwrap().removed, 0);
    let cancel = CancellationToken::new();
    let made = writer
        .disk(
            "d",
            Arc::new(disk.clone()),
            None,
            serde_json::Value::Null,
            &cancel,
        )
        .await
        .unwrap();
    assert_eq!(writer.moved().new, 0);
    let made = writer
        .commit(vec![made], super::what(uuid::Uuid::new_v4(), None))
        .await
        .unwrap();
    let swept = prune::run(&vault, at(60)).await.unwrap();
    assert_eq!((swept.removed, swept.waiting), (0, 0));
    assert!(restore(&vault, &made).await.unwrap()[..] == [disk.clone()]);

    // One that begins behind the mark takes nothing from there.
    vault.forget(made.id).await.unwrap();
    assert_eq!(prune::run(&vault, at(70)).await.unwrap().marked, 1);
    let made = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert_eq!(made.moved.reused, 0);
    assert_eq!(prune::run(&vault, at(90)).await.unwrap().removed, 1);
    assert!(restore(&vault, &made).await.unwrap()[..] == [disk]);
}

/// The parent leans on what is marked, for its writer began before; whoever has seen the mark may not lean on the parent.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_parent_took_of_what_is_marked_is_not_taken_over() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let disk = Disk(Arc::new(noise(1, 300_000)));
    let gone = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    let early = vault.begin(1).await.unwrap();
    vault.forget(gone.id).await.unwrap();
    assert_eq!(prune::run(&vault, at(1)).await.unwrap().marked, 1);
    let (cancel, none) = (CancellationToken::new(), serde_json::Value::Null);
    let source = Arc::new(disk.clone());
    let made = early
        .disk("d", source.clone(), None, none.clone(), &cancel)
        .await
        .unwrap();
    let parent = early
        .commit(vec![made], super::what(uuid::Uuid::new_v4(), None))
        .await
        .unwrap();
    let late = vault.begin(1).await.unwrap();
    let unchanged = vault::Change {
        parent: &parent.disks[0],
        ranges: &[],
    };
    let made = late
        .disk("d", source, Some(unchanged), none, &cancel)
        .await
        .unwrap();
    vault.forget(parent.id).await.unwrap();
    assert_eq!(prune::run(&vault, at(60)).await.unwrap().removed, 1);
    let made = late
        .commit(vec![made], super::what(uuid::Uuid::new_v4(), Some(parent.id)))
        .await
        .unwrap();
    assert!(restore(&vault, &made).await.unwrap()[..] == [disk]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_dead_is_waited_for_a_day() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let gone = copy(&vault, &[Disk(Arc::new(noise(1, 300_000)))], None)
        .await
        .unwrap();
    let writer = vault.begin(1).await.unwrap();
    // It ends without a word.
    std::mem::forget(writer);
    vault.forget(gone.id).await.unwrap();
    assert_eq!(prune::run(&vault, at(1)).await.unwrap().marked, 1);
    assert_eq!(prune::run(&vault, at(90_000)).await.unwrap().removed, 0);
    assert_eq!(prune::run(&vault, at(90_000 + 86_399)).await.unwrap().removed, 0);
    assert_eq!(prune::run(&vault, at(90_000 + 86_400)).await.unwrap().removed, 1);
    assert!(store.names("writers/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_needed_little_is_written_anew() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut bytes = noise(1, 2_000_000);
    let gone = copy(&vault, &[Disk(Arc::new(bytes.clone()))], None)
        .await
        .unwrap();
    bytes[200_000..].copy_from_slice(&noise(9, 1_800_000));
    let disk = Disk(Arc::new(bytes));
    let stays = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    vault.forget(gone.id).await.unwrap();
    let stored = || -> usize {
        let objects = store.objects.lock().unwrap();
        objects
            .iter()
            .filter(|(n, _)| n.starts_with("packs/"))
            .map(|(_, b)| b.len())
            .sum()
    };
    let before = stored();
    assert_eq!(prune::run(&vault, at(1)).await.unwrap().marked, 1);
    assert_eq!(prune::run(&vault, at(20)).await.unwrap().removed, 1);
    assert!(stored() < before - 1_700_000, "{before} {}", stored());
    assert!(restore(&vault, &stays).await.unwrap()[..] == [disk.clone()]);
    let found = vault::verify::run(&vault, |_| true, &|_, _| (), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((found.damaged.len(), found.hurt.len()), (0, 0));
    let again = copy(&vault, &[disk], None).await.unwrap();
    assert_eq!(again.moved.new, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_refuses_to_remove_is_told_and_tried_again() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let disk = Disk(Arc::new(noise(1, 300_000)));
    let gone = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    *store.kept.lock().unwrap() = Some("copies/");
    let refused = vault.forget(gone.id).await.unwrap_err();
    let object = vault::verify::object_of(gone.id);
    assert_eq!(
        refused.to_string(),
        format!("could not delete {object} in the vault")
    );
    assert!(restore(&vault, &gone).await.unwrap()[..] == [disk]);
    *store.kept.lock().unwrap() = Some("packs/");
    vault.forget(gone.id).await.unwrap();
    prune::run(&vault, at(1)).await.unwrap();
    for now in [20, 30] {
        let pruned = prune::run(&vault, at(now)).await.unwrap();
        assert_eq!((pruned.removed, pruned.waiting, pruned.refused.len()), (0, 1, 1));
        assert_eq!(pruned.refused[0].object, store.names("packs/")[0]);
        assert!(pruned.refused[0].why.starts_with("access is denied"));
    }
    // The mark itself, once.
    *store.kept.lock().unwrap() = Some("marks/");
    let pruned = prune::run(&vault, at(40)).await.unwrap();
    assert_eq!((pruned.removed, pruned.waiting, pruned.refused.len()), (1, 1, 1));
    *store.kept.lock().unwrap() = None;
    let pruned = prune::run(&vault, at(50)).await.unwrap();
    assert_eq!(pruned, Pruned::default());
    assert!(store.names("marks/").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_and_a_clean_up_at_once() {
    // Ten minutes in `make soak`.
    let seconds = if std::env::var_os("OFFSHOOT_SOAK_SEED").is_some() {
        600
    } else {
        5
    };
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let store = Arc::new(Memory::default());
    store
        .unconditional
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let vault = vault(&store).await;
    let write = |seed: u64| {
        let vault = vault.clone();
        async move {
            let (mut bytes, mut copies, mut n) = (noise(seed, 600_000), Vec::new(), 0_u64);
            while std::time::Instant::now() < end {
                n += 1;
                // Both write what the other has, or had, too.
                let at = (n as usize * 70_001) % 500_000;
                bytes[at..at + 90_000].copy_from_slice(&noise(n % 7, 90_000));
                let disk = Disk(Arc::new(bytes.clone()));
                let made = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
                copies.push((made, disk));
                if copies.len() > 3 {
                    let (gone, _) = copies.remove((n % 3) as usize);
                    vault.forget(gone.id).await.unwrap();
                }
            }
            (copies, n)
        }
    };
    let clean = async {
        let mut removed = 0;
        let mut now = 0;
        while std::time::Instant::now() < end {
            now += 1;
            let how = Pruning {
                stay: Duration::ZERO,
                ..Pruning::at(now)
            };
            removed += prune::run(&vault, how).await.unwrap().removed;
        }
        removed
    };
    let (one, two) = (tokio::spawn(write(1)), tokio::spawn(write(2)));
    let removed = clean.await;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert!(
        removed > 0 && one.1 > 3 && two.1 > 3,
        "{removed} {} {}",
        one.1,
        two.1
    );
    for (copy, disk) in one.0.into_iter().chain(two.0) {
        assert!(restore(&vault, &copy).await.unwrap()[..] == [disk]);
    }
    let found = vault::verify::run(&vault, |_| true, &|_, _| (), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((found.damaged, found.hurt), (vec![], vec![]));
}
