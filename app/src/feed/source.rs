//! An EventSource that is closed when it is dropped.

use shared::feed::{ALIVE, Noun, Place, RESET};
use std::cell::Cell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Hears an event: its name and its data.
pub type Hear = Rc<dyn Fn(&str, &str)>;

pub struct Source {
    events: web_sys::EventSource,
    // Freed only after the EventSource is closed.
    _heard: Closure<dyn Fn(web_sys::MessageEvent)>,
    _failed: Closure<dyn Fn()>,
}

impl Source {
    /// Listens from `place` on; `hear` gets the event's name, and its id and data with a line break between. `lost` is
    /// called once, when the link fails.
    pub fn open(place: Option<Place>, hear: Hear, lost: impl Fn() + 'static) -> Option<Self> {
        let after = place.map(|p| format!("?after={p}")).unwrap_or_default();
        let events = web_sys::EventSource::new(&format!("/api/v1/events{after}")).ok()?;
        let heard = Closure::<dyn Fn(_)>::new(move |e: web_sys::MessageEvent| {
            let data = e.data().as_string().unwrap_or_default();
            hear(&e.type_(), &format!("{}\n{data}", e.last_event_id()));
        });
        let names = Noun::ALL.iter().map(|n| n.word()).chain([RESET, ALIVE]);
        for name in names {
            events
                .add_event_listener_with_callback(name, heard.as_ref().unchecked_ref())
                .ok()?;
        }
        let over = Cell::new(false);
        let failed = Closure::<dyn Fn()>::new({
            let events = events.clone();
            move || {
                events.close();
                if !over.replace(true) {
                    lost();
                }
            }
        });
        events.set_onerror(Some(failed.as_ref().unchecked_ref()));
        Some(Self {
            events,
            _heard: heard,
            _failed: failed,
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.events.set_onerror(None);
        self.events.close();
    }
}
