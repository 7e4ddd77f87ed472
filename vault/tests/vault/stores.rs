//! What is put around a store: a limit, and a count.

use super::support::Memory;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use vault::store::{Counted, Objects, Put, Rate, Requests, Throttled};

const MIB: u64 = 1 << 20;

async fn put(store: &dyn Objects, name: &str, bytes: u64) {
    let body = vec![vec![1; bytes as usize].into()];
    store.put(name, body, Put::Replace).await.unwrap();
}

/// How long something took, by a clock that goes on only when all wait.
async fn took(done: impl Future<Output = ()>) -> u64 {
    let begin = Instant::now();
    done.await;
    begin.elapsed().as_secs_f64().round() as u64
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_both_ways_and_for_all_who_share_it() {
    let store = Throttled::new(Arc::new(Memory::default()), Rate::new(MIB));
    let all = async {
        for n in 0..10 {
            put(&store, &format!("packs/{n}"), 4 * MIB).await;
        }
    };
    // The last is not waited for behind it.
    assert_eq!(took(all).await, 36);
    let all = async {
        for n in 0..5 {
            store.get(&format!("packs/{n}"), Some(0..2 * MIB)).await.unwrap();
            store.get(&format!("packs/{n}"), None).await.unwrap();
        }
    };
    assert_eq!(took(all).await, 4 + 5 * 6 - 4);
    let one = async {
        put(&store, "one", MIB).await;
    };
    let at_once = async { futures::join!(one, put(&store, "two", MIB), put(&store, "three", MIB)) };
    assert_eq!(took(async { _ = at_once.await }).await, 4 + 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_small_does_not_wait_and_what_rests_saves_nothing() {
    let store = Throttled::new(Arc::new(Memory::default()), Rate::new(MIB));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let all = async {
        for n in 0..3 {
            put(&store, &format!("packs/{n}"), 10 * MIB).await;
        }
    };
    assert_eq!(took(all).await, 20);
    assert_eq!(took(put(&store, "writers/x", 1000)).await, 0);
    assert_eq!(took(put(&store, "packs/x", MIB)).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_is_changed_holds_for_who_waits() {
    let rate = Rate::new(1000);
    let store = Throttled::new(Arc::new(Memory::default()), rate.clone());
    put(&store, "a", 10 * MIB).await;
    let change = async |bytes| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        rate.set(bytes);
    };
    // Hours at the first rate; ten seconds at the second.
    let both = async { _ = futures::join!(put(&store, "b", 10 * MIB), change(MIB)) };
    assert_eq!(took(both).await, 20);
    // None at all.
    let both = async { _ = futures::join!(put(&store, "c", 10 * MIB), change(0)) };
    assert_eq!(took(both).await, 10);
    put(&store, "d", MIB).await;
    assert_eq!((rate.get(), took(put(&store, "e", 100 * MIB)).await), (0, 0));
    // What went without one is not made up for.
    rate.set(MIB);
    assert_eq!(took(put(&store, "f", 3 * MIB)).await, 0);
    assert_eq!(took(put(&store, "g", MIB)).await, 3);
}

#[tokio::test]
async fn requests_are_counted_by_kind() {
    let store = Counted::new(Arc::new(Memory::default()));
    put(&store, "a/1", 100).await;
    put(&store, "a/2", 50).await;
    store.get("a/1", None).await.unwrap();
    store.get("a/2", Some(10..30)).await.unwrap();
    store.get("a/3", None).await.unwrap_err();
    store.list("a/").await.unwrap();
    store.delete("a/1").await.unwrap();
    let counted = Requests {
        puts: 2,
        gets: 3,
        lists: 1,
        deletes: 1,
        bytes_put: 150,
        bytes_got: 120,
    };
    assert_eq!((store.requests(), counted.all()), (counted, 7));
}
