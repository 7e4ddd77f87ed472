//! The dialogs of targets: add one, change, look at all of it, clean up, detach.

use super::{HERE, may_manage};
use crate::components::copies::{way, ways};
use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::words::{put, w};
use leptos::prelude::*;
use shared::target::{AT_ONCE, AT_ONCE_MOST, PASSPHRASE_CHARS, Place, Target, TargetKind};

/// What the address says of a kind.
const LOCAL: &str = "local";
const S3: &str = "s3";
const REMOTE: &str = "remote";

fn kind_of(way: &str) -> TargetKind {
    match way {
        S3 => TargetKind::S3,
        REMOTE => TargetKind::Remote,
        _ => TargetKind::Local,
    }
}

pub fn add() -> AnyView {
    let way = way(LOCAL);
    dialog("add", w().add_target.to_owned(), move || {
        let all = [
            (LOCAL, w().target_local),
            (S3, w().target_s3),
            (REMOTE, w().target_remote),
        ];
        let action = "/do/targets/create";
        let fields = Fields::of(action);
        // Another kind is another form.
        let shown = move || {
            let way = way.get();
            let kind = kind_of(&way);
            let name = fields.line(Line {
                name: "name",
                label: w().name,
                hint: w().name_hint.to_owned(),
                required: true,
                is_name: true,
                ..Line::default()
            });
            view! {
                {ways(w().kind, HERE, "add", &all, &way)}
                <form method="post" action=action>
                    {fields.error(&format!("{HERE}?do=add&way={way}"))}
                    <input type="hidden" name="kind" value=kind.word()/>
                    {name}
                    {place(&fields, kind, &Place::default(), true)}
                    {vault(&fields)}
                    <details class="unfold">
                        <summary>{w().more}</summary>
                        <div class="sheet-in">
                            {keys(&fields)}
                            {limits(&fields, None, AT_ONCE)}
                        </div>
                    </details>
                    <footer>
                        {cancel(HERE.to_owned(), w().never_mind)}
                        {fields.submit("go", w().add_it, may_manage)}
                    </footer>
                </form>
            }
        };
        shown.into_any()
    })
}

/// Where it is, by its kind. What is secret has to be typed for a new one only.
fn place(fields: &Fields, kind: TargetKind, now: &Place, new: bool) -> AnyView {
    let line = |name, label, hint: &'static str, placeholder: &str, value: Option<String>| {
        fields.line(Line {
            name,
            label,
            hint: hint.to_owned(),
            placeholder: placeholder.to_owned(),
            value: value.unwrap_or_default(),
            required: !matches!(name, "s3.endpoint" | "s3.region" | "s3.prefix"),
            ..Line::default()
        })
    };
    let secret = |name, label, hint: &'static str| {
        fields.line(Line {
            name,
            label,
            hint: if new {
                hint.to_owned()
            } else {
                w().secret_stays.to_owned()
            },
            kind: "password",
            required: new,
            autocomplete: "new-password",
            ..Line::default()
        })
    };
    match kind {
        TargetKind::Local => {
            let path = now.local.as_ref().map(|p| p.path.clone());
            line(
                "local.path",
                w().directory,
                w().target_directory_hint,
                "/srv/copies",
                path,
            )
        }
        TargetKind::S3 => {
            let now = now.s3.as_ref();
            let endpoint = now.and_then(|p| p.endpoint.clone());
            let region = now.and_then(|p| p.region.clone());
            let bucket = now.map(|p| p.bucket.clone());
            let prefix = now.and_then(|p| p.prefix.clone());
            let key = now.map(|p| p.access_key_id.clone());
            view! {
                {line("s3.endpoint", w().s3_endpoint, w().s3_endpoint_hint, "https://s3.example.org", endpoint)}
                <div class="two">
                    {line("s3.bucket", w().s3_bucket, "", "", bucket)}
                    {line("s3.prefix", w().s3_prefix, w().s3_prefix_hint, "", prefix)}
                </div>
                {line("s3.region", w().s3_region, "", "us-east-1", region)}
                {line("s3.accessKeyId", w().s3_key_id, "", "", key)}
                {secret("s3.secretAccessKey", w().s3_secret, "")}
            }
            .into_any()
        }
        TargetKind::Remote => {
            let now = now.remote.as_ref();
            let (url, target) = (now.map(|p| p.url.clone()), now.map(|p| p.target.clone()));
            view! {
                {line("remote.url", w().remote_url, w().remote_url_hint, "https://offshoot.example.org", url)}
                {line("remote.target", w().remote_target, w().remote_target_hint, "", target)}
                {secret("remote.token", w().remote_token, w().remote_token_hint)}
            }
            .into_any()
        }
    }
}

