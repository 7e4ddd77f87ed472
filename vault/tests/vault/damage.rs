//! Any byte of any object that is another is found and named, and nothing wrong is restored.

use super::support::{Disk, Memory, again, noise, vault};
use super::{copy, restore};
use std::sync::Arc;
use vault::{CancellationToken, Copy, Error, Key, Opening, Vault};

async fn two_copies() -> (Arc<Memory>, Key, Vec<(Copy, Disk)>) {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut bytes = noise(5, 400_000);
    bytes.extend(b"packs well ".repeat(20_000));
    let mut copies = Vec::new();
    for n in 0..2 {
        bytes[200_000] ^= 1 + n;
        let disk = Disk(Arc::new(bytes.clone()));
        copies.push((
            copy(&vault, std::slice::from_ref(&disk), None).await.unwrap(),
            disk,
        ));
    }
    (store, vault.key().clone(), copies)
}

/// Which copies are right, and which are said to be hurt; and every object that is named.
async fn looked_at(vault: &Vault, copies: &[(Copy, Disk)]) -> (Vec<bool>, vault::verify::Verified) {
    let mut right = Vec::new();
    for (copy, disk) in copies {
        let read = async {
            let copy = vault.copy(copy.id).await?;
            restore(vault, &copy).await
        };
        match read.await {
            Ok(disks) => {
                assert!(disks[..] == [disk.clone()], "something wrong was restored");
                right.push(true);
            }
            Err(Error::Damaged { .. } | Error::Lost { .. } | Error::NoCopy(_) | Error::Store { .. }) => {
                right.push(false);
            }
            Err(e) => panic!("{e:?}"),
        }
    }
    let cancel = CancellationToken::new();
    let found = vault::verify::run(vault, |_| true, &|_, _| (), &cancel)
        .await
        .unwrap();
    (right, found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_is_another_is_found_wherever_it_is() {
    let (store, key, copies) = two_copies().await;
    let whole = store.objects.lock().unwrap().clone();
    for (name, body) in &whole {
        if name.starts_with("keys/") {
            continue;
        }
        let step = (body.len() / 40).max(1);
        for at in (0..body.len())
            .step_by(step)
            .chain([body.len() - 1, body.len() - 5, body.len() - 12])
        {
            let mut other = body.to_vec();
            other[at] ^= 0x40;
            store.objects.lock().unwrap().insert(name.clone(), other.into());
            if name == "config" {
                let opened = Vault::open(store.clone(), &Opening::Key(key.clone())).await;
                assert!(opened.is_err(), "config at {at}");
            } else {
                let vault = again(&store, &key).await;
                let (right, found) = looked_at(&vault, &copies).await;
                assert!(
                    found.damaged.iter().any(|d| d.object == *name),
                    "{name} at {at}: {found:?}"
                );
                for (n, (copy, _)) in copies.iter().enumerate() {
                    // Who is said to be whole is whole. An index that is damaged hurts nobody: packs say what they have.
                    assert!(
                        right[n] || found.hurt.contains(&copy.id),
                        "{name} at {at}: {found:?}"
                    );
                }
            }
            store.objects.lock().unwrap().insert(name.clone(), body.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_or_gone_is_found_too() {
    let (store, key, copies) = two_copies().await;
    let whole = store.objects.lock().unwrap().clone();
    for (name, body) in &whole {
        if name.starts_with("keys/") || name == "config" {
            continue;
        }
        for cut in [Some(0), Some(7), Some(body.len() / 2), Some(body.len() - 1), None] {
            match cut {
                Some(cut) => store
                    .objects
                    .lock()
                    .unwrap()
                    .insert(name.clone(), body.slice(..cut)),
                None => store.objects.lock().unwrap().remove(name),
            };
            let vault = again(&store, &key).await;
            let (right, found) = looked_at(&vault, &copies).await;
            for (n, (copy, _)) in copies.iter().enumerate() {
                let gone = cut.is_none() && *name == vault::verify::object_of(copy.id);
                assert!(
                    right[n] || gone || found.hurt.contains(&copy.id),
                    "{name} cut to {cut:?}: {found:?}"
                );
            }
            if cut.is_some() {
                assert!(
                    found.damaged.iter().any(|d| d.object == *name),
                    "{name} cut to {cut:?}: {found:?}"
                );
            }
            store.objects.lock().unwrap().insert(name.clone(), body.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_may_be_lost_as_a_whole() {
    let (store, key, copies) = two_copies().await;
    store
        .objects
        .lock()
        .unwrap()
        .retain(|name, _| !name.starts_with("index/"));
    let vault = again(&store, &key).await;
    let (right, found) = looked_at(&vault, &copies).await;
    assert_eq!(
        (right, found.damaged.len(), found.hurt.len()),
        (vec![true, true], 0, 0)
    );
    // The next copy finds everything, and names it again.
    let made = copy(&vault, &[copies[1].1.clone()], None).await.unwrap();
    assert_eq!(made.moved.new, 0);
    assert_eq!(store.names("index/").len(), 1);
}
