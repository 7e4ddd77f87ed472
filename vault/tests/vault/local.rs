//! A directory as a store.

use super::support::{Disk, noise};
use super::{copy, restore};
use std::sync::Arc;
use vault::store::{Local, Objects, Put, probe};
use vault::{Making, StoreError, Vault, Wrapping};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_copies_and_honours_what_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Local::new(dir.path().to_owned()));
    let found = probe(&*store).await.unwrap();
    assert!(found.conditional_put);
    let identity = age::x25519::Identity::generate().to_public().to_string();
    let vault = Vault::create(store.clone(), &Wrapping::Recipient(identity), Making::at(1))
        .await
        .unwrap();
    let disk = Disk(Arc::new(noise(1, 3 << 20)));
    let made = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert!(restore(&vault, &made).await.unwrap()[..] == [disk]);
    let again = store.put("config", vec![vec![1].into()], Put::Create).await;
    assert!(matches!(again, Err(StoreError::Exists)));
    assert!(std::fs::read_dir(dir.path()).unwrap().all(|e| {
        let name = e.unwrap().file_name().into_string().unwrap();
        ["config", "copies", "index", "keys", "packs", "probe", "writers"].contains(&&*name)
    }));
    let away = Local::new(dir.path().join("not-mounted"));
    assert!(matches!(away.list("packs/").await, Err(StoreError::Away(_))));
}
