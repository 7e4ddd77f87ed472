//! The choice of a language.

use crate::env::Env;
use crate::forms::LANGUAGE;
use crate::words::{Language, w};
use leptos::prelude::*;

/// A button for each language, under its own name; `back` is the page that is loaded again in it.
pub fn choice(back: String) -> AnyView {
    let now = Env::of_page().language;
    let one = |language: Language| {
        view! {
            <button
                name="language"
                value=language.code()
                lang=language.code()
                aria-current=(language == now).then_some("true")
            >
                {language.name()}
            </button>
        }
    };
    view! {
        <form method="post" action=LANGUAGE class="choices" aria-label=w().language>
            <input type="hidden" name="back" value=back/>
            {Language::ALL.map(one).into_iter().collect_view()}
        </form>
    }
    .into_any()
}
