//! The native API, one file for each noun.
//!
//! Handlers are thin: parse, look the thing up, hand on to the jobs or read
//! from the inventory. What is asked of `shared::can` is asked where the job is written down, in its transaction.

mod audit;
mod change_places;
mod clone_jobs;
mod consoles;
mod copies;
mod copy_files;
mod events;
mod exports;
mod images;
mod instant_clones;
mod jobs;
mod me;
mod migrations;
mod notices;
mod places;
mod policies;
mod roles;
mod sessions;
mod sim;
mod snapshots;
mod summary;
mod targets;
mod tokens;
mod uploads;
mod users;
mod vms;

use super::error::ApiError;
use super::route::Api;
use crate::access::Caller;
use crate::db;
use crate::hypervisor::HvError;
use crate::jobs::By;
use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::job::Job;
use shared::{Code, Status};

/// All routes; those of the simulation only where the server simulates.
pub fn all(sim: bool) -> Api {
    let api = super::docs::routes(Api::default());
    let api = summary::routes(api);
    let api = me::routes(api);
    let api = vms::routes(api);
    let api = consoles::routes(api);
    let api = snapshots::routes(api);
    let api = clone_jobs::routes(api);
    let api = instant_clones::routes(api);
    let api = jobs::routes(api);
    let api = places::routes(api);
    let api = change_places::routes(api);
    let api = images::routes(api);
    let api = uploads::routes(api);
    let api = exports::routes(api);
    let api = targets::routes(api);
    let api = copies::routes(api);
    let api = copy_files::routes(api);
    let api = policies::routes(api);
    let api = migrations::routes(api);
    let api = tokens::routes(api);
    let api = users::routes(api);
    let api = roles::routes(api);
    let api = sessions::routes(api);
    let api = audit::routes(api);
    let api = notices::routes(api);
    let api = events::routes(api);
    if sim { sim::routes(api) } else { api }
}

fn by(caller: &Caller) -> By {
    By(caller.label())
}

/// 202 with what will be, and where to look after it.
fn accepted(location: String, body: impl Serialize) -> Response {
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// 202 with the job that does it.
fn accepted_job(job: &Job) -> Response {
    accepted(format!("/api/v1/jobs/{}", job.id), job)
}

fn png(picture: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "image/png")], Body::from(picture)).into_response()
}

/// What a hypervisor's error is to who asked for something of this machine.
fn of_machine(name: &shared::Name, e: &HvError) -> ApiError {
    ApiError(match e {
        HvError::NotRunning { .. } => Status::precondition(format!("{name} is not running: start it first")),
        HvError::TimedOut { .. } | HvError::Lost { .. } | HvError::NotInstalled(_) => {
            tracing::warn!(error = %db::chain(e), "a machine does not answer");
            Status::new(Code::Unavailable, format!("{name} does not answer: try again"))
        }
        _ => return super::error::internal("asking the machine", e),
    })
}
