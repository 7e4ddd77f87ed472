//! The console of Offshoot: pages that the server renders and the browser brings to life.
//!
//! The server (feature `ssr`) renders [`shell`] with a [`Backend`] in context, and passes what `/do/…` forms post
//! through [`forms`]. The browser (feature `hydrate`) starts in `hydrate()`.

mod app;
pub mod backend;
mod components;
pub mod env;
mod feed;
mod format;
pub mod forms;
mod hydration;
mod live;
mod pages;
mod shell;
mod words;

pub use app::App;
pub use backend::Backend;
pub use env::{SetStatus, Theme};
pub use shell::{Assets, ShellOptions, shell};
#[cfg(not(feature = "hydrate"))]
pub use words::speaking;
pub use words::{Language, Words, put};

/// Brings the page that the server rendered to life, in these words. Where they are not all there it stays as it is:
/// it works as HTML, too.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate(words: String) {
    console_error_panic_hook::set_once();
    if words::learn(words) {
        hydration::start(App);
    }
}
