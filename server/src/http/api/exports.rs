//! Disks on their way out: written to a file by a job, fetched, and removed.

use super::{accepted_job, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path, Query};
use crate::http::route::Api;
use crate::inventory::{self, images};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use shared::Status;
use shared::access::Privilege;
use shared::api::{ExportPage, ListQuery};
use shared::image::{CreateExport, Export};
use shared::job::Job;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::ImageExport, routes!(create_export))
        .route(Privilege::ImageExport, routes!(list_exports))
        .route(Privilege::ImageExport, routes!(get_export))
        .route(Privilege::ImageExport, routes!(download))
        .route(Privilege::ImageExport, routes!(delete_export))
}

/// Writes a disk of a machine to a file: of a snapshot, of one taken now, or as it is if the machine is stopped.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/exports", tag = "images", request_body = CreateExport,
    params(("vm" = String, Path, description = "Name or id")), responses((status = 202, body = Job)))]
async fn create_export(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<CreateExport>,
) -> ApiResult<Response> {
    let id = inventory::vm_row(server.world(), &vm).await?.id;
    Ok(accepted_job(
        &server.jobs.export_disk(id, request, by(&caller)).await?,
    ))
}

/// Disks that were written to files, newest first.
#[utoipa::path(get, path = "/api/v1/exports", tag = "images", params(ListQuery),
    responses((status = 200, body = ExportPage)))]
async fn list_exports(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<ExportPage>> {
    let page = images::exports(server.world(), &query).await?;
    Ok(Json(ExportPage {
        exports: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One of them.
#[utoipa::path(get, path = "/api/v1/exports/{export}", tag = "images",
    params(("export" = String, Path, description = "The export's id")), responses((status = 200, body = Export)))]
async fn get_export(State(server): State<Server>, Path(export): Path<String>) -> ApiResult<Json<Export>> {
    Ok(Json(images::export(server.world(), &export).await?))
}

/// The file, or a part of it (`Range`).
#[utoipa::path(get, path = "/api/v1/exports/{export}/content", tag = "images",
    params(("export" = String, Path, description = "The export's id")),
    responses((status = 200, content_type = "application/octet-stream"),
        (status = 206, content_type = "application/octet-stream")))]
async fn download(
    State(server): State<Server>,
    Path(export): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    let export = images::export(server.world(), &export).await?;
    let file = server.world().export_file(export.id, export.format);
    let mut response = match ServeFile::new(file).oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    };
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Status::not_found("file of export", export.id).into());
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    // Made of names, so of letters, digits, hyphens and points.
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", export.name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Removes one, before its time is over.
#[utoipa::path(delete, path = "/api/v1/exports/{export}", tag = "images",
    params(("export" = String, Path, description = "The export's id")),
    responses((status = 200, description = "Done")))]
async fn delete_export(State(server): State<Server>, Path(export): Path<String>) -> ApiResult<Json<()>> {
    let export = images::export(server.world(), &export).await?;
    server.jobs.delete_export(&export).await?;
    Ok(Json(()))
}
