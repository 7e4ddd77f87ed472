//! Damage does not spread, and the next copy heals what was damaged before.

use super::support::{Disk, Memory, again, noise, vault};
use super::{copy, restore};
use std::sync::Arc;
use std::time::Duration;
use vault::prune::{self, Pruning};
use vault::verify::Verified;
use vault::{CancellationToken, Copy, Error, Vault};

async fn verified(vault: &Vault) -> Verified {
    vault::verify::run(vault, |_| true, &|_, _| (), &CancellationToken::new())
        .await
        .unwrap()
}

/// The clean-up of a day and of the day after.
async fn cleaned(vault: &Vault, now: i64) -> u64 {
    let how = |now| Pruning {
        stay: Duration::ZERO,
        ..Pruning::at(now)
    };
    let first = prune::run(vault, how(now)).await.unwrap().removed;
    first + prune::run(vault, how(now + 1)).await.unwrap().removed
}

/// A copy of a disk, and one more of it where little had changed.
async fn two_copies() -> (Arc<Memory>, Vault, [(Copy, Disk); 2]) {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut bytes = noise(5, 3 << 20);
    let first = Disk(Arc::new(bytes.clone()));
    let one = copy(&vault, std::slice::from_ref(&first), None).await.unwrap();
    bytes[1 << 20] ^= 1;
    let second = Disk(Arc::new(bytes));
    let changed: [Vec<_>; 1] = [vec![1 << 20..(1 << 20) + 1]];
    let two = copy(&vault, std::slice::from_ref(&second), Some((&one, &changed)));
    let two = two.await.unwrap();
    (store, vault, [(one, first), (two, second)])
}

/// The largest pack.
fn largest(store: &Memory) -> String {
    let objects = store.objects.lock().unwrap();
    let packs = objects.iter().filter(|(name, _)| name.starts_with("packs/"));
    packs.max_by_key(|(_, body)| body.len()).unwrap().0.clone()
}

fn flip(store: &Memory, name: &str, places: &[usize]) {
    let mut objects = store.objects.lock().unwrap();
    let mut body = objects[name].to_vec();
    for at in places {
        body[*at] ^= 0x20;
    }
    objects.insert(name.to_owned(), body.into());
}

async fn all_restored(vault: &Vault, copies: &[(Copy, Disk)]) {
    for (copy, disk) in copies {
        assert!(restore(vault, copy).await.unwrap()[..] == [disk.clone()]);
    }
}

