//! A vault says of itself what it is, and its key opens it, or a clear error says why not.

use super::support::{Disk, Memory, noise};
use super::{copy, restore};
use std::sync::Arc;
use vault::store::{Objects, Put};
use vault::{Error, Making, Opening, Vault, Wrapping};

#[tokio::test(flavor = "multi_thread")]
async fn opened_by_words_and_by_an_identity_and_by_nothing_else() {
    let store = Arc::new(Memory::default());
    let words = Wrapping::Passphrase("correct horse".into());
    let made = Vault::create(store.clone(), &words, Making::at(7)).await.unwrap();
    let disk = Disk(Arc::new(noise(1, 300_000)));
    let copied = copy(&made, std::slice::from_ref(&disk), None).await.unwrap();
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    made.add_key(&Wrapping::Recipient(recipient)).await.unwrap();

    let open = async |opening| Vault::open(store.clone(), &opening).await;
    let opened = open(Opening::Passphrase("correct horse".into())).await.unwrap();
    assert_eq!(opened.id(), made.id());
    assert_eq!(restore(&opened, &copied).await.unwrap(), [disk]);
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    open(Opening::Identity(secret)).await.unwrap();

    let other = age::x25519::Identity::generate().to_string();
    let other = age::secrecy::ExposeSecret::expose_secret(&other).to_owned();
    for wrong in [
        Opening::Passphrase("another horse".into()),
        Opening::Identity(other),
        Opening::Key(vault::Key::random()),
    ] {
        assert!(matches!(open(wrong).await, Err(Error::WrongKey(_))));
    }
    assert!(matches!(
        open(Opening::Identity("x".into())).await,
        Err(Error::BadKey(_))
    ));
    assert!(matches!(
        Vault::create(store.clone(), &words, Making::at(8)).await,
        Err(Error::Exists { created: 7 })
    ));
    for key in store.names("keys/") {
        store.delete(&key).await.unwrap();
    }
    assert!(matches!(
        open(Opening::Passphrase("correct horse".into())).await,
        Err(Error::NoKey)
    ));
}

#[tokio::test]
async fn none_and_a_newer_one_are_told_apart() {
    let store = Arc::new(Memory::default());
    let words = Opening::Passphrase("x".into());
    assert!(matches!(
        Vault::open(store.clone(), &words).await,
        Err(Error::NoVault)
    ));
    let config =
        br#"{"offshootVault":2,"id":"7f0c2d6e-0000-4000-8000-000000000000","created":1,"chunk":65536}"#;
    store
        .put("config", vec![config.to_vec().into()], Put::Create)
        .await
        .unwrap();
    assert!(matches!(
        Vault::open(store, &words).await,
        Err(Error::Newer { found: 2, known: 1 })
    ));
}

#[tokio::test]
async fn what_names_and_places_tell_depends_on_the_key() {
    let (one, two) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
    let disk = Disk(Arc::new(b"the same plain text in both ".repeat(9_000)));
    for store in [&one, &two] {
        let vault = super::support::vault(store).await;
        copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    }
    let all = |store: &Arc<Memory>| {
        let objects = store.objects.lock().unwrap();
        objects
            .values()
            .flat_map(|body| body.to_vec())
            .collect::<Vec<u8>>()
    };
    let plain = b"the same plain text";
    assert!(!all(&one).windows(plain.len()).any(|w| w == plain));
    assert_ne!(all(&one), all(&two));
}
