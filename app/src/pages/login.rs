//! Signing in: plain forms, for everybody, with or without WASM. The second asks for a code where the user wants that.

use super::query;
use crate::components::frame::leaf;
use crate::components::language;
use crate::env::Env;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::api::encode;

/// A field of a form that lets in: its name, its label, its type, what it is for the browser, what stands in it.
type Field = (&'static str, &'static str, &'static str, &'static str, String);

pub fn page() -> AnyView {
    let name = query("name").get_untracked();
    let error = match query("error").get_untracked().as_str() {
        "late" => Some(w().sign_in_late),
        "disabled" => Some(w().sign_in_disabled),
        "wrong" => Some(w().sign_in_wrong),
        "wait" => Some(w().sign_in_wait),
        // Words that the server knows: what else stands in a link is not shown.
        _ => None,
    };
    let fields = vec![
        ("name", w().user_name, "text", "username", name),
        (
            "password",
            w().password,
            "password",
            "current-password",
            String::new(),
        ),
    ];
    let provider = Env::of_page().oidc.map(|label| {
        let label = if label.is_empty() {
            w().sign_in_oidc.to_owned()
        } else {
            label
        };
        let to = format!("/sign-in/oidc?next={}", encode(&query("next").get_untracked()));
        view! {
            <a class="button wide" rel="external" href=to>
                {label}
            </a>
        }
        .into_any()
    });
    door("/login", error, None, fields, w().sign_in_hint, provider)
}

/// The second step.
pub fn code() -> AnyView {
    let error = match query("error").get_untracked().as_str() {
        "wrong" => Some(w().sign_in_code_wrong),
        "wait" => Some(w().sign_in_wait),
        _ => None,
    };
    let fields = vec![("code", w().code, "text", "one-time-code", String::new())];
    door(
        "/login/code",
        error,
        Some(w().code_lead),
        fields,
        w().code_hint,
        None,
    )
}

fn door(
    action: &'static str,
    error: Option<&'static str>,
    lead: Option<&'static str>,
    fields: Vec<Field>,
    hint: &'static str,
    provider: Option<AnyView>,
) -> AnyView {
    let wrong = error.map(|_| "true");
    let next = query("next").get_untracked();
    let here = format!("{action}?next={}", shared::api::encode(&next));
    let fields: Vec<_> = fields
        .into_iter()
        .enumerate()
        .map(|(n, (name, label, kind, autocomplete, value))| {
            view! {
                <div class="field">
                    <label for=name>{label}</label>
                    <input
                        id=name
                        name=name
                        type=kind
                        required=true
                        autofocus=n == 0
                        autocomplete=autocomplete
                        autocapitalize="none"
                        spellcheck="false"
                        value=value
                        aria-invalid=wrong
                    />
                </div>
            }
        })
        .collect();
    view! {
        <Title text=w().sign_in/>
        <main class="door" id="main">
            <form method="post" action=action class="sheet">
                <div class="sheet-in">
                    <div class="brand">{leaf()} "Offshoot"</div>
                    <h1 tabindex="-1">{w().sign_in}</h1>
                    <input type="hidden" name="next" value=next/>
                    {lead.map(|lead| view! { <p class="soft">{lead}</p> })}
                    {error
                        .map(|why| {
                            view! {
                                <div class="alert" role="alert" id="wrong">
                                    {why}
                                </div>
                            }
                        })}
                    {fields}
                    <button class="go wide">{w().sign_in}</button>
                    {provider}
                    <p class="faint">{hint}</p>
                </div>
            </form>
            {language::choice(here)}
        </main>
    }
    .into_any()
}
