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

/// Brings the page that the server rendered to life.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    console_error_panic_hook::set_once();
    hydration::start(App);
}
