//! Uploads: begun, sent in parts of any size, each at the offset where the one before ended, and finished.
//!
//! Not tus: that has its own headers for what the API says as JSON elsewhere (sizes, errors, names in base64), and would
//! be another way to do it. What it is good for is here: ask how much has arrived, and go on there.

use super::{accepted_job, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path, Query};
use crate::http::route::Api;
use crate::inventory::images as inventory;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use shared::access::Privilege;
use shared::api::{ListQuery, UploadPage};
use shared::image::{CreateUpload, Upload};
use shared::job::Job;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::ImageCreate, routes!(list_uploads))
        .route(Privilege::ImageCreate, routes!(create_upload))
        .route(Privilege::ImageCreate, routes!(get_upload))
        .route(Privilege::ImageCreate, routes!(send_part))
        .route(Privilege::ImageCreate, routes!(finish_upload))
        .route(Privilege::ImageCreate, routes!(delete_upload))
}

/// Where a part begins.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct At {
    /// How many bytes come before it: `receivedBytes` of the upload.
    offset: u64,
}

/// Uploads that are not finished, newest first.
#[utoipa::path(get, path = "/api/v1/uploads", tag = "images", params(ListQuery),
    responses((status = 200, body = UploadPage)))]
async fn list_uploads(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<UploadPage>> {
    let page = inventory::uploads(server.world(), &query).await?;
    Ok(Json(UploadPage {
        uploads: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Begins an upload.
#[utoipa::path(post, path = "/api/v1/uploads", tag = "images", request_body = CreateUpload,
    responses((status = 201, body = Upload)))]
async fn create_upload(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateUpload>,
) -> ApiResult<impl IntoResponse> {
    let upload = server.jobs.create_upload(request, by(&caller)).await?;
    let location = format!("/api/v1/uploads/{}", upload.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(upload)))
}

/// One upload: `receivedBytes` says where the next part begins.
#[utoipa::path(get, path = "/api/v1/uploads/{upload}", tag = "images",
    params(("upload" = String, Path, description = "The upload's id")), responses((status = 200, body = Upload)))]
async fn get_upload(State(server): State<Server>, Path(upload): Path<String>) -> ApiResult<Json<Upload>> {
    Ok(Json(inventory::upload_named(server.world(), &upload).await?))
}

/// Takes a part, which begins where the last one ended. Of one that breaks off, what came is kept.
#[utoipa::path(patch, path = "/api/v1/uploads/{upload}/content", tag = "images",
    params(("upload" = String, Path, description = "The upload's id"), At),
    request_body(content_type = "application/octet-stream"), responses((status = 200, body = Upload)))]
async fn send_part(
    State(server): State<Server>,
    Path(upload): Path<String>,
    Query(At { offset }): Query<At>,
    body: axum::body::Body,
) -> ApiResult<Json<Upload>> {
    let upload = inventory::upload_named(server.world(), &upload).await?;
    let stream = body.into_data_stream();
    Ok(Json(server.jobs.receive(&upload, offset, stream).await?))
}

/// Makes an image of what was uploaded.
#[utoipa::path(post, path = "/api/v1/uploads/{upload}/finish", tag = "images",
    params(("upload" = String, Path, description = "The upload's id")), responses((status = 202, body = Job)))]
async fn finish_upload(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(upload): Path<String>,
    Body(crate::http::extract::Nothing {}): Body<crate::http::extract::Nothing>,
) -> ApiResult<Response> {
    let upload = inventory::upload_named(server.world(), &upload).await?;
    Ok(accepted_job(
        &server.jobs.finish_upload(&upload, by(&caller)).await?,
    ))
}

/// Throws an upload away.
#[utoipa::path(delete, path = "/api/v1/uploads/{upload}", tag = "images",
    params(("upload" = String, Path, description = "The upload's id")),
    responses((status = 200, description = "Done")))]
async fn delete_upload(State(server): State<Server>, Path(upload): Path<String>) -> ApiResult<Json<()>> {
    let upload = inventory::upload_named(server.world(), &upload).await?;
    server.jobs.delete_upload(&upload).await?;
    Ok(Json(()))
}
