//! The dialog that uploads. A file is sent in parts by the browser, so this one form needs the page to be alive.

use super::dialogs::{about, name};
use crate::components::dialog::{cancel, dialog as opened};
use crate::components::error;
use crate::components::field::Fields;
use crate::components::job::meter;
use crate::env::may;
use crate::format;
use crate::live::upload::{self, State};
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;

const ACTION: &str = "/images/upload";

pub fn dialog(here: &'static str) -> AnyView {
    let (state, pause) = (RwSignal::new(State::Still), RwSignal::new(false));
    opened("upload", w().image_upload.to_owned(), move || {
        form(here, state, pause)
    })
}

fn form(here: &'static str, state: RwSignal<State>, pause: RwSignal<bool>) -> AnyView {
    let fields = Fields::of(ACTION);
    let busy = move || state.with(State::is_busy);
    let refused = move || (!upload::alive() || busy()).then_some("true");
    // One that cannot send must not submit.
    let kind = move || if upload::alive() { "submit" } else { "button" };
    let go = move || match state.get() {
        State::Paused { .. } | State::Failed(_) => w().upload_go_on,
        _ => w().image_upload,
    };
    let wrong = move || match state.get() {
        State::Failed(why) => Some(error::alert(&why)),
        _ => None,
    };
    let may = may(Privilege::ImageCreate, None);
    let send = if may.is_ok() {
        view! { <button class="go" type=kind aria-disabled=refused>{go}</button> }.into_any()
    } else {
        fields.submit("go", w().image_upload, move || may.clone())
    };
    view! {
        <form action=ACTION on:submit=move |e| upload::submitted(&e, state, pause)>
            <p class="soft">{w().image_upload_lead}</p>
            {wrong}
            {name(&fields)}
            <div class="field">
                <label for="upload-file">{w().image_file}</label>
                <input id="upload-file" name="file" type="file" class="drop" required aria-describedby="upload-file-about"/>
                <small id="upload-file-about">{w().image_file_hint}</small>
            </div>
            {about(&fields)}
            <div role="status" class="sending">{move || state.with(told)}</div>
            {move || (!upload::alive()).then(|| view! { <div class="note">{w().image_needs_script}</div> })}
            <footer>
                {cancel(here.to_owned(), w().close)}
                {move || {
                    busy()
                        .then(|| {
                            view! {
                                <button type="button" on:click=move |_| pause.set(true)>
                                    {w().upload_pause}
                                </button>
                            }
                        })
                }}
                {send}
            </footer>
        </form>
    }
    .into_any()
}

/// How far it is, in words and as a bar.
fn told(state: &State) -> AnyView {
    match state {
        State::Still | State::Failed(_) => ().into_any(),
        State::Begins => w().upload_begins.into_any(),
        State::Sends { done, total, rate } => {
            let rate = put(w().upload_rate, &[&format::bytes(*rate)]);
            view! { {meter(*done, *total, w().image_upload.to_owned())} <span class="soft">{rate}</span> }
                .into_any()
        }
        State::Paused { done, total } => put(
            w().upload_paused,
            &[&format::bytes(*done), &format::bytes(*total)],
        )
        .into_any(),
        State::Again { done } => put(w().upload_again, &[&format::bytes(*done)]).into_any(),
        State::Done(job) => {
            view! { {w().upload_done} " " <a href=format!("/jobs/{job}")>{w().see_job}</a> }.into_any()
        }
    }
}
