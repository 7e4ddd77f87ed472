//! Jobs of every kind.

use super::{accepted_job, by, png};
use crate::access::Caller;
use crate::access::reach::Thing;
use crate::http::Server;
use crate::http::error::{ApiResult, internal};
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::{JobPage, ListQuery, LogPage};
use shared::job::Job;
use shared::{Code, Status};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.list(Privilege::JobRead, routes!(list_jobs))
        .route(Privilege::JobRead, routes!(get_job))
        .route(Privilege::JobRead, routes!(get_job_log))
        .route(Privilege::JobRead, routes!(get_job_screen))
        .route(Privilege::JobUpdate, routes!(cancel_job))
        .route(Privilege::JobUpdate, routes!(retry_job))
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, body = JobPage)))]
async fn list_jobs(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<JobPage>> {
    let sees = caller.rights.sees(Privilege::JobRead);
    let page = inventory::jobs(server.world(), &query, &sees).await?;
    Ok(Json(JobPage {
        jobs: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{job}", tag = "jobs", responses((status = 200, body = Job)),
    params(("job" = String, Path, description = "Its id")))]
async fn get_job(State(server): State<Server>, Path(job): Path<String>) -> ApiResult<Json<Job>> {
    Ok(Json(inventory::job(server.world(), &job).await?))
}

/// A job's log, oldest line first.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/log", tag = "jobs", responses((status = 200, body = LogPage)),
    params(("job" = String, Path, description = "Its id"), ListQuery))]
async fn get_job_log(
    State(server): State<Server>,
    Path(job): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<LogPage>> {
    let job = inventory::job(server.world(), &job).await?;
    let page = inventory::job_log(server.world(), &job, &query).await?;
    Ok(Json(LogPage {
        lines: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// The picture that a job has kept of its guest's screen.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/screen", tag = "jobs",
    responses((status = 200, description = "A picture", content_type = "image/png")),
    params(("job" = String, Path, description = "Its id")))]
async fn get_job_screen(State(server): State<Server>, Path(job): Path<String>) -> ApiResult<Response> {
    let job = inventory::job(server.world(), &job).await?;
    match tokio::fs::read(server.world().screen_file(job.id)).await {
        Ok(picture) => Ok(png(picture)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let why = format!("job {} has kept no picture of a screen", job.id);
            Err(Status::new(Code::NotFound, why).into())
        }
        Err(e) => Err(internal("reading a picture of a screen", &e)),
    }
}

/// Cancels a job: what it did is undone.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/cancel", tag = "jobs", responses((status = 202, body = Job)),
    params(("job" = String, Path, description = "Its id")))]
async fn cancel_job(
    State(server): State<Server>,
    Path(job): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let job = inventory::job(server.world(), &job).await?;
    Ok(accepted_job(&server.jobs.cancel(job.id).await?))
}

/// Tries a job again, as a new one.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/retry", tag = "jobs", responses((status = 202, body = Job)),
    params(("job" = String, Path, description = "Its id")))]
async fn retry_job(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let job = inventory::job(server.world(), &job).await?;
    // It asks what the first one asked: whoever may only try again may not do more by it.
    let of = job.spec.vm().map(|vm| vm.to_string());
    let of = of.as_deref().map(|vm| (Thing::Vm, vm));
    server
        .access
        .admit(&caller, Privilege::of_job(job.kind), of)
        .await?;
    Ok(accepted_job(&server.jobs.retry(job.id, by(&caller)).await?))
}
