//! Holds and notes, which travel with the vault.

use super::support::{Disk, Memory, again, noise, vault};
use super::{copy, restore};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;
use vault::prune::{self, Pruning};
use vault::{CancellationToken, Error, Hold};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_held_stays_whoever_wants_it_to_go() {
    let store = Arc::new(Memory::default());
    let one = vault(&store).await;
    let two = again(&store, one.key()).await;
    let disk = Disk(Arc::new(noise(1, 300_000)));
    let held = copy(&one, std::slice::from_ref(&disk), None).await.unwrap();
    let other = copy(&two, std::slice::from_ref(&disk), None).await.unwrap();
    let hold = Hold {
        copy: held.id,
        by: "ada".into(),
        since: 7,
    };
    assert_eq!(one.hold(held.id, "ada", 7).await.unwrap(), hold);
    assert_eq!(
        two.hold(held.id, "bob", 9).await.unwrap(),
        hold,
        "the first stands"
    );
    assert_eq!(two.holds().await.unwrap(), std::slice::from_ref(&hold));
    for vault in [&one, &two] {
        let refused = vault.forget(held.id).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Held { copy, by, since: 7 } if *copy == held.id && by == "ada"),
            "{refused:?}"
        );
    }
    // Others go, and clean-ups run meanwhile.
    two.forget(other.id).await.unwrap();
    for now in 0..3 {
        prune::run(&two, Pruning::at(now * 90_000_000_000)).await.unwrap();
    }
    assert!(restore(&two, &held).await.unwrap()[..] == [disk]);
    let none = one.hold(Uuid::nil(), "ada", 8).await;
    assert!(matches!(none, Err(Error::NoCopy(_))), "{none:?}");
    assert_eq!(one.holds().await.unwrap().len(), 1);

    // One that cannot be read holds as well, and is found.
    let name = store.names("holds/").remove(0);
    let torn = store.objects.lock().unwrap()[&name].slice(..20);
    store.objects.lock().unwrap().insert(name.clone(), torn);
    let refused = one.forget(held.id).await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    let none = CancellationToken::new();
    let found = vault::verify::run(&one, |_| true, &|_, _| (), &none);
    assert_eq!(found.await.unwrap().damaged[0].object, name);
    two.release(held.id).await.unwrap();
    one.forget(held.id).await.unwrap();
    assert_eq!(
        (
            one.copies().await.unwrap().len(),
            one.holds().await.unwrap().len()
        ),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_replaced_and_go_with_their_copy() {
    let store = Arc::new(Memory::default());
    let one = vault(&store).await;
    let two = again(&store, one.key()).await;
    let disk = Disk(Arc::new(noise(1, 100_000)));
    let made = copy(&one, std::slice::from_ref(&disk), None).await.unwrap();
    let other = copy(&one, &[disk], None).await.unwrap();
    one.note(made.id, "booted", &json!({"at": 1})).await.unwrap();
    two.note(made.id, "booted", &json!({"at": 2})).await.unwrap();
    two.note(made.id, "seen-by-2", &json!("x")).await.unwrap();
    one.note(other.id, "booted", &json!(null)).await.unwrap();
    let notes = BTreeMap::from([
        ("booted".to_owned(), json!({"at": 2})),
        ("seen-by-2".to_owned(), json!("x")),
    ]);
    assert_eq!(one.notes(made.id).await.unwrap(), notes);
    for wrong in ["", "a/b", "..", "Booted", "ü"] {
        let refused = one.note(made.id, wrong, &json!(1)).await;
        assert!(matches!(refused, Err(Error::NoteName(_))), "{refused:?}");
    }
    let none = one.note(Uuid::nil(), "booted", &json!(1)).await;
    assert!(matches!(none, Err(Error::NoCopy(_))), "{none:?}");
    let name = store.names("notes/").remove(0);
    let sealed = store.objects.lock().unwrap()[&name].clone();
    assert!(sealed.starts_with(b"OVSEAL01"));
    two.forget(made.id).await.unwrap();
    assert_eq!(store.names("notes/").len(), 1);
    assert!(one.notes(made.id).await.unwrap().is_empty());
    assert_eq!(one.notes(other.id).await.unwrap().len(), 1);
}
