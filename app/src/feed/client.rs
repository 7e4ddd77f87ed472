//! One feed for all tabs of a browser. The tab that holds the lock listens to the server and tells the others over a
//! channel, what it hears and that the link lives; HTTP/1.1 allows six connections to a server, so the seventh tab
//! with a feed of its own would hang.

use super::source::Source;
use super::{Change, Feed, Link};
use crate::live::browser::{self, every, later};
use leptos::prelude::*;
use shared::feed::{ALIVE, Noun, Place, RESET, SILENCE_SECONDS};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// How often what is shown is loaded again while the link is lost.
const POLL: i32 = 5_000;
/// How often silence is looked at.
const WATCH: i32 = 1_000;
/// A tab that has just come asks where the feed stands.
const HELLO: &str = "hello";
/// The listening tab answers; it also says so when its place moves.
const HERE: &str = "here";
/// The listening tab has lost the server.
const LOST: &str = "lost";

#[wasm_bindgen]
extern "C" {
    /// `navigator.locks` is missing where the page is not from a secure place.
    #[wasm_bindgen(catch, js_namespace = ["navigator", "locks"], js_name = request)]
    fn request_lock(name: &str, callback: &js_sys::Function) -> Result<js_sys::Promise, JsValue>;
}

type Listener = Rc<dyn Fn(&Change)>;
type Hearer = Rc<dyn Fn(&str, &str)>;

thread_local! {
    static LISTENERS: RefCell<Vec<(u32, Listener)>> = const { RefCell::new(Vec::new()) };
    static TOLD: Cell<u32> = const { Cell::new(0) };
    static NEXT: Cell<u32> = const { Cell::new(0) };
    static TAB: RefCell<Option<Tab>> = const { RefCell::new(None) };
}

/// This tab's end of the feed.
struct Tab {
    feed: Feed,
    /// The last place that this tab has seen everything up to.
    place: Option<Place>,
    /// Whether it knows what it has missed: until then the place stays where the page was rendered.
    joined: bool,
    channel: Option<web_sys::BroadcastChannel>,
    /// When the link last gave a sign of life.
    heard: f64,
    source: Option<Source>,
}

pub fn subscribe(callback: impl Fn(&Change) + 'static) {
    let id = NEXT.replace(NEXT.get() + 1);
    LISTENERS.with_borrow_mut(|all| all.push((id, Rc::new(callback))));
    on_cleanup(move || LISTENERS.with_borrow_mut(|all| all.retain(|(i, _)| *i != id)));
}

pub fn told_so_far() -> u32 {
    TOLD.get()
}

/// Joins the feed at the place where the page was rendered.
pub fn start(feed: Feed, place: &str) {
    let channel = web_sys::BroadcastChannel::new("offshoot-feed").ok();
    if let Some(channel) = &channel {
        let heard = Closure::<dyn Fn(web_sys::MessageEvent)>::new(|e: web_sys::MessageEvent| {
            let text = e.data().as_string().unwrap_or_default();
            let mut lines = text.splitn(3, '\n');
            let (event, id, data) = (lines.next(), lines.next(), lines.next());
            told(
                event.unwrap_or_default(),
                id.unwrap_or_default(),
                data.unwrap_or_default(),
            );
        });
        channel.set_onmessage(Some(heard.into_js_value().unchecked_ref()));
    }
    TAB.set(Some(Tab {
        feed,
        place: place.parse().ok(),
        joined: false,
        channel,
        heard: js_sys::Date::now(),
        source: None,
    }));
    hello();
    // A tab that slept may have missed something.
    browser::on_window("pageshow", |_| hello());
    browser::on_document("visibilitychange", |_| hello());
    every(WATCH, watch);
    every(POLL, || {
        if let Some(feed) = TAB.with_borrow(|t| t.as_ref().map(|t| t.feed))
            && feed.link.get_untracked() == Link::Lost
        {
            feed.reloads.update(|n| *n += 1);
        }
    });
    // The lock is held until the tab is gone: the promise never settles.
    let lead = Closure::once_into_js(|| {
        open();
        js_sys::Promise::new(&mut |_, _| {})
    });
    if request_lock("offshoot-feed", lead.unchecked_ref()).is_err() {
        open();
    }
}

