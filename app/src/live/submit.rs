//! Catches what would leave the page: forms that post, forms that filter, and buttons that are not allowed.

use super::browser::{self, fields, met};
use crate::backend;
use crate::env::Flashes;
use crate::forms::{self, Done, Flash};
use crate::words::w;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::NavigateOptions;
use std::rc::Rc;
use wasm_bindgen::JsCast;
use web_sys::{Event, HtmlFormElement, SubmitEvent};

type Navigate = Rc<dyn Fn(&str, bool)>;

pub fn start(navigate: impl Fn(&str, NavigateOptions) + 'static, flashes: Flashes) {
    let navigate: Navigate = Rc::new(move |to, replace| {
        let options = NavigateOptions {
            replace,
            scroll: !replace,
            ..NavigateOptions::default()
        };
        navigate(to, options);
    });
    let go = navigate.clone();
    browser::on_document("submit", move |e| submitted(&e, &go, flashes));
    let go = navigate.clone();
    browser::on_document("change", move |e| {
        if let Some(form) = filter_form(&e) {
            filter(&form, &go);
        }
    });
    browser::on_document("input", move |e| {
        let typed = e
            .target()
            .and_then(|t| t.dyn_into::<web_sys::HtmlInputElement>().ok());
        if let (Some(form), Some(_)) = (filter_form(&e), typed) {
            let go = navigate.clone();
            browser::settled(200, move || filter(&form, &go));
        }
    });
    browser::on_document("change", |e| select_all(&e));
    browser::on_document("click", clicked);
}

/// The form around an event that filters the page.
fn filter_form(e: &Event) -> Option<HtmlFormElement> {
    met(e, "form[data-filter]")?.dyn_into().ok()
}

/// Puts a filter form's fields into the address.
fn filter(form: &HtmlFormElement, navigate: &Navigate) {
    let query: Vec<_> = fields(form, None)
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", shared::api::encode(&value)))
        .collect();
    let path = form.get_attribute("action").unwrap_or_default();
    let to = if query.is_empty() {
        path
    } else {
        format!("{path}?{}", query.join("&"))
    };
    navigate(&to, true);
}

fn submitted(e: &Event, navigate: &Navigate, flashes: Flashes) {
    let Some(form) = e.target().and_then(|t| t.dyn_into::<HtmlFormElement>().ok()) else {
        return;
    };
    if form.has_attribute("data-filter") {
        e.prevent_default();
        filter(&form, navigate);
        return;
    }
    let action = form.get_attribute("action").unwrap_or_default();
    if action == "/logout" {
        super::sign_out();
    }
    if !action.starts_with("/do/") || action == forms::LANGUAGE {
        return;
    }
    e.prevent_default();
    // A second click while the first is under way does nothing.
    if form.has_attribute("data-busy") {
        return;
    }
    let submitter = e.dyn_ref::<SubmitEvent>().and_then(SubmitEvent::submitter);
    let fields = fields(&form, submitter.as_ref());
    // Fails only for a name that is no attribute's.
    _ = form.set_attribute("data-busy", "");
    let navigate = navigate.clone();
    spawn_local(async move {
        let Done { to, flash } = backend::post(&action, &fields)
            .await
            .unwrap_or_else(|error| Done {
                to: here(),
                flash: Flash {
                    action: action.clone(),
                    inline: fields.iter().any(|(name, _)| name == "inline"),
                    error: Some(error),
                    ..Flash::default()
                },
            });
        let ok = flash.error.is_none();
        let theme = fields.iter().find(|(name, _)| ok && name == "theme");
        if let Some((_, theme)) = theme {
            // Fails only for a name that is no attribute's.
            _ = browser::root().set_attribute("data-theme", theme);
        }
        let field = flash.error.as_ref().and_then(|e| e.field().map(str::to_owned));
        flashes.0.set((!ok || action != "/do/theme").then_some(flash));
        _ = form.remove_attribute("data-busy");
        if ok {
            if let Some(menu) = form.closest("details.menu").ok().flatten() {
                _ = menu.remove_attribute("open");
            }
            if action.contains("/tokens/") || action.contains("/me/") {
                form.reset();
            }
            if to != here() {
                // A dialog that is done with is not come back to.
                navigate(&to, forms::without_dialog(&here()) == to);
            }
        } else if let Some(field) = field {
            let wrong = form.query_selector(&format!("[name='{field}']")).ok().flatten();
            if let Some(wrong) = wrong.and_then(|f| f.dyn_into::<web_sys::HtmlElement>().ok()) {
                _ = wrong.focus();
            }
        }
    });
}

fn here() -> String {
    let location = browser::window().location();
    location.pathname().unwrap_or_default() + &location.search().unwrap_or_default()
}

fn clicked(e: Event) {
    if met(&e, "[aria-disabled='true']").is_some() {
        e.prevent_default();
        e.stop_propagation();
        return;
    }
    if let Some(button) = met(&e, "[data-copy]") {
        copy(button);
    }
    // A click elsewhere closes an open menu.
    let own = met(&e, "details.menu");
    let open = browser::document().query_selector_all("details.menu[open]");
    for at in 0..open.as_ref().map_or(0, |l| l.length()) {
        let menu = open.as_ref().ok().and_then(|l| l.get(at));
        let menu = menu.and_then(|m| m.dyn_into::<web_sys::HtmlElement>().ok());
        if let Some(menu) = menu.filter(|m| Some(m) != own.as_ref()) {
            _ = menu.remove_attribute("open");
        }
    }
}

/// Copies what a button carries, and says so in its place for a moment.
fn copy(button: web_sys::HtmlElement) {
    let text = button.get_attribute("data-copy").unwrap_or_default();
    spawn_local(async move {
        // There is no clipboard where the page is not from a secure place.
        let navigator = browser::window().navigator();
        let there = js_sys::Reflect::get(&navigator, &"clipboard".into()).is_ok_and(|c| !c.is_undefined());
        let done = there && {
            let promise = navigator.clipboard().write_text(&text);
            wasm_bindgen_futures::JsFuture::from(promise).await.is_ok()
        };
        let word = if done { w().copied } else { w().copy_failed };
        _ = button.set_attribute("data-said", word);
        browser::announce(word);
        browser::later(2_000, move || _ = button.remove_attribute("data-said"));
    });
}

/// Selects or lets go of every row of the table that the box stands in.
fn select_all(e: &Event) {
    let Some(all) = met(e, "[data-select-all]").and_then(|b| b.dyn_into::<web_sys::HtmlInputElement>().ok())
    else {
        return;
    };
    let table = all.closest("table").ok().flatten();
    let boxes = table.and_then(|t| t.query_selector_all("tbody input[name=id]").ok());
    for at in 0..boxes.as_ref().map_or(0, web_sys::NodeList::length) {
        let row = boxes.as_ref().and_then(|l| l.get(at));
        if let Some(row) = row.and_then(|n| n.dyn_into::<web_sys::HtmlInputElement>().ok()) {
            row.set_checked(all.checked());
        }
    }
}
