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

/// Opens a dialog that stands on every page. It is a popover, not modal: making all of a long page inert, and alive again,
/// takes the browser longer than everything else that a key does.
pub fn open(id: &str) {
    if let Some(dialog) = by_id(id) {
        // Fails only for one that is open or not in the page.
        _ = dialog.show_popover();
    }
}

/// Closes it.
pub fn close(id: &str) {
    if let Some(dialog) = by_id(id) {
        // Fails only for one that is not open.
        _ = dialog.hide_popover();
    }
}

fn by_id(id: &str) -> Option<web_sys::HtmlElement> {
    browser::document().get_element_by_id(id)?.dyn_into().ok()
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
        && met(&e, "dialog:not([open]):not(:popover-open)").is_none();
    if typing
        || key.ctrl_key()
        || key.meta_key()
        || key.alt_key()
        || browser::find(browser::OPEN_DIALOG).is_some()
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
