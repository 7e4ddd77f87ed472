//! Clone jobs, in the names of the seed.

use super::{accepted, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::{CloneJobPage, ListQuery};
use shared::clone::{CloneJobView, CloneVm};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::JobRead, routes!(list_clone_jobs))
        .route(Privilege::CloneCreate, routes!(create_clone_job))
        .route(Privilege::JobRead, routes!(get_clone_job))
        .route(Privilege::JobUpdate, routes!(cancel_clone_job))
}

/// A machine's clone jobs, newest first.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/cloneJobs", tag = "cloneJobs",
    params(("vm" = String, Path, description = "Name or id"), ListQuery),
    responses((status = 200, body = CloneJobPage)))]
async fn list_clone_jobs(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CloneJobPage>> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let page = inventory::clone_jobs(server.world(), &vm, &query).await?;
    Ok(Json(CloneJobPage {
        clone_jobs: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Clones a machine from its latest successful snapshot, or the one named, or one taken now. The source goes on.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/cloneJobs", tag = "cloneJobs", request_body = CloneVm,
    params(("vm" = String, Path, description = "Name or id")), responses((status = 202, body = CloneJobView)))]
async fn create_clone_job(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<CloneVm>,
) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    let job = server.jobs.clone_vm(id, request, by(&caller)).await?;
    let view = inventory::clone_job_view(server.world(), &job).await?;
    Ok(accepted(format!("/api/v1/cloneJobs/{}", job.id), view))
}

/// One clone job, by id or by its `cloneJobId`.
#[utoipa::path(get, path = "/api/v1/cloneJobs/{cloneJob}", tag = "cloneJobs",
    params(("cloneJob" = String, Path, description = "Id or cloneJobId")),
    responses((status = 200, body = CloneJobView)))]
async fn get_clone_job(
    State(server): State<Server>,
    Path(job): Path<String>,
) -> ApiResult<Json<CloneJobView>> {
    Ok(Json(inventory::clone_job(server.world(), &job).await?.1))
}

/// Cancels a clone job: what it made is deleted, and nothing else.
#[utoipa::path(post, path = "/api/v1/cloneJobs/{cloneJob}/cancel", tag = "cloneJobs",
    params(("cloneJob" = String, Path, description = "Id or cloneJobId")),
    responses((status = 202, body = CloneJobView)))]
async fn cancel_clone_job(
    State(server): State<Server>,
    Path(job): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let (job, _) = inventory::clone_job(server.world(), &job).await?;
    let job = server.jobs.cancel(job.id).await?;
    let view = inventory::clone_job_view(server.world(), &job).await?;
    Ok(accepted(format!("/api/v1/cloneJobs/{}", job.id), view))
}
