//! Snapshots of a machine.

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
use shared::access::Privilege;
use shared::api::{ListQuery, SnapshotPage};
use shared::job::Job;
use shared::snapshot::{RevertSnapshot, Snapshot, TakeSnapshot};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::SnapshotRead, routes!(list_snapshots))
        .route(Privilege::SnapshotCreate, routes!(take_snapshot))
        .route(Privilege::SnapshotRead, routes!(get_snapshot))
        .route(Privilege::SnapshotDelete, routes!(delete_snapshot))
        .route(Privilege::SnapshotRevert, routes!(revert_snapshot))
}

/// A machine's snapshots: a tree by `parent`.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/snapshots", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"), ListQuery),
    responses((status = 200, body = SnapshotPage)))]
async fn list_snapshots(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<SnapshotPage>> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let page = inventory::snapshots(server.world(), &vm, &query).await?;
    Ok(Json(SnapshotPage {
        snapshots: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Takes a snapshot; the machine goes on running.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/snapshots", tag = "snapshots", request_body = TakeSnapshot,
    params(("vm" = String, Path, description = "Name or id")), responses((status = 202, body = Job)))]
async fn take_snapshot(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<TakeSnapshot>,
) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    Ok(accepted_job(
        &server.jobs.snapshot(id, request, by(&caller)).await?,
    ))
}

/// One snapshot, by name or id.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/snapshots/{snapshot}", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"),
        ("snapshot" = String, Path, description = "Name or id")),
    responses((status = 200, body = Snapshot)))]
async fn get_snapshot(
    State(server): State<Server>,
    Path((vm, snapshot)): Path<(String, String)>,
) -> ApiResult<Json<Snapshot>> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    Ok(Json(inventory::snapshot(server.world(), &vm, &snapshot).await?))
}

/// Deletes a snapshot. What others stand on stays; its layers are merged with those above where nobody else needs them.
#[utoipa::path(delete, path = "/api/v1/vms/{vm}/snapshots/{snapshot}", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"),
        ("snapshot" = String, Path, description = "Name or id")),
    responses((status = 202, body = Job)))]
async fn delete_snapshot(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path((vm, snapshot)): Path<(String, String)>,
) -> ApiResult<Response> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let snapshot = inventory::snapshot(server.world(), &vm, &snapshot).await?;
    let job = server
        .jobs
        .delete_snapshot(vm.id, snapshot.id, by(&caller))
        .await?;
    Ok(accepted_job(&job))
}

/// Takes a machine back to a snapshot: its disks, and its memory if that was kept.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/snapshots/{snapshot}/revert", tag = "snapshots",
    request_body = RevertSnapshot,
    params(("vm" = String, Path, description = "Name or id"),
        ("snapshot" = String, Path, description = "Name or id")),
    responses((status = 202, body = Job)))]
async fn revert_snapshot(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path((vm, snapshot)): Path<(String, String)>,
    Body(request): Body<RevertSnapshot>,
) -> ApiResult<Response> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let snapshot = inventory::snapshot(server.world(), &vm, &snapshot).await?;
    let job = server.jobs.revert(vm.id, &snapshot, request, by(&caller)).await?;
    Ok(accepted_job(&job))
}
