//! Sending a file from the browser: in parts that take about a second each, over breaks, from where an upload of the
//! the same file was left.

use leptos::prelude::*;
use shared::Status;

/// How far an upload is.
// The server only knows the first.
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Nothing is sent.
    Still,
    /// It is asked what has arrived already.
    Begins,
    /// Parts are sent: bytes done, in all, and a second.
    Sends { done: u64, total: u64, rate: u64 },
    /// Halted by the person.
    Paused { done: u64, total: u64 },
    /// The link broke; it is tried again.
    Again { done: u64 },
    /// All has arrived: the job that makes an image of it.
    Done(String),
    /// It cannot go on by itself.
    Failed(Status),
}

impl State {
    /// Whether something is going on.
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Begins | Self::Sends { .. } | Self::Again { .. })
    }
}

/// Whether the page can send.
#[cfg(feature = "hydrate")]
pub fn alive() -> bool {
    crate::hydration::alive()
}

/// Whether the page can send.
#[cfg(not(feature = "hydrate"))]
pub const fn alive() -> bool {
    false
}

/// The server never sees this form.
#[cfg(not(feature = "hydrate"))]
pub fn submitted(_: &leptos::ev::SubmitEvent, _: RwSignal<State>, _: RwSignal<bool>) {}

/// Begins to send, or goes on.
#[cfg(feature = "hydrate")]
pub fn submitted(e: &leptos::ev::SubmitEvent, state: RwSignal<State>, pause: RwSignal<bool>) {
    sending::submitted(e, state, pause);
}

#[cfg(feature = "hydrate")]
mod sending {
    use super::State;
    use crate::backend;
    use crate::live::browser;
    use crate::words::w;
    use leptos::prelude::*;
    use leptos::task::spawn_local;
    use shared::api::{Call, FinishUpload, GetUpload, ListQuery, ListUploads, PostUpload, part_path};
    use shared::image::{CreateUpload, Upload, checksum, fingerprint};
    use shared::{Code, Status};
    use wasm_bindgen::JsCast;
    use web_sys::{File, HtmlFormElement, HtmlInputElement};

    /// The smallest and the largest part, in bytes.
    const PARTS: (f64, f64) = (262_144.0, 67_108_864.0);
    /// How large the first part is.
    const FIRST: f64 = 1_048_576.0;
    /// How often in a row a part may break off.
    const BREAKS: u32 = 10;
    /// How long it is waited until it is tried again, in milliseconds.
    const AGAIN: i32 = 1_000;

    pub fn submitted(e: &web_sys::SubmitEvent, state: RwSignal<State>, pause: RwSignal<bool>) {
        e.prevent_default();
        let form = e.target().and_then(|t| t.dyn_into::<HtmlFormElement>().ok());
        let Some(form) = form.filter(|_| !state.with_untracked(State::is_busy)) else {
            return;
        };
        pause.set(false);
        state.set(State::Begins);
        match read(&form) {
            Ok((file, request)) => spawn_local(async move {
                let ended = run(&file, request, state, pause).await;
                state.try_set(match ended {
                    Ok(state) => state,
                    Err(why) => State::Failed(why),
                });
            }),
            Err(why) => state.set(State::Failed(why)),
        }
    }

    fn read(form: &HtmlFormElement) -> Result<(File, CreateUpload), Status> {
        let fields = browser::fields(form, None);
        let get = |name: &str| {
            let field = fields.iter().find(|(n, _)| n == name);
            field.map(|(_, v)| v.trim()).filter(|v| !v.is_empty())
        };
        let missing = |field| Status::invalid(field, w().field_missing);
        let input = form.query_selector("input[type=file]").ok().flatten();
        let input = input.and_then(|i| i.dyn_into::<HtmlInputElement>().ok());
        let file = input
            .and_then(|i| i.files()?.get(0))
            .ok_or_else(|| missing("file"))?;
        let name = get("name").ok_or_else(|| missing("name"))?;
        let format = get("format").map(str::parse).transpose();
        let request = CreateUpload {
            name: name.parse().map_err(|e| Status::invalid("name", e))?,
            format: format.map_err(|e| Status::invalid("format", e))?,
            size_bytes: file.size() as u64,
            sha256: get("sha256").map(|s| checksum("sha256", s)).transpose()?,
            fingerprint: Some(fingerprint(&file.name(), file.last_modified() as i64)),
        };
        Ok((file, request))
    }

    async fn begun(request: CreateUpload) -> Result<Upload, Status> {
        let query = ListQuery {
            filter: Some(format!("name={}", request.name)),
            ..ListQuery::default()
        };
        let all = call(&ListUploads { query }).await?.uploads;
        match all.into_iter().find(|u| request.goes_on_with(u)) {
            Some(upload) => Ok(upload),
            None => call(&PostUpload { request }).await,
        }
    }

    async fn call<C: Call>(c: &C) -> Result<C::Answer, Status> {
        backend::read(&backend::send(c.raw()).await?)
    }

    async fn run(
        file: &File,
        request: CreateUpload,
        state: RwSignal<State>,
        pause: RwSignal<bool>,
    ) -> Result<State, Status> {
        let mut at = begun(request).await?;
        let (id, total) = (at.id.to_string(), at.size_bytes);
        let (mut part, mut rate, mut breaks) = (FIRST, 0, 0);
        while at.received_bytes < total {
            let done = at.received_bytes;
            if pause.try_get_untracked().unwrap_or(true) {
                return Ok(State::Paused { done, total });
            }
            // Gone with its page: what has arrived stays, and is gone on with later.
            if state.try_set(State::Sends { done, total, rate }).is_some() {
                return Ok(State::Paused { done, total });
            }
            let end = (done as f64 + part).min(total as f64);
            let piece = file.slice_with_f64_and_f64(done as f64, end);
            let piece = piece.map_err(|_| Status::new(Code::Unavailable, w().cannot_read_file))?;
            let began = js_sys::Date::now();
            match backend::send_blob(&part_path(&id, done), &piece).await {
                Ok(body) => {
                    at = backend::read(&body)?;
                    breaks = 0;
                    let took = (js_sys::Date::now() - began).max(1.0);
                    let speed = (end - done as f64) * 1000.0 / took;
                    rate = speed as u64;
                    part = speed.clamp(PARTS.0, PARTS.1);
                }
                Err(e) if may_pass(e.code) && breaks < BREAKS => {
                    breaks += 1;
                    state.try_set(State::Again { done });
                    browser::wait(AGAIN).await;
                    if let Ok(now) = call(&GetUpload { id: id.clone() }).await {
                        at = now;
                    }
                }
                Err(e) => return Err(e),
            }
        }
        let job = call(&FinishUpload { id }).await?;
        Ok(State::Done(job.id.to_string()))
    }

    /// Whether the same part may go through a little later: the link broke, or the part before is still being written.
    fn may_pass(code: Code) -> bool {
        matches!(
            code,
            Code::Unavailable | Code::Aborted | Code::FailedPrecondition | Code::Unknown
        )
    }
}
