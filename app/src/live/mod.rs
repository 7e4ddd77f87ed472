//! What makes the server's page a live one. Everything that can be is done by a few listeners on the document, so that
//! a page stays plain HTML: links, forms, `<details>` and `<dialog>`.

#[cfg(feature = "hydrate")]
pub mod browser;
#[cfg(feature = "hydrate")]
mod keys;
#[cfg(feature = "hydrate")]
mod submit;
pub mod upload;

use crate::env::{Clock, Env, Flashes};
use crate::feed::Feed;

/// Brings the page to life; on the server it stays as it is.
#[cfg(not(feature = "hydrate"))]
pub fn start(_: &Env, _: Clock, _: Feed, _: Flashes) {}

/// Brings the page to life.
#[cfg(feature = "hydrate")]
pub fn start(env: &Env, clock: Clock, feed: Feed, flashes: Flashes) {
    use leptos::prelude::*;

    let (at, place) = (env.now, env.feed_place.clone());
    let navigate = leptos_router::hooks::use_navigate();
    let location = leptos_router::hooks::use_location();
    Effect::new(move |_| {
        let query = location
            .query
            .with(leptos_router::params::ParamsMap::to_query_string);
        WANTED.set(location.pathname.get() + &query);
    });
    Effect::new(move |_| {
        if !crate::hydration::alive() {
            return;
        }
        let (navigate, place) = (navigate.clone(), place.clone());
        tick(clock, at);
        submit::start(navigate, flashes);
        keys::start();
        if !place.is_empty() {
            crate::feed::start(feed, &place);
        }
        // Fails only for a name that is no attribute's.
        _ = browser::root().set_attribute("data-live", "");
    });
}

#[cfg(feature = "hydrate")]
fn tick(clock: Clock, rendered: shared::Timestamp) {
    use leptos::prelude::*;

    let own = || shared::Timestamp::from_micros((js_sys::Date::now() * 1000.0) as i64);
    let ahead = rendered.since(own());
    // A few seconds are the time that the page took to come alive; more is a clock that is wrong.
    let ahead = if ahead.abs() < 30_000_000 { 0 } else { ahead };
    clock
        .zone
        .set(-(js_sys::Date::new_0().get_timezone_offset() as i32));
    clock.now.set(own().plus_micros(ahead));
    browser::every(1000, move || {
        if !browser::hidden() {
            clock.now.set(own().plus_micros(ahead));
        }
    });
}

/// Closes the palette.
#[cfg(feature = "hydrate")]
pub fn close_palette() {
    keys::close(keys::PALETTE);
}

#[cfg(feature = "hydrate")]
thread_local! {
    /// Where the person wants to be: while a page is on its way, the browser's address is still the old one.
    static WANTED: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Goes to the sign-in page, and back here afterwards.
#[cfg(feature = "hydrate")]
pub fn sign_in_again() {
    if !signed_out() {
        let here = WANTED.with_borrow(Clone::clone);
        let to = format!("/login?next={}", shared::api::encode(&here));
        // Fails only for an address that is none.
        _ = browser::window().location().set_href(&to);
    }
}

/// The person signs out: what is still asked would only be refused, and must not lead back here.
#[cfg(feature = "hydrate")]
pub fn sign_out() {
    WANTED.set("/login".to_owned());
}

/// Whether the person is on the way out, or not in.
#[cfg(feature = "hydrate")]
pub fn signed_out() -> bool {
    WANTED.with_borrow(|here| here.starts_with("/login"))
}

/// For how many frames the heading of a new page is waited for.
#[cfg(feature = "hydrate")]
const FRAMES: u32 = 600;

/// When a new page has come, moves to its heading and says what it is.
#[cfg(feature = "hydrate")]
pub fn arrivals(routing: leptos::prelude::ReadSignal<bool>, path: leptos::prelude::Memo<String>) {
    use leptos::prelude::*;

    /// The heading of a page that still loads comes with its data.
    fn greet(patience: u32) {
        browser::soon(move || {
            // With a dialog open the focus is where it belongs.
            if browser::find(browser::OPEN_DIALOG).is_some() {
                return;
            }
            if browser::focus("main h1") {
                browser::announce(&browser::document().title());
            } else if patience > 0 {
                greet(patience - 1);
            }
        });
    }
    let arrived = || greet(FRAMES);
    Effect::new(move |before: Option<bool>| {
        let now = routing.get();
        if before == Some(true) && !now {
            arrived();
        }
        now
    });
    // Between two pages of one kind the router only changes what it is of.
    Effect::new(move |before: Option<()>| {
        path.track();
        if before.is_some() {
            browser::later(60, move || {
                if routing.try_get_untracked() == Some(false) {
                    arrived();
                }
            });
        }
    });
}
