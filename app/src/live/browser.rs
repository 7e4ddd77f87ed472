//! The few things that are asked of the browser itself.

use std::cell::RefCell;
use wasm_bindgen::prelude::*;
use web_sys::{Document, Element, Event, HtmlElement, Window};

pub fn window() -> Window {
    // WASM of this crate runs in pages only, and a page has a window with a document that has a root.
    #[allow(clippy::expect_used)]
    web_sys::window().expect("a page has a window")
}

pub fn document() -> Document {
    #[allow(clippy::expect_used)]
    window().document().expect("a page has a document")
}

pub fn body() -> HtmlElement {
    #[allow(clippy::expect_used)]
    document().body().expect("a page has a body")
}

/// A dialog that a person is in.
pub const OPEN_DIALOG: &str = "dialog[open], dialog:popover-open";

/// The `<html>` element.
pub fn root() -> Element {
    #[allow(clippy::expect_used)]
    document().document_element().expect("a page has a root")
}

pub fn hidden() -> bool {
    document().hidden()
}

pub fn find(selector: &str) -> Option<HtmlElement> {
    document().query_selector(selector).ok()??.dyn_into().ok()
}

/// Puts the keyboard's focus there.
pub fn focus(selector: &str) -> bool {
    find(selector).is_some_and(|e| e.focus().is_ok())
}

/// Has a screen reader say it.
pub fn announce(text: &str) {
    if let Some(region) = find("#announcer") {
        region.set_text_content(Some(text));
    }
}

/// Calls back every so many milliseconds, for as long as the tab lives.
pub fn every(millis: i32, callback: impl Fn() + 'static) {
    let callback = Closure::<dyn Fn()>::new(callback).into_js_value();
    // Fails only without a function to call.
    _ = window().set_interval_with_callback_and_timeout_and_arguments_0(callback.unchecked_ref(), millis);
}

/// Calls back once.
pub fn later(millis: i32, callback: impl FnOnce() + 'static) {
    let callback = Closure::once_into_js(callback);
    // Fails only without a function to call.
    _ = window().set_timeout_with_callback_and_timeout_and_arguments_0(callback.unchecked_ref(), millis);
}

/// Waits so many milliseconds.
pub async fn wait(millis: i32) {
    let promise = js_sys::Promise::new(&mut |done, _| {
        // Fails only without a function to call.
        _ = window().set_timeout_with_callback_and_timeout_and_arguments_0(&done, millis);
    });
    // It is never refused.
    _ = wasm_bindgen_futures::JsFuture::from(promise).await;
}

/// Calls back when the browser has had its turn. Unlike a timer it is not slowed down in a tab that nobody sees.
pub fn next(callback: impl FnOnce() + 'static) {
    // Fails only where there is no memory.
    if let Ok(channel) = web_sys::MessageChannel::new() {
        let callback = Closure::once_into_js(callback);
        channel.port1().set_onmessage(Some(callback.unchecked_ref()));
        _ = channel.port2().post_message(&JsValue::NULL);
    }
}

/// Calls back before the browser paints next.
pub fn soon(callback: impl FnOnce() + 'static) {
    let callback = Closure::once_into_js(callback);
    // Fails only without a function to call.
    _ = window().request_animation_frame(callback.unchecked_ref());
}

/// Calls back when the last call is so many milliseconds ago: for what is typed.
pub fn settled(millis: i32, callback: impl FnOnce() + 'static) {
    thread_local! {
        static TIMER: RefCell<Option<i32>> = const { RefCell::new(None) };
    }
    let callback = Closure::once_into_js(callback);
    let next = window()
        .set_timeout_with_callback_and_timeout_and_arguments_0(callback.unchecked_ref(), millis)
        .ok();
    if let Some(before) = TIMER.replace(next) {
        window().clear_timeout_with_handle(before);
    }
}

/// Listens on the document, for as long as the tab lives.
pub fn on_document(event: &str, callback: impl Fn(Event) + 'static) {
    on(&document(), event, callback);
}

/// Listens on the window, for as long as the tab lives.
pub fn on_window(event: &str, callback: impl Fn(Event) + 'static) {
    on(&window(), event, callback);
}

fn on(target: &web_sys::EventTarget, event: &str, callback: impl Fn(Event) + 'static) {
    let callback = Closure::<dyn Fn(Event)>::new(callback).into_js_value();
    // Fails only for a listener that is none.
    _ = target.add_event_listener_with_callback(event, callback.unchecked_ref());
}

/// The element that an event met, or the nearest around it, that matches.
pub fn met(event: &Event, selector: &str) -> Option<HtmlElement> {
    let at: Element = event.target()?.dyn_into().ok()?;
    at.closest(selector).ok()??.dyn_into().ok()
}

/// Names and values of a form, with the button that sent it.
pub fn fields(form: &web_sys::HtmlFormElement, submitter: Option<&HtmlElement>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if let Ok(data) = web_sys::FormData::new_with_form(form) {
        for entry in data.entries().into_iter().flatten() {
            let pair: js_sys::Array = entry.unchecked_into();
            if let (Some(name), Some(value)) = (pair.get(0).as_string(), pair.get(1).as_string()) {
                all.push((name, value));
            }
        }
    }
    let button = submitter.and_then(|b| b.dyn_ref::<web_sys::HtmlButtonElement>());
    if let Some(button) = button.filter(|b| !b.name().is_empty()) {
        all.push((button.name(), button.value()));
    }
    all
}