/// Nothing has changed since, by what is known; still what is damaged or lost is brought anew.
async fn copied_again(vault: &Vault, [_, (two, second)]: &[(Copy, Disk); 2]) -> Copy {
    let unchanged: [Vec<_>; 1] = [Vec::new()];
    let made = copy(vault, std::slice::from_ref(second), Some((two, &unchanged)));
    made.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_chunks_are_brought_anew_and_then_all_copies_are_whole() {
    let (store, vault, copies) = two_copies().await;
    let pack = largest(&store);
    flip(&store, &pack, &[100, 500_000, 500_001]);
    let found = verified(&vault).await;
    assert_eq!(
        (found.damaged.len(), found.healed.len(), found.hurt.len()),
        (2, 0, 2)
    );
    assert_eq!(store.names("damaged/").len(), 1);
    // What is needed and nowhere else stays, whatever is cleaned up.
    assert_eq!(cleaned(&vault, 10).await, 0);
    assert!(store.names("packs/").contains(&pack));

    let three = copied_again(&vault, &copies).await;
    assert_eq!((three.moved.chunks_new, three.moved.new), (2, 2 * (64 << 10)));
    all_restored(&vault, &copies).await;
    let made = (three, copies[1].1.clone());
    all_restored(&vault, std::slice::from_ref(&made)).await;
    let found = verified(&vault).await;
    assert_eq!(
        (found.damaged.len(), found.healed.len(), found.hurt.len()),
        (0, 2, 0)
    );
    assert_eq!(found.healed[0].object, pack);
    // A part of the packs tells the same by what was found before.
    let none = CancellationToken::new();
    let some = vault::verify::run(&vault, |_| false, &|_, _| (), &none);
    let some = some.await.unwrap();
    assert_eq!(
        (some.damaged.len(), some.healed.len(), some.hurt.len()),
        (0, 1, 0)
    );

    // Its good rest goes elsewhere, and then nothing is left of it.
    assert_eq!(cleaned(&vault, 20).await, 1);
    cleaned(&vault, 30).await;
    assert!(!store.names("packs/").contains(&pack) && store.names("damaged/").is_empty());
    let vault = again(&store, vault.key()).await;
    all_restored(&vault, &copies).await;
    let found = verified(&vault).await;
    assert!(found.damaged.is_empty() && found.healed.is_empty() && found.hurt.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_gone_is_brought_anew() {
    for verify in [true, false] {
        let (store, vault, copies) = two_copies().await;
        let pack = largest(&store);
        store.objects.lock().unwrap().remove(&pack);
        if verify {
            let found = verified(&vault).await;
            assert_eq!(found.hurt.len(), 2);
            // Nobody knows any more that there was this pack.
            store
                .objects
                .lock()
                .unwrap()
                .retain(|name, _| !name.starts_with("index/"));
        }
        let three = copied_again(&vault, &copies).await;
        all_restored(&vault, &[(three, copies[1].1.clone()), copies[1].clone()]).await;
        // The first needs a chunk that the disk has not any more.
        let lost = restore(&vault, &copies[0].0).await;
        assert!(
            matches!(lost, Err(Error::Lost { .. } | Error::Damaged { .. })),
            "{lost:?}"
        );
        let found = verified(&vault).await;
        assert_eq!(found.hurt, [copies[0].0.id]);
        let old = copy(&vault, std::slice::from_ref(&copies[0].1), None)
            .await
            .unwrap();
        all_restored(&vault, &[copies[0].clone(), (old, copies[0].1.clone())]).await;
        let found = verified(&vault).await;
        assert!(found.damaged.is_empty() && found.hurt.is_empty());
        assert!(store.names("damaged/").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_not_said_to_be_damaged_any_more() {
    let (store, vault, copies) = two_copies().await;
    let pack = largest(&store);
    let whole = store.objects.lock().unwrap()[&pack].clone();
    flip(&store, &pack, &[100, whole.len() - 1]);
    verified(&vault).await;
    store.objects.lock().unwrap().insert(pack, whole);
    // It is read all the same where nothing else has it.
    all_restored(&vault, &copies).await;
    let found = verified(&vault).await;
    assert!(found.damaged.is_empty() && found.healed.is_empty() && found.hurt.is_empty());
    assert!(store.names("damaged/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_looks_for_another_pack_and_a_clean_up_copies_nothing_that_is_damaged() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let disk = Disk(Arc::new(noise(5, 3 << 20)));
    // Two writers at once bring the same, each in a pack of its own.
    let writers = (vault.begin(1).await.unwrap(), vault.begin(1).await.unwrap());
    let mut copies = Vec::new();
    for writer in [writers.0, writers.1] {
        let none = CancellationToken::new();
        let source = Arc::new(disk.clone());
        let made = writer.disk("d", source, None, serde_json::Value::Null, &none);
        let made = vec![made.await.unwrap()];
        let what = super::what(uuid::Uuid::new_v4(), None);
        copies.push((writer.commit(made, what).await.unwrap(), disk.clone()));
    }
    let packs = store.names("packs/");
    assert_eq!(packs.len(), 2);
    let reader = vault.reader().await.unwrap();
    flip(&store, &packs[0], &[100, 700_000]);
    flip(&store, &packs[1], &[1_000_000]);
    all_restored(&vault, &copies).await;
    // By little as well, with what lies behind; by a reader from before.
    let reader = reader.disk(copies[0].0.disks[0].clone());
    let mut buffer = vec![0; 50_000];
    for at in (0..(3 << 20) - buffer.len()).step_by(buffer.len()) {
        reader.read_at(at as u64, &mut buffer).await.unwrap();
        assert!(buffer[..] == disk.0[at..at + buffer.len()], "at {at}");
    }
    // All of a pack is to be written anew, without anybody having looked: what is damaged is not, and the pack stays.
    let all_anew = |now| Pruning {
        stay: Duration::ZERO,
        waste: 2.0,
        ..Pruning::at(now)
    };
    for now in 1..6 {
        prune::run(&vault, all_anew(now)).await.unwrap();
        all_restored(&vault, &copies).await;
    }
    let found = verified(&vault).await;
    assert!(found.damaged.is_empty() && found.hurt.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_made_while_all_is_looked_at_is_whole() {
    let (store, vault, copies) = two_copies().await;
    let made = std::sync::Mutex::new(Vec::new());
    let told = |_, _| {
        let disk = Disk(Arc::new(noise(made.lock().unwrap().len() as u64 + 20, 200_000)));
        // Others go meanwhile, and what they had.
        let others = async {
            let copied = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
            vault.forget(copies[0].0.id).await.unwrap();
            cleaned(&vault, 10).await;
            copied
        };
        let copied = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(others));
        made.lock().unwrap().push((copied, disk));
    };
    let none = CancellationToken::new();
    let found = vault::verify::run(&vault, |_| true, &told, &none).await.unwrap();
    assert!(found.damaged.is_empty() && found.hurt.is_empty(), "{found:?}");
    let made = made.into_inner().unwrap();
    assert!(!made.is_empty() && found.copies == 1 + made.len() as u64);
    all_restored(&vault, &made).await;
    assert!(store.names("damaged/").is_empty());
}
