//! Errors: a sentence, what to do, details to unfold, and the request's id to copy.

use super::button::copy;
use super::state::{Tone, pill};
use crate::words::{put, w};
use leptos::prelude::*;
use shared::{Code, Status};

/// What a person can do about it, beyond what the message says.
fn advice(status: &Status) -> Option<&'static str> {
    Some(match status.code {
        Code::Unavailable => w().advice_unavailable,
        Code::Internal | Code::Unknown | Code::DataLoss => w().advice_internal,
        Code::PermissionDenied => w().advice_permission,
        Code::NotFound => w().advice_not_found,
        Code::Aborted => w().advice_aborted,
        _ => return None,
    })
}

/// The body of an error.
pub fn explain(status: &Status) -> AnyView {
    let details: Vec<String> = status
        .details
        .iter()
        .filter(|d| d.get("requestId").is_none())
        .map(ToString::to_string)
        .collect();
    let trace = status.trace_id().map(str::to_owned);
    let summary = match &trace {
        Some(id) => put(w().details_of_request, &[id]),
        None => w().details.to_owned(),
    };
    let code = status.code.word();
    view! {
        <p class="said">
            <b>{sentence(said(status))}</b> {advice(status).map(|a| format!(" {a}"))}
        </p>
        <details class="unfold">
            <summary>{summary}</summary>
            <code>{code}</code>
            {details.into_iter().map(|d| view! { <code>{d}</code> }).collect_view()}
            {trace.map(|id| copy(id, w().copy_request_id))}
        </details>
    }
    .into_any()
}

/// Its message without the wire's name of a field: the field itself is marked.
pub fn said(status: &Status) -> &str {
    let named = |field| status.message.strip_prefix(field)?.strip_prefix(": ");
    status.field().and_then(named).unwrap_or(&status.message)
}

/// A message as a sentence: with its capital and its full stop.
pub fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    let stop = if message.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    // A name at the beginning keeps its small letter: names are case-sensitive. What something is said of is a name.
    let mut words = message.split(' ');
    let (subject, verb) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let names = subject.contains(|c: char| c == '-' || c == '"' || c.is_ascii_digit())
        || (matches!(verb, "is" | "has" | "lacks")
            && !matches!(subject, "it" | "this" | "that" | "there" | "nothing"));
    let first = if names {
        first.to_string()
    } else {
        first.to_uppercase().to_string()
    };
    format!("{first}{}{stop}", chars.as_str())
}

/// An error in a panel of its own.
pub fn panel(title: &'static str, status: &Status) -> AnyView {
    view! {
        <section class="panel trouble" aria-label=title>
            <header>
                <h2>{title}</h2>
                {pill(Tone::Bad, w().failed)}
            </header>
            <div class="in">{explain(status)}</div>
        </section>
    }
    .into_any()
}

/// A page that could not be loaded.
pub fn page(status: &Status) -> AnyView {
    if let Some(set) = use_context::<crate::env::SetStatus>() {
        (set.0)(status.code.http());
    }
    let title = if status.code == Code::NotFound {
        w().not_found
    } else {
        w().cannot_show
    };
    view! {
        <leptos_meta::Title text=title/>
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
        </div>
        {panel(w().what_went_wrong, status)}
        <p>
            <a class="button" href="/">
                {w().to_overview}
            </a>
        </p>
    }
    .into_any()
}

/// An error that a form shows in itself.
pub fn alert(status: &Status) -> AnyView {
    view! {
        <div class="alert" role="alert">
            {explain(status)}
        </div>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::{said, sentence};
    use shared::Status;

    #[test]
    fn the_name_of_a_field_is_for_programs() {
        assert_eq!(said(&Status::invalid("url", "no address")), "no address");
        assert_eq!(said(&Status::precondition("web-1: no")), "web-1: no");
    }

    #[test]
    fn a_message_becomes_a_sentence_and_a_name_keeps_its_letters() {
        assert_eq!(sentence("no space left"), "No space left.");
        assert_eq!(sentence("web-1 is running already"), "web-1 is running already.");
        assert_eq!(sentence("web has no snapshot"), "web has no snapshot.");
        assert_eq!(sentence("there is no VM web"), "There is no VM web.");
        assert_eq!(sentence(""), "");
    }
}
