//! Dialogs that live in the address (`?do=name`): the server shows them open, the browser makes them modal, going back
//! closes them, and each can be linked to.

use crate::forms::without_dialog;
use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_location, use_navigate};

/// A dialog that is open while the address says `?do=name`.
pub fn dialog(
    name: &'static str,
    title: String,
    body: impl Fn() -> AnyView + Send + Sync + 'static,
) -> AnyView {
    // Not the route's query: that stays as it was when only a parameter of the path changes, as from the id of a machine
    // to its name.
    let location = use_location();
    let query = location.query;
    let navigate = use_navigate();
    let open = Memo::new(move |_| query.with(|q| q.get_str("do") == Some(name)));
    let node = NodeRef::<leptos::html::Dialog>::new();
    let heading = format!("dialog-{name}");
    let title_id = heading.clone();
    Effect::new(move |_| {
        let (Some(dialog), open) = (node.get(), open.get()) else {
            return;
        };
        if open && !dialog.matches(":modal").unwrap_or(false) {
            // Shown by the server, it is open but not modal. Closing it would count as the person's wish.
            _ = dialog.remove_attribute("open");
            _ = dialog.show_modal();
        } else if !open && dialog.open() {
            dialog.close();
        }
    });
    let closed = move |_| {
        if open.get_untracked() {
            let (path, search) = (location.pathname.get_untracked(), location.search.get_untracked());
            let options = NavigateOptions {
                replace: true,
                scroll: false,
                ..NavigateOptions::default()
            };
            navigate(&without_dialog(&format!("{path}?{search}")), options);
        }
    };
    let shown = open.get_untracked();
    view! {
        <dialog class="sheet" data-light="" node_ref=node open=shown aria-labelledby=heading on:close=closed>
            <div class="sheet-in">
                <h2 id=title_id>{title}</h2>
                {move || open.get().then(&body)}
            </div>
        </dialog>
    }
    .into_any()
}

/// Closes the dialog that it stands in; without WASM it is a link to the page without it.
pub fn cancel(to: String, label: &'static str) -> AnyView {
    view! {
        <a class="button" href=to data-noscroll="">
            {label}
        </a>
    }
    .into_any()
}
