//! Copies of snapshots, and the tasks that make them.

use super::{accepted, accepted_job, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory::{self, copies as found};
use crate::jobs::Asked;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::access::rights::Sees;
use shared::api::{CopyPage, CopyTaskPage, ListQuery};
use shared::copy::{BootCopy, Copy, CopyTask, CreateCopyTask, PatchCopy, RestoreCopy};
use shared::job::Job;
use shared::{Code, Status};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::CopyRead, routes!(list_copy_tasks))
        .route(Privilege::CopyCreate, routes!(create_copy_task))
        .list(Privilege::CopyRead, routes!(list_all_copy_tasks))
        .route(Privilege::CopyRead, routes!(get_copy_task))
        .route(Privilege::CopyCreate, routes!(cancel_copy_task))
        .route(Privilege::CopyCreate, routes!(hold_copy_task))
        .route(Privilege::CopyCreate, routes!(release_copy_task))
        .list(Privilege::CopyRead, routes!(list_copies))
        .route(Privilege::CopyRead, routes!(get_copy))
        .route(Privilege::CopyDelete, routes!(update_copy))
        .route(Privilege::CopyDelete, routes!(delete_copy))
        .route(Privilege::CopyRestore, routes!(restore_copy))
        .route(Privilege::CopyCreate, routes!(boot_copy))
}

/// Tasks that copy snapshots of a machine, newest first.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/copyTasks", tag = "copies",
    params(("vm" = String, Path, description = "Name or id"), ListQuery),
    responses((status = 200, body = CopyTaskPage)))]
async fn list_copy_tasks(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CopyTaskPage>> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let page = found::tasks(server.world(), Some(&vm), &query, &Sees::All).await?;
    Ok(Json(CopyTaskPage {
        copy_tasks: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

fn task_of(job: &Job) -> Result<CopyTask, Status> {
    CopyTask::of(job).ok_or_else(|| Status::new(Code::Internal, format!("job {} copies nothing", job.id)))
}

fn accepted_task(job: &Job) -> ApiResult<Response> {
    let location = format!("/api/v1/copyTasks/{}", job.id);
    Ok(accepted(location, task_of(job)?))
}

/// Copies a snapshot of a machine to a target: the one that is named, or one that is taken now.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/copyTasks", tag = "copies", request_body = CreateCopyTask,
    params(("vm" = String, Path, description = "Name or id")), responses((status = 202, body = CopyTask)))]
async fn create_copy_task(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<CreateCopyTask>,
) -> ApiResult<Response> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let job = server
        .jobs
        .copy_snapshot(&vm, request, Asked::default(), by(&caller))
        .await?;
    accepted_task(&job)
}

/// Tasks that copy snapshots, newest first.
#[utoipa::path(get, path = "/api/v1/copyTasks", tag = "copies", params(ListQuery),
    responses((status = 200, body = CopyTaskPage)))]
async fn list_all_copy_tasks(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CopyTaskPage>> {
    let sees = caller.rights.sees(Privilege::CopyRead);
    let page = found::tasks(server.world(), None, &query, &sees).await?;
    Ok(Json(CopyTaskPage {
        copy_tasks: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One copy task.
#[utoipa::path(get, path = "/api/v1/copyTasks/{copyTask}", tag = "copies",
    params(("copyTask" = String, Path, description = "Its id")), responses((status = 200, body = CopyTask)))]
async fn get_copy_task(State(server): State<Server>, Path(task): Path<String>) -> ApiResult<Json<CopyTask>> {
    Ok(Json(found::task(server.world(), &task).await?))
}

/// Cancels a copy task. What it has brought to the target is used by the next, or goes when that is cleaned up.
#[utoipa::path(post, path = "/api/v1/copyTasks/{copyTask}/cancel", tag = "copies",
    params(("copyTask" = String, Path, description = "Its id")), responses((status = 202, body = CopyTask)))]
async fn cancel_copy_task(
    State(server): State<Server>,
    Path(task): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let task = found::task(server.world(), &task).await?;
    accepted_task(&server.jobs.cancel(task.id).await?)
}

/// Has a copy task stand still until it is released.
#[utoipa::path(post, path = "/api/v1/copyTasks/{copyTask}/hold", tag = "copies",
    params(("copyTask" = String, Path, description = "Its id")), responses((status = 202, body = CopyTask)))]
