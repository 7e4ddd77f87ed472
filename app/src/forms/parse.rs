//! From a form to calls of the API, and from their outcomes to what the person is told.

use super::{
    Done, Fields, Flash, copy, image, machine, migration, notice, people, place, policy, without_dialog,
};
use crate::env::Theme;
use crate::words::{Language, put, w};
use shared::Status;
use shared::access::{CreateToken, SetPassword};
use shared::api::{
    Call, CancelJob, DeleteForkPoint, DeleteToken, PostPointClone, PostToken, PutPassword, RawCall, RetryJob,
};

/// What a form asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Calls to make, one after another.
    Calls(Vec<RawCall>),
    /// Colours to remember in [`super::THEME_COOKIE`].
    Theme(Theme),
    /// A language to remember in [`super::LANGUAGE_COOKIE`].
    Language(Language),
}

/// A form's fields by name.
#[derive(Clone, Copy)]
pub(super) struct Form<'a>(pub(super) &'a Fields);

impl<'a> Form<'a> {
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(value.trim()).filter(|v| !v.is_empty())
    }

    /// Whether a box is ticked.
    pub(super) fn is(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A field of a type that parses; none if empty.
    pub(super) fn parse<T>(self, name: &str) -> Result<Option<T>, Status>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.get(name)
            .map(|text| text.parse().map_err(|why| Status::invalid(name, why)))
            .transpose()
    }

    /// A field that must be there.
    pub(super) fn need<T>(self, name: &str) -> Result<T, Status>
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
        ["language"] => return Ok(Action::Language(form.need("language")?)),
        [noun @ ("vms" | "jobs"), "bulk"] => return bulk(noun, form),
        ["vms", "create"] => machine::create(form)?,
        ["vms", vm, "image"] => image::of_snapshot(vm, form)?,
        ["vms", vm, "export"] => image::export(vm, form)?,
        ["vms", vm, "copy"] => copy::start(vm, form)?,
        ["vms", vm, action] => machine::act(vm, action, form)?,
        ["copyTasks", task, action] => copy::task(task, action)?,
        ["copies", id, action] => copy::act(id, action, form)?,
        ["targets", ref rest @ ..] => copy::target(rest, form)?,
        ["policies", ref rest @ ..] => policy::parse(rest, form)?,
        ["sources", ref rest @ ..] => migration::source(rest, form)?,
        ["migrations", ref rest @ ..] => migration::parse(rest, form)?,
        ["migrationGroups", ref rest @ ..] => migration::group(rest, form)?,
        ["images" | "uploads" | "exports", ..] => image::act(&parts, form)?,
        ["forkPoints", point, "fork"] => PostPointClone {
            point: point.to_owned(),
            request: machine::fork(form)?,
        }
        .raw(),
        ["forkPoints", point, "delete"] => DeleteForkPoint {
            point: point.to_owned(),
        }
        .raw(),
        ["jobs", job, action] => job_call(job, action)?,
        [noun @ ("hosts" | "storages" | "networks"), ref rest @ ..] => place::parse(noun, rest, form)?,
        ["notices", ref rest @ ..] => notice::parse(rest, form)?,
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
                role: form.parse("role")?,
                expire_time: people::end_of_day(form, "expireTime")?,
            };
            PostToken { request }.raw()
        }
        ["tokens", id, "revoke"] => DeleteToken { id: id.to_owned() }.raw(),
        _ => match people::mine(&parts, form).or_else(|| people::others(&parts, form)) {
            Some(call) => call?,
            None => return Err(Status::not_found("form", path)),
        },
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

