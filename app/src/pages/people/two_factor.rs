//! The second factor: whether it is asked for, and setting it up.

use crate::components::button::{self, Button};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::TwoFactorSecret;
use shared::api::{Call, GetTwoFactor};

const SETTINGS: &str = "/settings";

/// In the settings: what is so, and the way to the other.
pub fn panel(on: bool) -> AnyView {
    if !on {
        let begin = Button {
            to: "/do/me/twoFactor/begin".to_owned(),
            label: w().two_factor_begin,
            back: SETTINGS.to_owned(),
            ..Button::default()
        };
        return view! {
            <p class="soft">{w().two_factor_off}</p>
            {button::post(begin, &Ok(()))}
        }
        .into_any();
    }
    let action = "/do/me/twoFactor/remove";
    let fields = Fields::of(action);
    view! {
        <p class="soft">{w().two_factor_on}</p>
        <form method="post" action=action class="inline">
            {fields.error(SETTINGS)}
            {code(&fields, w().code_hint)}
            <button>{w().two_factor_remove}</button>
        </form>
    }
    .into_any()
}

fn code(fields: &Fields, hint: &str) -> AnyView {
    fields.line(Line {
        name: "code",
        label: w().code,
        hint: hint.to_owned(),
        required: true,
        autocomplete: "one-time-code",
        ..Line::default()
    })
}

pub fn page() -> AnyView {
    let trail = vec![(SETTINGS.to_owned(), w().settings.to_owned())];
    let read = |bodies: &Bodies| -> Result<TwoFactorSecret, Status> { body(bodies, 0) };
    view! {
        <Title text=w().two_factor_title/>
        {bar(trail, w().two_factor.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().two_factor_title}</h1>
        </div>
        {load(String::new, |_| all([GetTwoFactor {}.raw()]), read, |old, new| *old = new, shown)}
    }
    .into_any()
}

fn shown(data: RwSignal<TwoFactorSecret>) -> AnyView {
    let action = "/do/me/twoFactor/confirm";
    let fields = Fields::of(action);
    let told = data.get_untracked();
    view! {
        <section class="panel" aria-label=w().two_factor>
            <div class="in">
                <p>{w().two_factor_lead}</p>
                // Drawn by the server, of squares alone.
                <div class="qr" role="img" aria-label=w().two_factor_picture inner_html=told.svg></div>
                <p class="soft">{w().two_factor_by_hand}</p>
                <div class="secret">
                    <code>{told.secret.clone()}</code>
                    {button::copy(told.secret, w().copy)}
                </div>
                <form method="post" action=action class="inline">
                    {fields.error("/settings/two-factor")}
                    // There are no recovery codes yet.
                    {code(&fields, "")}
                    <button class="go">{w().two_factor_confirm}</button>
                </form>
            </div>
        </section>
    }
    .into_any()
}
