//! The pages.

pub mod job;
pub mod jobs;
pub mod login;
pub mod new_clone;
pub mod new_vm;
pub mod overview;
pub mod settings;
pub mod vm;
pub mod vms;

use crate::components::error;
use crate::components::frame::bar;
use crate::words::w;
use leptos::prelude::*;
use leptos_router::hooks::{use_params_map, use_query_map};
use shared::Status;

/// A part of the path.
pub fn param(name: &'static str) -> Memo<String> {
    let params = use_params_map();
    Memo::new(move |_| params.with(|p| p.get_str(name).unwrap_or_default().to_owned()))
}

/// A part of the query.
pub fn query(name: &'static str) -> Memo<String> {
    let query = use_query_map();
    Memo::new(move |_| query.with(|q| q.get_str(name).unwrap_or_default().to_owned()))
}

/// What stands where nothing is.
pub fn not_found() -> AnyView {
    let path = leptos_router::hooks::use_location().pathname.get_untracked();
    view! {
        {bar(Vec::new(), w().not_found.to_owned())}
        {error::page(&Status::not_found("page", path))}
    }
    .into_any()
}

/// One line, and the button that begins.
pub fn empty(line: &'static str, action: AnyView) -> AnyView {
    view! {
        <div class="empty">
            <p>{line}</p>
            {action}
        </div>
    }
    .into_any()
}

/// A filter term for a value that a person typed: terms stand with spaces between, so a term has none.
pub fn contains(field: &str, typed: &str) -> Vec<String> {
    typed
        .split_whitespace()
        .map(|word| format!("{field}:{word}"))
        .collect()
}
