//! Loading what a page shows: on the server before it answers, in the browser when the address changes, when the feed
//! says so, and while the link is lost. What was good stays until something better is there.
//!
//! All pages share one kind of resource, the bodies that the API answered: what is generic is compiled for every type
//! it is used with, and the browser loads all of that.

use super::error;
use crate::backend::Way;
use crate::feed::feed;
use crate::hydration::piece;
use leptos::prelude::*;
use shared::Status;
use shared::api::RawCall;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// The body of each call that was made.
pub type Bodies = Vec<String>;
/// Calls on their way.
pub type Loading = Pin<Box<dyn Future<Output = Result<Bodies, Status>> + Send>>;

/// Makes calls side by side; all have to succeed.
pub fn all(calls: impl IntoIterator<Item = RawCall>) -> Loading {
    let way = Way::here();
    let pending: Vec<_> = calls.into_iter().map(|call| way.send(call)).collect();
    Box::pin(async move {
        futures_util::future::join_all(pending)
            .await
            .into_iter()
            .collect()
    })
}

/// Reads the body of one of the calls.
pub fn body<A: serde::de::DeserializeOwned>(bodies: &Bodies, n: usize) -> Result<A, Status> {
    crate::backend::read(bodies.get(n).map_or("", String::as_str))
}

/// Loads with `fetch` whenever `key` changes, and shows. Later answers go through `merge`, which has the last word on
/// what is newer.
pub fn load<T: Send + Sync + 'static>(
    key: impl Fn() -> String + Send + Sync + 'static,
    fetch: impl Fn(String) -> Loading + Send + Sync + 'static,
    read: fn(&Bodies) -> Result<T, Status>,
    merge: fn(&mut T, T),
    show: impl Fn(RwSignal<T>) -> AnyView + Send + Sync + 'static,
) -> AnyView {
    shown(
        Arc::new(key),
        Arc::new(fetch),
        Arc::new(Of {
            data: OnceLock::new(),
            owner: Owner::current(),
            read,
            merge,
            show: Box::new(show),
        }),
    )
}

/// What a page makes of its answers.
trait Shown: Send + Sync {
    /// Takes an answer.
    fn take(&self, bodies: &Bodies) -> Result<(), Status>;
    /// Draws what was taken.
    fn draw(&self) -> AnyView;
}

struct Of<T: Send + Sync + 'static> {
    data: OnceLock<RwSignal<T>>,
    /// Of the page: the data live as long as it does.
    owner: Option<Owner>,
    read: fn(&Bodies) -> Result<T, Status>,
    merge: fn(&mut T, T),
    show: Box<dyn Fn(RwSignal<T>) -> AnyView + Send + Sync>,
}

impl<T: Send + Sync + 'static> Shown for Of<T> {
    fn take(&self, bodies: &Bodies) -> Result<(), Status> {
        let new = (self.read)(bodies)?;
        if let Some(data) = self.data.get() {
            data.update(|old| (self.merge)(old, new));
        } else {
            let make = || RwSignal::new(new);
            let data = match &self.owner {
                Some(owner) => owner.with(make),
                None => make(),
            };
            // Only this has set it: answers are taken one after the other.
            _ = self.data.set(data);
        }
        Ok(())
    }

    fn draw(&self) -> AnyView {
        match self.data.get() {
            Some(data) => (self.show)(*data),
            None => ().into_any(),
        }
    }
}

/// Loads once more where the feed has told of something since: a page hears it only when it is drawn.
#[cfg(feature = "hydrate")]
fn look_again(known: u32, missed: RwSignal<u32>) {
    if crate::feed::told_so_far() == known {
        return;
    }
    Effect::new(move |_| {
        if crate::hydration::alive() {
            missed.update(|n| *n += 1);
        }
    });
}

fn shown(
    key: Arc<dyn Fn() -> String + Send + Sync>,
    fetch: Arc<dyn Fn(String) -> Loading + Send + Sync>,
    page: Arc<dyn Shown>,
) -> AnyView {
    let reloads = feed().reloads;
    let missed = RwSignal::new(0_u32);
    #[cfg(feature = "hydrate")]
    let known = match crate::hydration::hydrates() {
        true => 0,
        false => crate::feed::told_so_far(),
    };
    let of = move || (key(), reloads.get(), missed.get());
    let resource = Resource::new(of, move |(key, ..)| fetch(key));
    let content = async move {
        let first = resource.await.and_then(|bodies| page.take(&bodies));
        let state = RwSignal::new(first);
        let later = page.clone();
        Effect::new(move |again: Option<()>| {
            if let (Some(()), Some(answer)) = (again, resource.get()) {
                let taken = answer.and_then(|bodies| later.take(&bodies));
                // The last good data stay.
                if state.with_untracked(Result::is_err) {
                    state.set(taken);
                }
            }
        });
        let good = Memo::new(move |_| state.with(Result::is_ok));
        let shown = move || {
            if good.get() {
                let page = page.clone();
                piece(move || {
                    let drawn = page.draw();
                    #[cfg(feature = "hydrate")]
                    look_again(known, missed);
                    drawn
                })
            } else {
                (move || state.with(|s| s.as_ref().err().map(error::page))).into_any()
            }
        };
        shown.into_any()
    };
    #[cfg(feature = "hydrate")]
    if crate::hydration::hydrates() {
        return crate::hydration::when(content);
    }
    view! { <Transition>{Suspend::new(content)}</Transition> }.into_any()
}