async fn hold_copy_task(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(task): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let task = found::task(server.world(), &task).await?;
    accepted_task(&server.jobs.hold(task.id, by(&caller)).await?)
}

/// Lets a copy task go on. One that waits for its target looks for it at once.
#[utoipa::path(post, path = "/api/v1/copyTasks/{copyTask}/release", tag = "copies",
    params(("copyTask" = String, Path, description = "Its id")), responses((status = 202, body = CopyTask)))]
async fn release_copy_task(
    State(server): State<Server>,
    Path(task): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let task = found::task(server.world(), &task).await?;
    accepted_task(&server.jobs.release(task.id).await?)
}

/// Copies, by the moment that they show, newest first.
#[utoipa::path(get, path = "/api/v1/copies", tag = "copies", params(ListQuery),
    responses((status = 200, body = CopyPage)))]
async fn list_copies(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CopyPage>> {
    let sees = caller.rights.sees(Privilege::CopyRead);
    let page = found::copies(server.world(), &query, &sees).await?;
    Ok(Json(CopyPage {
        copies: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One copy.
#[utoipa::path(get, path = "/api/v1/copies/{copy}", tag = "copies",
    params(("copy" = String, Path, description = "Its id")), responses((status = 200, body = Copy)))]
async fn get_copy(State(server): State<Server>, Path(copy): Path<String>) -> ApiResult<Json<Copy>> {
    Ok(Json(found::copy(server.world(), &copy).await?))
}

/// Puts a copy under legal hold, or takes that back.
#[utoipa::path(patch, path = "/api/v1/copies/{copy}", tag = "copies", request_body = PatchCopy,
    params(("copy" = String, Path, description = "Its id")), responses((status = 200, body = Copy)))]
async fn update_copy(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(copy): Path<String>,
    Body(request): Body<PatchCopy>,
) -> ApiResult<Json<Copy>> {
    let held = found::copy(server.world(), &copy).await?;
    let copies = &server.world().copies;
    let changed = copies.set_hold(&held, request.legal_hold, &caller.label()).await;
    changed.map_err(Status::from)?;
    get_copy(State(server), Path(copy)).await
}

/// Removes a copy. What only it needed goes when its target is cleaned up.
#[utoipa::path(delete, path = "/api/v1/copies/{copy}", tag = "copies",
    params(("copy" = String, Path, description = "Its id")), responses((status = 204)))]
async fn delete_copy(State(server): State<Server>, Path(copy): Path<String>) -> ApiResult<StatusCode> {
    let copy = found::copy(server.world(), &copy).await?;
    server.world().copies.remove(&copy).await.map_err(Status::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Brings a copy back: as a new machine, over one that is there, as disks of one, or as a file. A new machine asks for
/// `vm.create`, too; one that is changed for `vm.update`, a file for `image.export`.
#[utoipa::path(post, path = "/api/v1/copies/{copy}/restore", tag = "copies", request_body = RestoreCopy,
    params(("copy" = String, Path, description = "Its id")), responses((status = 202, body = Job)))]
async fn restore_copy(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(copy): Path<String>,
    Body(request): Body<RestoreCopy>,
) -> ApiResult<Response> {
    let copy = found::copy(server.world(), &copy).await?;
    if request.vm.is_some() {
        caller.must(Privilege::VmCreate, None)?;
    }
    if request.file.is_some() {
        caller.must(Privilege::ImageExport, None)?;
    }
    let over = request.over.as_ref().map(|over| &over.vm);
    if let Some(reference) = over.or(request.disks.as_ref().map(|disks| &disks.vm)) {
        let vm = inventory::vm_row(server.world(), reference).await?;
        caller.must(Privilege::VmUpdate, Some(vm.id))?;
    }
    Ok(accepted_job(
        &server.jobs.restore(&copy, request, by(&caller)).await?,
    ))
}

/// Boots a copy without networks, to see that it does, and throws away what it wrote.
#[utoipa::path(post, path = "/api/v1/copies/{copy}/boot", tag = "copies", request_body = BootCopy,
    params(("copy" = String, Path, description = "Its id")), responses((status = 202, body = Job)))]
async fn boot_copy(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(copy): Path<String>,
    Body(request): Body<BootCopy>,
) -> ApiResult<Response> {
    let copy = found::copy(server.world(), &copy).await?;
    Ok(accepted_job(
        &server.jobs.boot_copy(&copy, request, by(&caller)).await?,
    ))
}
