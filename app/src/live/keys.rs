//! The keys: see the table in the dialog that `?` opens.

use super::browser::{self, focus, met};
use wasm_bindgen::JsCast;
use web_sys::{Event, KeyboardEvent};

/// Ids of the dialogs that keys open.
pub const PALETTE: &str = "palette";
pub const KEYS: &str = "keys";

pub fn start() {
    browser::on_document("keydown", pressed);
    browser::on_document("click", |e| {
        if let Some(opener) = met(&e, "[data-opens]") {
            open(&opener.get_attribute("data-opens").unwrap_or_default());
        }
        // A click on the backdrop meets the dialog itself, not what is in it.
        let at = e
            .target()
            .and_then(|t| t.dyn_into::<web_sys::HtmlDialogElement>().ok());
        if let Some(dialog) = at.filter(|d| d.has_attribute("data-light")) {
            dialog.close();
        }
    });
}

/// Opens a dialog that stands on every page.
pub fn open(id: &str) {
    let dialog = browser::document()
        .get_element_by_id(id)
        .and_then(|d| d.dyn_into::<web_sys::HtmlDialogElement>().ok());
    if let Some(dialog) = dialog.filter(|d| !d.open()) {
        // Fails only for a dialog that is open or not in the page.
        _ = dialog.show_modal();
    }
}

/// Closes it.
pub fn close(id: &str) {
    let dialog = browser::document()
        .get_element_by_id(id)
        .and_then(|d| d.dyn_into::<web_sys::HtmlDialogElement>().ok());
    if let Some(dialog) = dialog {
        dialog.close();
    }
}

fn pressed(e: Event) {
    let Some(key) = e.dyn_ref::<KeyboardEvent>() else {
        return;
    };
    if (key.ctrl_key() || key.meta_key()) && key.key().eq_ignore_ascii_case("k") {
        e.prevent_default();
        open(PALETTE);
        return;
    }
    if key.key() == "Escape" {
        if let Some(menu) = browser::find("details.menu[open]") {
            _ = menu.remove_attribute("open");
            if let Ok(Some(summary)) = menu.query_selector("summary") {
                _ = summary.dyn_into::<web_sys::HtmlElement>().map(|s| s.focus());
            }
        }
        return;
    }
    let typing = met(
        &e,
        "input:not([type=checkbox]):not([type=radio]), textarea, select",
    )
    .is_some()
        // Until the next picture the focus is still in a dialog that was just closed.
        && met(&e, "dialog:not([open])").is_none();
    if typing || key.ctrl_key() || key.meta_key() || key.alt_key() || browser::find("dialog:modal").is_some()
    {
        return;
    }
    match key.key().as_str() {
        "/" => {
            e.prevent_default();
            if !focus("main input[type=search]") {
                open(PALETTE);
            }
        }
        "?" => {
            e.prevent_default();
            open(KEYS);
        }
        _ => {}
    }
}
