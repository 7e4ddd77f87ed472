//! The screen of a guest, as fresh as the server can paint it.

use crate::words::{put, w};
use leptos::prelude::*;
use shared::vm::Vm;

/// How long a picture stands before the next is asked for, in milliseconds.
#[cfg(feature = "hydrate")]
const PERIOD: i32 = 500;

/// The pictures of a screen, one after the other.
#[derive(Clone, Copy)]
struct Pictures {
    /// Each picture has an address of its own; the first is the server's.
    turn: RwSignal<u32>,
    /// Whether there was none.
    broken: RwSignal<bool>,
    /// Whether the next is on its way.
    #[cfg(feature = "hydrate")]
    due: StoredValue<bool>,
}

impl Pictures {
    /// A picture came, or could not. The browser shows the old one until the new one is whole: nothing flickers.
    fn came(self, fine: bool) {
        self.broken.set(!fine);
        self.next();
    }

    #[cfg(not(feature = "hydrate"))]
    fn next(self) {}

    #[cfg(feature = "hydrate")]
    fn next(self) {
        use crate::live::browser;
        // Disposed when the page is left.
        if self.due.try_get_value() != Some(false) {
            return;
        }
        self.due.set_value(true);
        browser::later(PERIOD, move || {
            if self.due.try_set_value(false).is_some() {
                return;
            }
            if browser::hidden() {
                self.next();
            } else {
                self.turn.try_update(|n| *n += 1);
            }
        });
    }
}

/// The screen of a machine that runs; without one, the reason.
pub fn live(vm: Memo<Vm>) -> AnyView {
    let at = Memo::new(move |_| {
        vm.with(|v| {
            v.state
                .has_process()
                .then(|| (v.id.to_string(), v.name.to_string()))
        })
    });
    let pictures = Pictures {
        turn: RwSignal::new(0),
        broken: RwSignal::new(false),
        #[cfg(feature = "hydrate")]
        due: StoredValue::new(false),
    };
    Effect::new(move |_| {
        at.track();
        pictures.next();
    });
    let source = move |id: &str| match pictures.turn.get() {
        0 => format!("/api/v1/vms/{id}/screen"),
        n => format!("/api/v1/vms/{id}/screen?n={n}"),
    };
    view! {
        <div class="screen">
            {move || match at.get() {
                Some((id, name)) => {
                    view! {
                        <img
                            src=move || source(&id)
                            alt=put(w().screen_of, &[&name])
                            class:away=move || pictures.broken.get()
                            on:load=move |_| pictures.came(true)
                            on:error=move |_| pictures.came(false)
                        />
                        <span class="hud">
                            {move || if pictures.broken.get() { w().no_picture } else { w().live }}
                        </span>
                    }
                        .into_any()
                }
                None => view! { <p class="none">{w().no_screen}</p> }.into_any(),
            }}
        </div>
    }
    .into_any()
}