/// Where to go after a form, and what to tell. `results` has the outcome of each call; it is empty for a theme or a
/// language, and has the one error when [`parse`] found it.
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
    // What is asked of a group each of its machines answers for itself.
    let each = match (&parts[..], results) {
        (["migrationGroups", _, "act"], [Ok(answer)]) => migration::each(answer),
        _ => None,
    };
    let results = each.as_deref().unwrap_or(results);
    let failed = results.iter().filter(|r| r.is_err()).count();
    if let Some(Err(first)) = results.iter().find(|r| r.is_err()) {
        let mut error = first.clone();
        if results.len() > 1 {
            let done = (results.len() - failed).to_string();
            let all = results.len().to_string();
            error.message = put(w().bulk_partly, &[&done, &all, &error.message]);
        }
        flash.error = Some(error);
        let secret = |name: &str| {
            let secrets = ["pass", "again", "identity", "s3.secretAccessKey", "remote.token"];
            secrets.iter().any(|secret| name.starts_with(secret))
        };
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
    let is_job = !matches!(
        parts[..],
        ["hosts" | "storages" | "networks", ..]
            | ["vms", _, "describe"]
            | ["images", _, "rename"]
            | ["copies", _, "hold" | "release"]
            | ["targets", _, "check" | "edit"]
            | ["targets", "create"]
    );
    flash.job = word("/offshoot/id").or_else(|| word("/id")).filter(|_| is_job);
    flash.secret = word("/secret");
    flash.text = match parts[..] {
        ["theme" | "language"] => String::new(),
        [_, "bulk"] => put(w().bulk_done, &[&results.len().to_string()]),
        ["vms", "create"] => w().flash_create.to_owned(),
        ["vms", _, "image"] => w().flash_image_of.to_owned(),
        ["vms", _, "export"] => w().flash_export.to_owned(),
        ["images" | "uploads" | "exports", ..] => image::done(&parts).to_owned(),
        ["vms", _, "copy"] | ["copyTasks" | "copies" | "targets", ..] => copy::done(&parts).to_owned(),
        ["vms", _, action] => machine::done(action).to_owned(),
        ["forkPoints", _, "fork"] => w().flash_fork.to_owned(),
        ["forkPoints", ..] => w().flash_delete_point.to_owned(),
        ["jobs", _, "retry"] => w().flash_retry.to_owned(),
        ["jobs", ..] => w().flash_cancel.to_owned(),
        ["tokens", _, "revoke"] => w().flash_revoked.to_owned(),
        ["hosts" | "storages" | "networks", ref rest @ ..] => place::done(rest).to_owned(),
        ["notices", ref rest @ ..] => notice::done(rest).to_owned(),
        ["policies", ref rest @ ..] => policy::done(rest).to_owned(),
        ["sources" | "migrations", ref rest @ ..] => migration::done(rest).to_owned(),
        ["migrationGroups", _, "cutover"] => w().flash_group_cut_over.to_owned(),
        ["migrationGroups", ..] => w().flash_group.to_owned(),
        ["tokens", ..] => w().flash_token.to_owned(),
        _ => people::done(&parts).unwrap_or(w().flash_password).to_owned(),
    };
    if matches!(
        parts[..],
        [
            "me" | "users" | "roles" | "sessions" | "notices" | "policies" | "sources",
            ..
        ]
    ) || matches!(parts[..], ["migrations", ref rest @ ..] if !migration::is_job(rest))
    {
        // What has an id there is no job.
        flash.job = None;
    }
    let job_page = || flash.job.as_ref().map(|id| format!("/jobs/{id}"));
    let to = match parts[..] {
        ["vms", "create"]
        | ["vms", _, "clone" | "delete" | "fork" | "edit"]
        | ["forkPoints", _, "fork"]
        | ["images", "import"]
        | ["vms", _, "image" | "export"]
        | ["copies", _, "restore" | "boot"]
        | ["targets", _, "verify" | "prune"]
        | ["jobs", _, "retry"] => job_page(),
        ["copies", _, "delete"] => Some("/copies".to_owned()),
        ["targets", "create"] | ["targets", _, "edit"] => {
            word("/name").map(|name| format!("/targets/{name}"))
        }
        ["policies", "create"] | ["policies", _, "edit"] => {
            word("/name").map(|name| format!("/policies/{name}"))
        }
        ["policies", _, "delete"] => Some("/policies".to_owned()),
        [noun @ ("sources" | "migrations"), "create"] | [noun @ "migrations", _, "edit"] => {
            word("/name").map(|name| format!("/{noun}/{name}"))
        }
        ["sources", _, "remove"] | ["migrations", _, "delete"] => Some("/migrations".to_owned()),
        ["targets", _, "detach"] => Some("/targets".to_owned()),
        ["users", "create"] => word("/name").map(|name| format!("/users/{name}")),
        ["users", _, "rename"] => word("/name").map(|name| format!("/users/{name}")),
        ["users", _, "delete"] => Some("/users".to_owned()),
        ["me", "twoFactor", "begin"] => Some("/settings/two-factor".to_owned()),
        ["me", "twoFactor", "confirm"] => Some("/settings".to_owned()),
        ["roles", "create"] => word("/name").map(|name| format!("/roles/{name}")),
        ["roles", _, "delete"] => Some("/roles".to_owned()),
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
