//! Buttons that post, links that look like buttons; when not allowed they are there all the same, with the reason.

use crate::words::{put, w};
use leptos::prelude::*;
use shared::can::Verdict;

/// Where a button stands and what it does.
#[derive(Clone, Default)]
pub struct Button {
    /// `/do/…`, or an address.
    pub to: String,
    pub label: &'static str,
    /// `go`, `quiet`, `danger`, or nothing.
    pub class: &'static str,
    /// The page it stands on.
    pub back: String,
    /// A further field of its form.
    pub field: Option<(&'static str, String)>,
    /// What it is done to, for those who hear only the button: `web-1`.
    pub of: String,
}

/// The id of the element that has the reason: one for each button.
fn why_id(button: &Button) -> String {
    let field = button.field.as_ref().map_or("", |(_, value)| value);
    format!("why-{}{field}", clean(&button.to))
}

fn clean(path: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    path.chars().map(clean).collect()
}

/// Why not, if not.
pub fn reason(verdict: &Verdict) -> Option<String> {
    verdict.as_ref().err().map(|status| status.message.clone())
}

/// Posts when clicked.
pub fn post(button: Button, verdict: &Verdict) -> AnyView {
    let why = reason(verdict);
    let refused = why.is_some();
    let id = why_id(&button);
    let label = if button.of.is_empty() {
        None
    } else {
        Some(format!("{} {}", button.label, button.of))
    };
    view! {
        <form method="post" action=button.to class="why">
            <input type="hidden" name="back" value=button.back/>
            {button.field.map(|(name, value)| view! { <input type="hidden" name=name value=value/> })}
            <button
                type=if refused { "button" } else { "submit" }
                class=button.class
                aria-disabled=refused.then_some("true")
                aria-describedby=refused.then(|| id.clone())
                aria-label=label
            >
                {button.label}
            </button>
            {tip(id, why)}
        </form>
    }
    .into_any()
}

/// Sends the form around it, with this as its `action` if it is one of several. `to` is what the form posts to, or what
/// tells the button from others.
pub fn submit(
    to: &str,
    action: Option<&'static str>,
    class: &'static str,
    label: String,
    why: Signal<Option<String>>,
) -> AnyView {
    let id = format!("why-form-{}", clean(to));
    let described = id.clone();
    view! {
        <span class="why">
            <button
                type=move || if why.with(Option::is_some) { "button" } else { "submit" }
                name=action.map(|_| "action")
                value=action
                class=class
                aria-disabled=move || why.with(Option::is_some).then_some("true")
                aria-describedby=move || why.with(Option::is_some).then(|| described.clone())
            >
                {label}
            </button>
            {move || tip(id.clone(), why.get())}
        </span>
    }
    .into_any()
}

/// Goes there when clicked.
pub fn link(button: Button, verdict: &Verdict) -> AnyView {
    let why = reason(verdict);
    let refused = why.is_some();
    let id = why_id(&button);
    // A dialog opens over the page where it is.
    let noscroll = button.to.contains("?do=").then_some("");
    view! {
        <span class="why">
            <a
                class=format!("button {}", button.class)
                href=(!refused).then_some(button.to)
                data-noscroll=noscroll
                role=refused.then_some("link")
                tabindex=refused.then_some("0")
                aria-disabled=refused.then_some("true")
                aria-describedby=refused.then(|| id.clone())
            >
                {button.label}
            </a>
            {tip(id, why)}
        </span>
    }
    .into_any()
}

/// Why not: seen on hover and focus, and read to those who cannot see it.
pub fn tip(id: String, why: Option<String>) -> AnyView {
    why.map(|why| {
        view! {
            <span role="tooltip" id=id class="tip">
                {why}
            </span>
        }
    })
    .into_any()
}

/// Copies a text.
pub fn copy(text: String, label: &'static str) -> AnyView {
    view! {
        <button type="button" class="quiet copy" data-copy=text>
            {label}
        </button>
    }
    .into_any()
}

/// A menu: works without WASM.
pub fn menu(of: String, items: AnyView) -> AnyView {
    view! {
        <details class="menu">
            {dots(&of)}
            <div class="items">{items}</div>
        </details>
    }
    .into_any()
}

/// The menu of a row. A table has many, so each is drawn when it is opened; without WASM it leads to the row's own page,
/// which has the same.
pub fn row_menu(of: String, page: String, items: impl Fn() -> AnyView + Send + Sync + 'static) -> AnyView {
    let opened = RwSignal::new(false);
    let shown = move || {
        if opened.get() {
            items()
        } else {
            view! { <a class="button" href=page.clone()>{w().open_page}</a> }.into_any()
        }
    };
    view! {
        <details class="menu" on:toggle=move |_| opened.set(true)>
            {dots(&of)}
            <div class="items">{shown}</div>
        </details>
    }
    .into_any()
}

fn dots(of: &str) -> AnyView {
    view! {
        <summary aria-label=put(w().more_for, &[of])>
            <svg viewBox="0 0 16 16" aria-hidden="true">
                <path d="M3 8h.01M8 8h.01M13 8h.01"></path>
            </svg>
        </summary>
    }
    .into_any()
}
