//! Instant clones, and the points in time that they are forked from.

use super::{accepted_job, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path, Query};
use crate::http::route::Api;
use crate::inventory;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use shared::Status;
use shared::access::{FORKING, Privilege};
use shared::api::{Family, ForkPointPage, JobPage, ListQuery};
use shared::fork::{ForkPoint, InstantClone};
use shared::job::Job;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::JobRead, routes!(list_instant_clones))
        .route(Privilege::ProvisioningClone, routes!(create_instant_clones))
        .route(Privilege::VmRead, routes!(get_family))
        .list(Privilege::ForkRead, routes!(list_fork_points))
        .route(Privilege::ForkRead, routes!(get_fork_point))
        .route(Privilege::ProvisioningClone, routes!(fork_point))
        .route(Privilege::ForkDelete, routes!(delete_fork_point))
}

/// The route asks the first of these; the others are asked here.
fn may_fork(caller: &Caller) -> Result<(), Status> {
    FORKING
        .iter()
        .try_for_each(|privilege| caller.must(*privilege, None))
}

/// The jobs that forked a machine, newest first.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/instantClones", tag = "instantClones",
    params(("vm" = String, Path, description = "Name or id"), ListQuery),
    responses((status = 200, body = JobPage)))]
async fn list_instant_clones(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<JobPage>> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let page = inventory::instant_clones(server.world(), &vm, &query).await?;
    Ok(Json(JobPage {
        jobs: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Forks a running machine, memory and disks, or an instant of it that was kept: 1 to 64 clones that go on at the same
/// instant. The source stands still for some milliseconds, and goes on.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/instantClones", tag = "instantClones", request_body = InstantClone,
    params(("vm" = String, Path, description = "Name or id")), responses((status = 202, body = Job)))]
async fn create_instant_clones(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<InstantClone>,
) -> ApiResult<Response> {
    may_fork(&caller)?;
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    let job = server.jobs.instant_clone(id, request, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// The machines that go back to the same instants as this one, and what their memory costs the host now.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/family", tag = "instantClones",
    params(("vm" = String, Path, description = "Name or id")), responses((status = 200, body = Family)))]
async fn get_family(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
) -> ApiResult<Json<Family>> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let sees = caller.rights.sees(Privilege::VmRead);
    Ok(Json(inventory::family(server.world(), &vm, &sees).await?))
}

/// The instants that are kept.
#[utoipa::path(get, path = "/api/v1/forkPoints", tag = "forkPoints", params(ListQuery),
    responses((status = 200, body = ForkPointPage)))]
async fn list_fork_points(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<ForkPointPage>> {
    let sees = caller.rights.sees(Privilege::ForkRead);
    let page = inventory::fork_points(server.world(), &query, &sees).await?;
    Ok(Json(ForkPointPage {
        fork_points: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One instant that is kept, by name or id.
#[utoipa::path(get, path = "/api/v1/forkPoints/{forkPoint}", tag = "forkPoints",
    params(("forkPoint" = String, Path, description = "Name or id")), responses((status = 200, body = ForkPoint)))]
async fn get_fork_point(
    State(server): State<Server>,
    Path(point): Path<String>,
) -> ApiResult<Json<ForkPoint>> {
    Ok(Json(inventory::fork_point(server.world(), &point).await?))
}

/// Forks an instant that is kept; its machine is not touched, and may be gone.
#[utoipa::path(post, path = "/api/v1/forkPoints/{forkPoint}/instantClones", tag = "forkPoints",
    request_body = InstantClone, params(("forkPoint" = String, Path, description = "Name or id")),
    responses((status = 202, body = Job)))]
async fn fork_point(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(point): Path<String>,
    Body(mut request): Body<InstantClone>,
) -> ApiResult<Response> {
    may_fork(&caller)?;
    let point = inventory::fork_point(server.world(), &point).await?;
    request.fork_point = Some(point.id.to_string());
    let job = server.jobs.instant_clone(point.vm, request, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// Deletes an instant that is kept, if no machine stands on it.
#[utoipa::path(delete, path = "/api/v1/forkPoints/{forkPoint}", tag = "forkPoints",
    params(("forkPoint" = String, Path, description = "Name or id")), responses((status = 202, body = Job)))]
async fn delete_fork_point(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(point): Path<String>,
) -> ApiResult<Response> {
    let point = inventory::fork_point(server.world(), &point).await?;
    let job = server.jobs.delete_fork_point(point.id, by(&caller)).await?;
    Ok(accepted_job(&job))
}
