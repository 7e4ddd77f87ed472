//! The forms of the console: what every button that changes something posts.
//!
//! Each is a real `<form method="post" action="/do/…">`, so that a click before the WASM is there, or without it,
//! does the same. One pair of functions serves both ways:
//!
//! * [`parse`] turns path and fields into calls of the API (or a theme to remember),
//! * [`after`] says where to go then, and what to tell the person.
//!
//! In the browser a listener catches the submit, runs the calls and shows the [`Flash`]. The server does this for
//! `POST /do/{*path}`: parse; run the calls through its own API with the person's session, one after another, also
//! when one fails; keep the flash for the session's next page ([`crate::ShellOptions::flash`], once); answer 303 to
//! [`Done::to`]. The session's forms `/login` (`name`, `password`, `next`) and `/logout` are the server's own.
//!
//! | action | fields | call |
//! |---|---|---|
//! | `/do/vms/create` | name image cpus memoryMib start | `PostVm` |
//! | `/do/vms/bulk` | action, id … | one call for each id |
//! | `/do/vms/{vm}/start` `shutdown` `power-off` `reset` `pause` `resume` | | `Start` … |
//! | `/do/vms/{vm}/snapshot` | name description quiesce | `PostSnapshot` |
//! | `/do/vms/{vm}/clone` | source mode name cpus memoryMib start bootTimeoutSeconds bootPattern network adapt userData metaData networkConfig quiesce | `PostCloneJob` |
//! | `/do/vms/{vm}/delete` | name confirm | `DeleteVm` |
//! | `/do/jobs/bulk` | action, id … | one call for each id |
//! | `/do/jobs/{job}/cancel` `retry` | | `CancelJob`, `RetryJob` |
//! | `/do/me/password` | password again | `PutPassword` |
//! | `/do/tokens/create` | name | `PostToken` |
//! | `/do/tokens/{token}/revoke` | | `DeleteToken` |
//! | `/do/theme` | theme | the cookie `theme` |
//!
//! Every form may have `back`, the page it stands on, and `inline`, when it shows its own errors.

mod machine;

pub(crate) use machine::{NETWORK_NONE, SOURCE_NOW};

use crate::env::Theme;
use crate::words::{put, w};
use serde::{Deserialize, Serialize};
use shared::Status;
use shared::access::{CreateToken, SetPassword};
use shared::api::{Call, CancelJob, DeleteToken, PostToken, PutPassword, RawCall, RetryJob};

/// The fields of a form, in order; a name may come twice.
pub type Fields = [(String, String)];

/// The cookie that keeps the [`Theme`]; readable by scripts, for a year.
pub const THEME_COOKIE: &str = "theme";

/// What a form asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Calls to make, one after another.
    Calls(Vec<RawCall>),
    /// Colours to remember in [`THEME_COOKIE`].
    Theme(Theme),
}

/// How a form went, as the page shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flash {
    /// The form's action.
    pub action: String,
    /// Whether the form shows its errors itself.
    #[serde(default)]
    pub inline: bool,
    /// What was done, in a few words.
    #[serde(default)]
    pub text: String,
    /// The job that does it.
    #[serde(default)]
    pub job: Option<String>,
    /// The secret of a new token, shown this once.
    #[serde(default)]
    pub secret: Option<String>,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<Status>,
    /// What was typed, when it went wrong; never a password.
    #[serde(default)]
    pub fields: Vec<(String, String)>,
}

/// What follows a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Where to go; always a path of this console.
    pub to: String,
    /// What to tell.
    pub flash: Flash,
}

/// A form's fields by name.
#[derive(Clone, Copy)]
struct Form<'a>(&'a Fields);

impl<'a> Form<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(value.trim()).filter(|v| !v.is_empty())
    }

    /// Whether a box is ticked.
    fn is(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A field of a type that parses; none if empty.
    fn parse<T>(self, name: &str) -> Result<Option<T>, Status>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.get(name)
            .map(|text| text.parse().map_err(|why| Status::invalid(name, why)))
            .transpose()
    }

    /// A field that must be there.
    fn need<T>(self, name: &str) -> Result<T, Status>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.parse(name)?
            .ok_or_else(|| Status::invalid(name, w().field_missing))
    }
}

/// Percent-decoded parts of a path behind `/do/`.
fn parts(path: &str) -> Option<Vec<String>> {
    path.strip_prefix("/do/")?.split('/').map(decode).collect()
}

fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What a form asks for, or why it cannot be: the error names the field.
pub fn parse(path: &str, fields: &Fields) -> Result<Action, Status> {
    let form = Form(fields);
    let parts = parts(path).unwrap_or_default();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let call = match parts[..] {
        ["theme"] => return Ok(Action::Theme(form.need("theme")?)),
        [noun @ ("vms" | "jobs"), "bulk"] => return bulk(noun, form),
        ["vms", "create"] => machine::create(form)?,
        ["vms", vm, action] => machine::act(vm, action, form)?,
        ["jobs", job, action] => job_call(job, action)?,
        ["me", "password"] => {
            let password = form.get("password").unwrap_or_default().to_owned();
            if form.get("again") != Some(&*password) {
                return Err(Status::invalid("again", w().passwords_differ));
            }
            let request = SetPassword { password };
            PutPassword { request }.raw()
        }
        ["tokens", "create"] => {
            let request = CreateToken {
                name: form.need("name")?,
            };
            PostToken { request }.raw()
        }
        ["tokens", id, "revoke"] => DeleteToken { id: id.to_owned() }.raw(),
        _ => return Err(Status::not_found("form", path)),
    };
    Ok(Action::Calls(vec![call]))
}

fn job_call(job: &str, action: &str) -> Result<RawCall, Status> {
    let id = job.to_owned();
    match action {
        "cancel" => Ok(CancelJob { id }.raw()),
        "retry" => Ok(RetryJob { id }.raw()),
        _ => Err(Status::not_found("action", action)),
    }
}

fn bulk(noun: &str, form: Form<'_>) -> Result<Action, Status> {
    let action: String = form.need("action")?;
    let ids = form.0.iter().filter(|(name, _)| name == "id");
    let calls: Vec<_> = ids
        .map(|(_, id)| match noun {
            "vms" => machine::act(id, &action, Form(&[])),
            _ => job_call(id, &action),
        })
        .collect::<Result<_, _>>()?;
    if calls.is_empty() {
        return Err(Status::invalid("id", w().nothing_selected));
    }
    Ok(Action::Calls(calls))
}

/// Where to go after a form, and what to tell. `results` has the outcome of each call; it is empty for a theme, and
/// has the one error when [`parse`] found it.
pub fn after(path: &str, fields: &Fields, results: &[crate::backend::Outcome]) -> Done {
    let form = Form(fields);
    let parts = parts(path).unwrap_or_default();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let back = form.get("back").filter(|b| is_local(b)).unwrap_or("/");
    let mut flash = Flash {
        action: path.to_owned(),
        inline: form.is("inline"),
        ..Flash::default()
    };
    let failed = results.iter().filter(|r| r.is_err()).count();
    if let Some(Err(first)) = results.iter().find(|r| r.is_err()) {
        let mut error = first.clone();
        if results.len() > 1 {
            let done = (results.len() - failed).to_string();
            let all = results.len().to_string();
            error.message = put(w().bulk_partly, &[&done, &all, &error.message]);
        }
        flash.error = Some(error);
        let secret = |name: &str| name.starts_with("password") || name == "again";
        flash.fields = fields.iter().filter(|(n, _)| !secret(n)).cloned().collect();
        return Done {
            to: back.to_owned(),
            flash,
        };
    }
    let answer: serde_json::Value = match results {
        [Ok(body)] => serde_json::from_str(body).unwrap_or_default(),
        _ => serde_json::Value::Null,
    };
    let word = |pointer: &str| answer.pointer(pointer)?.as_str().map(str::to_owned);
    // A clone job answers in the seed's names; its own id is beside them.
    flash.job = word("/offshoot/id").or_else(|| word("/id"));
    flash.secret = word("/secret");
    flash.text = match parts[..] {
        ["theme"] => String::new(),
        [_, "bulk"] => put(w().bulk_done, &[&results.len().to_string()]),
        ["vms", "create"] => w().flash_create.to_owned(),
        ["vms", _, action] => machine::done(action).to_owned(),
        ["jobs", _, "retry"] => w().flash_retry.to_owned(),
        ["jobs", ..] => w().flash_cancel.to_owned(),
        ["tokens", _, "revoke"] => w().flash_revoked.to_owned(),
        ["tokens", ..] => w().flash_token.to_owned(),
        _ => w().flash_password.to_owned(),
    };
    let job_page = || flash.job.as_ref().map(|id| format!("/jobs/{id}"));
    let to = match parts[..] {
        ["vms", "create"] | ["vms", _, "clone" | "delete"] | ["jobs", _, "retry"] => job_page(),
        _ => None,
    };
    let to = to.unwrap_or_else(|| without_dialog(back));
    if to.starts_with("/jobs/") {
        // One is there already.
        flash.job = None;
    }
    Done { to, flash }
}

/// Whether a path stays on this server: `//host` and `/\host` leave it.
fn is_local(path: &str) -> bool {
    let mut chars = path.chars();
    chars.next() == Some('/')
        && !matches!(chars.next(), Some('/' | '\\'))
        && !path.chars().any(|c| c.is_control() || c == '\\')
}

/// The path without the dialog that stood open in it.
pub(crate) fn without_dialog(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let kept: Vec<_> = query
        .split('&')
        .filter(|p| !p.is_empty() && !p.starts_with("do="))
        .collect();
    if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}

#[cfg(test)]
mod tests;
