//! Images to make machines from.

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
use shared::api::{ImagePage, ListQuery};
use shared::image::{CreateImage, PatchImage};
use shared::job::Job;
use shared::place::Image;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::PlaceRead, routes!(list_images))
        .route(Privilege::PlaceRead, routes!(get_image))
        .route(Privilege::ImageCreate, routes!(create_image))
        .route(Privilege::ImageUpdate, routes!(update_image))
        .route(Privilege::ImageDelete, routes!(delete_image))
}

/// Images to make machines from.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", params(ListQuery),
    responses((status = 200, body = ImagePage)))]
async fn list_images(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<ImagePage>> {
    let page = inventory::images(server.world(), &query).await?;
    Ok(Json(ImagePage {
        images: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One image, by name or id.
#[utoipa::path(get, path = "/api/v1/images/{image}", tag = "images", responses((status = 200, body = Image)),
    params(("image" = String, Path, description = "Name or id")))]
async fn get_image(State(server): State<Server>, Path(image): Path<String>) -> ApiResult<Json<Image>> {
    Ok(Json(inventory::image(server.world(), &image).await?))
}

/// Brings an image in by address or by path, or makes one of a snapshot. One that is on your own machine is uploaded
/// (`/api/v1/uploads`).
#[utoipa::path(post, path = "/api/v1/images", tag = "images", request_body = CreateImage,
    responses((status = 202, body = Job)))]
async fn create_image(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateImage>,
) -> ApiResult<Response> {
    Ok(accepted_job(
        &server.jobs.create_image(request, by(&caller)).await?,
    ))
}

/// Gives an image another name.
#[utoipa::path(patch, path = "/api/v1/images/{image}", tag = "images", request_body = PatchImage,
    responses((status = 200, body = Image)), params(("image" = String, Path, description = "Name or id")))]
async fn update_image(
    State(server): State<Server>,
    Path(image): Path<String>,
    Body(request): Body<PatchImage>,
) -> ApiResult<Json<Image>> {
    let id = inventory::image(server.world(), &image).await?.id;
    server.jobs.rename_image(id, request.name).await?;
    Ok(Json(inventory::image(server.world(), &id.to_string()).await?))
}

/// Deletes an image. Machines that stand on it keep what they stand on; it goes with the last of them.
#[utoipa::path(delete, path = "/api/v1/images/{image}", tag = "images", responses((status = 202, body = Job)),
    params(("image" = String, Path, description = "Name or id")))]
async fn delete_image(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(image): Path<String>,
) -> ApiResult<Response> {
    let id = inventory::image(server.world(), &image).await?.id;
    Ok(accepted_job(&server.jobs.delete_image(id, by(&caller)).await?))
}
