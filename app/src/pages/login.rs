//! Signing in: a plain form, for everybody, with or without WASM.

use super::query;
use crate::components::frame::leaf;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;

pub fn page() -> AnyView {
    let (error, name, next) = (query("error"), query("name"), query("next"));
    // Words that the server knows: what else stands in a link is not shown.
    let error = match error.get_untracked().as_str() {
        "wrong" => Some(w().sign_in_wrong),
        "wait" => Some(w().sign_in_wait),
        _ => None,
    };
    let wrong = error.map(|_| "true");
    view! {
        <Title text=w().sign_in/>
        <main class="door" id="main">
            <form method="post" action="/login" class="sheet">
                <div class="sheet-in">
                    <div class="brand">{leaf()} "Offshoot"</div>
                    <h1 tabindex="-1">{w().sign_in}</h1>
                    <input type="hidden" name="next" value=next.get_untracked()/>
                    {error
                        .map(|why| {
                            view! {
                                <div class="alert" role="alert" id="wrong">
                                    {why}
                                </div>
                            }
                        })}
                    <div class="field">
                        <label for="name">{w().user_name}</label>
                        <input
                            id="name"
                            name="name"
                            required=true
                            autofocus=true
                            autocomplete="username"
                            autocapitalize="none"
                            spellcheck="false"
                            value=name.get_untracked()
                            aria-invalid=wrong
                        />
                    </div>
                    <div class="field">
                        <label for="password">{w().password}</label>
                        <input
                            id="password"
                            name="password"
                            type="password"
                            required=true
                            autocomplete="current-password"
                            aria-invalid=wrong
                        />
                    </div>
                    <button class="go wide">{w().sign_in}</button>
                    <p class="faint">{w().sign_in_hint}</p>
                </div>
            </form>
        </main>
    }
    .into_any()
}
