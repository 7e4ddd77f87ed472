//! Machines.

use super::{accepted_job, by, of_machine, png};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use shared::Status;
use shared::access::Privilege;
use shared::api::{ListQuery, VmPage};
use shared::edit::EditVm;
use shared::job::Job;
use shared::vm::{ConnectNics, CreateVm, PatchVm, PowerAction, StopMode, StopVm, Vm};
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.list(Privilege::VmRead, routes!(list_vms))
        .route(Privilege::VmCreate, routes!(create_vm))
        .route(Privilege::VmRead, routes!(get_vm))
        .route(Privilege::VmUpdate, routes!(update_vm))
        .route(Privilege::VmDelete, routes!(delete_vm))
        .route(Privilege::VmPower, routes!(start_vm))
        .route(Privilege::VmPower, routes!(stop_vm))
        .route(Privilege::VmUpdate, routes!(edit_vm))
        .route(Privilege::VmUpdate, routes!(connect_vm))
        .route(Privilege::VmUpdate, routes!(disconnect_vm))
        .route(Privilege::VmPower, routes!(reset_vm))
        .route(Privilege::VmPower, routes!(pause_vm))
        .route(Privilege::VmPower, routes!(resume_vm))
        .route(Privilege::VmRead, routes!(get_vm_screen))
        .route(Privilege::VmRead, routes!(get_vm_serial))
}

/// Machines.
#[utoipa::path(get, path = "/api/v1/vms", tag = "vms", params(ListQuery),
    responses((status = 200, body = VmPage)))]
async fn list_vms(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<VmPage>> {
    let sees = caller.rights.sees(Privilege::VmRead);
    let page = inventory::vms(server.world(), &query, &sees).await?;
    Ok(Json(VmPage {
        vms: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Makes a machine, from images or blank.
#[utoipa::path(post, path = "/api/v1/vms", tag = "vms", request_body = CreateVm,
    responses((status = 202, body = Job)))]
async fn create_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateVm>,
) -> ApiResult<Response> {
    Ok(accepted_job(&server.jobs.create_vm(request, by(&caller)).await?))
}

/// One machine, by name or id.
#[utoipa::path(get, path = "/api/v1/vms/{vm}", tag = "vms", responses((status = 200, body = Vm)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn get_vm(State(server): State<Server>, Path(vm): Path<String>) -> ApiResult<Json<Vm>> {
    Ok(Json(inventory::vm(server.world(), &vm).await?))
}

/// Renames a machine; changes its labels, its description, and whether it is started with its host.
#[utoipa::path(patch, path = "/api/v1/vms/{vm}", tag = "vms", request_body = PatchVm,
    responses((status = 200, body = Vm)), params(("vm" = String, Path, description = "Name or id")))]
async fn update_vm(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(request): Body<PatchVm>,
) -> ApiResult<Json<Vm>> {
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    server.jobs.patch_vm(id, request).await?;
    Ok(Json(inventory::vm(server.world(), &id.to_string()).await?))
}

/// Deletes a stopped machine. Layers that others stand on stay.
#[utoipa::path(delete, path = "/api/v1/vms/{vm}", tag = "vms", responses((status = 202, body = Job)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn delete_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    Ok(accepted_job(&server.jobs.delete_vm(id, by(&caller)).await?))
}

async fn power(server: &Server, caller: &Caller, vm: &str, action: PowerAction) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), vm).await?.id;
    Ok(accepted_job(&server.jobs.power(id, action, by(caller)).await?))
}

/// Powers a machine on.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/start", tag = "vms", responses((status = 202, body = Job)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn start_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    power(&server, &caller, &vm, PowerAction::Start).await
}

/// Asks the guest to shut down, by its agent or else its power button, and powers it off after a time if that is asked; or takes
/// the power away at once.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/stop", tag = "vms", request_body = StopVm,
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn stop_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<StopVm>,
) -> ApiResult<Response> {
    if request.mode == StopMode::PowerOff {
        return power(&server, &caller, &vm, PowerAction::PowerOff).await;
    }
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    let after = request.power_off_after_seconds;
    Ok(accepted_job(
        &server.jobs.shut_down(id, after, by(&caller)).await?,
    ))
}

/// Changes what a machine is made of: at once where that can be, else at its next start.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/edit", tag = "vms", request_body = EditVm,
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn edit_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<EditVm>,
) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    Ok(accepted_job(
        &server.jobs.edit_vm(id, request, by(&caller)).await?,
    ))
}

/// Resets a machine, as by its button.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/reset", tag = "vms", responses((status = 202, body = Job)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn reset_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    power(&server, &caller, &vm, PowerAction::Reset).await
}

/// Lets the guest stand still, its memory kept.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/pause", tag = "vms", responses((status = 202, body = Job)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn pause_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    power(&server, &caller, &vm, PowerAction::Pause).await
}

/// Lets a paused guest go on.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/resume", tag = "vms", responses((status = 202, body = Job)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn resume_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    power(&server, &caller, &vm, PowerAction::Resume).await
}

async fn cables(
    server: &Server,
    caller: &Caller,
    vm: &str,
    joined: bool,
    nics: ConnectNics,
) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), vm).await?.id;
    Ok(accepted_job(
        &server.jobs.connect(id, joined, nics, by(caller)).await?,
    ))
}

/// Connects NICs to their networks. The guest of an instant clone has its own address first.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/connect", tag = "vms", request_body = ConnectNics,
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn connect_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<ConnectNics>,
) -> ApiResult<Response> {
    cables(&server, &caller, &vm, true, request).await
}

/// Takes NICs off their networks: their guest sees the cable out.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/disconnect", tag = "vms", request_body = ConnectNics,
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn disconnect_vm(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<ConnectNics>,
) -> ApiResult<Response> {
    cables(&server, &caller, &vm, false, request).await
}

/// The guest's screen now.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/screen", tag = "vms",
    responses((status = 200, description = "A picture", content_type = "image/png")),
    params(("vm" = String, Path, description = "Name or id"),
        ("n" = Option<u64>, Query, description = "Gives each picture an address of its own; it changes nothing else")))]
async fn get_vm_screen(
    State(server): State<Server>,
    Path(vm): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let picture = async {
        let vm = inventory::vm_row(server.world(), &vm).await?;
        let screen = server.world().hypervisor.screen(vm.id).await;
        screen.map(png).map_err(|e| of_machine(&vm.name, &e))
    };
    match picture.await {
        // A machine ends while a page shows it. An `<img>` cannot read why, and the browser would report a fault.
        Err(_) if headers.get("sec-fetch-dest").is_some_and(|to| to == "image") => {
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        picture => picture,
    }
}

/// What the guest has written to its serial port since power-on; `Range` is heard.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/serial", tag = "vms",
    responses((status = 200, description = "The log", content_type = "text/plain"),
        (status = 206, description = "A part of it", content_type = "text/plain")),
    params(("vm" = String, Path, description = "Name or id")))]
async fn get_vm_serial(
    State(server): State<Server>,
    Path(vm): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let log = server.world().hypervisor.serial_log(vm.id);
    let file = match ServeFile::new(log).oneshot(request).await {
        Ok(file) => file,
        Err(never) => match never {},
    };
    if file.status() == StatusCode::NOT_FOUND {
        let why = format!("{} has written nothing: it has not run yet", vm.name);
        return Err(ApiError(Status::new(shared::Code::NotFound, why)));
    }
    let mut response = file.into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}
