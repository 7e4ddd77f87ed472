//! Loading what a page shows: on the server before it answers, in the browser when the address changes, when the feed
//! says so, and while the link is lost. What was good stays until something better is there.

use super::error;
use crate::feed::feed;
use leptos::either::Either;
use leptos::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::Status;
use std::future::Future;
use std::sync::Arc;

/// What is shown.
type State<T> = RwSignal<Result<RwSignal<T>, Status>>;

/// Loads with `fetch` whenever `key` changes, and shows. Later answers go through `merge`, which has the last word on
/// what is newer.
pub fn load<K, T, F>(
    key: impl Fn() -> K + Send + Sync + 'static,
    fetch: impl Fn(K) -> F + Send + Sync + 'static,
    merge: fn(&mut T, T),
    show: impl Fn(RwSignal<T>) -> AnyView + Send + Sync + 'static,
) -> AnyView
where
    K: PartialEq + Clone + Send + Sync + 'static,
    T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let reloads = feed().reloads;
    let resource = Resource::new(move || (key(), reloads.get()), move |(key, _)| fetch(key));
    let show: Arc<dyn Fn(RwSignal<T>) -> AnyView + Send + Sync> = Arc::new(show);
    let owner = Owner::current();
    view! {
        <Transition>
            {Suspend::new(async move {
                let first = resource.await;
                let state: State<T> = RwSignal::new(first.map(RwSignal::new));
                Effect::new(move |again: Option<()>| {
                    let answer = resource.get();
                    if let (Some(()), Some(answer)) = (again, answer) {
                        take(state, answer, merge, owner.as_ref());
                    }
                });
                let good = Memo::new(move |_| state.with(Result::is_ok));
                move || {
                    good.track();
                    match state.get_untracked() {
                        Ok(data) => Either::Left(show(data)),
                        Err(_) => {
                            Either::Right(move || state.with(|s| s.as_ref().err().map(error::page)))
                        }
                    }
                }
            })}
        </Transition>
    }
    .into_any()
}

fn take<T: Send + Sync + 'static>(
    state: State<T>,
    answer: Result<T, Status>,
    merge: fn(&mut T, T),
    owner: Option<&Owner>,
) {
    match (state.get_untracked(), answer) {
        (Ok(data), Ok(new)) => data.update(|old| merge(old, new)),
        // Kept beyond this effect's next run.
        (Err(_), Ok(new)) => {
            let make = || RwSignal::new(new);
            let data = match owner {
                Some(owner) => owner.with(make),
                None => make(),
            };
            state.set(Ok(data));
        }
        (Err(_), Err(e)) => state.set(Err(e)),
        // The last good data stay.
        (Ok(_), Err(_)) => {}
    }
}