/// Whether a vault is made or taken, and what opens it.
fn vault(fields: &Fields) -> AnyView {
    let secret = |name, label, hint: String| {
        fields.line(Line {
            name,
            label,
            hint,
            kind: "password",
            autocomplete: "new-password",
            ..Line::default()
        })
    };
    let least = put(w().passphrase_hint, &[&PASSPHRASE_CHARS.to_string()]);
    view! {
        <fieldset>
            <legend>{w().vault}</legend>
            {fields.radio("attach", "", w().vault_new, w().vault_new_hint, true)}
            {fields.radio("attach", "attach", w().vault_attach, w().vault_attach_hint, false)}
        </fieldset>
        {secret("passphrase", w().passphrase, least)}
        {secret("again", w().passphrase_again, w().passphrase_again_hint.to_owned())}
        <div class="alert warn">{w().passphrase_warning}</div>
    }
    .into_any()
}

/// What else opens it.
fn keys(fields: &Fields) -> AnyView {
    let recipient = fields.line(Line {
        name: "recipient",
        label: w().recipient,
        hint: w().recipient_hint.to_owned(),
        placeholder: "age1…".to_owned(),
        ..Line::default()
    });
    let identity = fields.line(Line {
        name: "identity",
        label: w().vault_identity,
        hint: w().vault_identity_hint.to_owned(),
        kind: "password",
        autocomplete: "new-password",
        ..Line::default()
    });
    view! { {recipient} {identity} }.into_any()
}

fn limits(fields: &Fields, bytes_per_second: Option<u64>, at_once: u32) -> AnyView {
    let rate = fields.line(Line {
        name: "bytesPerSecond",
        label: w().rate_limit,
        hint: w().rate_limit_hint.to_owned(),
        kind: "number",
        min: Some(0),
        value: bytes_per_second
            .map(|n| (n >> 20).max(1).to_string())
            .unwrap_or_default(),
        ..Line::default()
    });
    let at_once = fields.line(Line {
        name: "atOnce",
        label: w().at_once,
        kind: "number",
        min: Some(1),
        max: Some(AT_ONCE_MOST),
        value: at_once.to_string(),
        ..Line::default()
    });
    view! { {rate} {at_once} }.into_any()
}

/// A dialog of a target that asks for little: its note, its fields, and what its button says.
fn ask(
    target: Memo<Target>,
    what: &'static str,
    title: &'static str,
    (class, label): (&'static str, &'static str),
    asked: fn(&Fields, &Target) -> AnyView,
) -> AnyView {
    let title = target.with_untracked(|t| put(title, &[t.name.as_str()]));
    dialog(what, title, move || {
        let name = target.with_untracked(|t| t.name.to_string());
        let action = format!("/do/targets/{name}/{what}");
        let (here, fields) = (format!("{HERE}/{name}"), Fields::of(&action));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do={what}"))}
                {target.with_untracked(|t| asked(&fields, t))}
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit(class, label, may_manage)}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn edit(target: Memo<Target>) -> AnyView {
    ask(
        target,
        "edit",
        w().edit_title,
        ("go", w().save),
        |fields, target| {
            let name = fields.line(Line {
                name: "name",
                label: w().name,
                hint: w().name_hint.to_owned(),
                value: target.name.to_string(),
                required: true,
                is_name: true,
                ..Line::default()
            });
            view! {
                <input type="hidden" name="kind" value=target.kind.word()/>
                {name}
                {place(fields, target.kind, &target.place, false)}
                {limits(fields, target.bytes_per_second, target.at_once)}
                <div class="note">{w().edit_target_note}</div>
            }
            .into_any()
        },
    )
}

pub fn verify(target: Memo<Target>) -> AnyView {
    ask(
        target,
        "verify",
        w().verify_title,
        ("go", w().verify_do),
        |fields, _| {
            let percent = fields.line(Line {
                name: "percent",
                label: w().verify_percent,
                hint: w().verify_percent_hint.to_owned(),
                kind: "number",
                min: Some(1),
                max: Some(100),
                value: "100".to_owned(),
                ..Line::default()
            });
            view! {
                <p class="soft">{w().verify_lead}</p>
                {percent}
            }
            .into_any()
        },
    )
}

pub fn prune(target: Memo<Target>) -> AnyView {
    ask(target, "prune", w().prune_title, ("go", w().prune_do), |_, _| {
        view! { <p class="soft">{w().prune_lead}</p> }.into_any()
    })
}

pub fn detach(target: Memo<Target>) -> AnyView {
    ask(
        target,
        "detach",
        w().detach_title,
        ("danger", w().detach_do),
        |_, target| {
            let line = target.place.line();
            view! {
                <p class="soft">{put(w().detach_stays, &[&line])}</p>
                <div class="alert warn">{w().detach_warning}</div>
            }
            .into_any()
        },
    )
}