fn joined() {
    TAB.with_borrow_mut(|t| {
        if let Some(t) = t {
            t.joined = true;
        }
    });
}

/// Listens to the server, from this tab's place on.
fn open() {
    joined();
    let place = TAB.with_borrow(|t| t.as_ref().and_then(|t| t.place));
    let hear: Hearer = Rc::new(|event, id_and_data| {
        let (id, data) = id_and_data.split_once('\n').unwrap_or((id_and_data, ""));
        tell(event, id, data);
        take(event, id, data);
    });
    let source = Source::open(place, hear, || {
        tell(LOST, "", "");
        silent();
        // One 503 closes an EventSource for good, so a new one is made each time.
        later(1_000 + (js_sys::Math::random() * 1_000.0) as i32, open);
    });
    TAB.with_borrow_mut(|t| {
        if let Some(t) = t {
            t.source = source;
        }
    });
}

/// Asks the listening tab where it stands.
fn hello() {
    tell(HELLO, "", "");
}

/// Tells the other tabs.
fn tell(event: &str, id: &str, data: &str) {
    TAB.with_borrow(|t| {
        if let Some(channel) = t.as_ref().and_then(|t| t.channel.as_ref()) {
            // A channel refuses only what cannot be cloned; a string can.
            _ = channel.post_message(&format!("{event}\n{id}\n{data}").into());
        }
    });
}

/// What another tab told.
fn told(event: &str, id: &str, data: &str) {
    let leads = TAB.with_borrow(|t| t.as_ref().is_some_and(|t| t.source.is_some()));
    match event {
        HELLO => {
            let place = TAB.with_borrow(|t| t.as_ref().and_then(|t| t.place));
            if let (true, Some(place)) = (leads, place) {
                tell(HERE, &place.to_string(), "");
            }
        }
        HERE => {
            // What came between this page's rendering and its hello went to the others only.
            let missed = TAB.with_borrow(
                |t| match (t.as_ref().and_then(|t| t.place), id.parse::<Place>()) {
                    (Some(own), Ok(there)) => own.epoch != there.epoch || own.generation < there.generation,
                    _ => false,
                },
            );
            joined();
            take(if missed { RESET } else { ALIVE }, id, "");
        }
        LOST => silent(),
        _ => take(event, id, data),
    }
}

/// What the feed said.
fn take(event: &str, id: &str, data: &str) {
    let feed = TAB.with_borrow_mut(|t| {
        let t = t.as_mut()?;
        t.heard = js_sys::Date::now();
        if let Ok(place) = id.parse()
            && t.joined
        {
            t.place = Some(place);
        }
        Some(t.feed)
    });
    let Some(feed) = feed else { return };
    let was = feed.link.get_untracked();
    if was != Link::Live {
        feed.link.set(Link::Live);
    }
    match event {
        ALIVE => {}
        RESET => feed.reloads.update(|n| *n += 1),
        noun => {
            let change = noun.parse::<Noun>().ok().and_then(|n| Change::read(n, data));
            if let Some(change) = change {
                TOLD.set(TOLD.get().wrapping_add(1));
                let all = LISTENERS.with_borrow(Clone::clone);
                for (_, listener) in all {
                    listener(&change);
                }
            }
        }
    }
}

fn silent() {
    if let Some(feed) = TAB.with_borrow(|t| t.as_ref().map(|t| t.feed))
        && feed.link.get_untracked() != Link::Lost
    {
        feed.link.set(Link::Lost);
    }
}

fn watch() {
    let (quiet, leads) = TAB.with_borrow(|t| {
        t.as_ref().map_or((false, false), |t| {
            let silence = js_sys::Date::now() - t.heard;
            (
                silence > SILENCE_SECONDS as f64 * 1000.0 && !browser::hidden(),
                t.source.is_some(),
            )
        })
    });
    if !quiet {
        return;
    }
    silent();
    if leads {
        // The connection may look open and be dead: begin anew, and give it as long again.
        TAB.with_borrow_mut(|t| {
            if let Some(t) = t {
                t.source = None;
                t.heard = js_sys::Date::now();
            }
        });
        open();
    }
}
