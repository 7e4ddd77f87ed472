//! Moments and durations that go on by themselves.

use crate::env::clock;
use crate::format;
use leptos::prelude::*;
use shared::Timestamp;

/// A moment: relative, absolute on hover.
pub fn ago(t: Timestamp) -> AnyView {
    let clock = clock();
    view! {
        <time datetime=t.to_string() title=move || format::absolute(t, clock.zone.get())>
            {move || format::ago(clock.now.get(), t)}
        </time>
    }
    .into_any()
}

/// How long something took, or has been going on.
pub fn took(start: Option<Timestamp>, end: Option<Timestamp>) -> AnyView {
    let Some(start) = start else { return ().into_any() };
    match end {
        Some(end) => format::duration(end.since(start)).into_any(),
        None => {
            let clock = clock();
            (move || format::elapsed(clock.now.get().since(start))).into_any()
        }
    }
}
