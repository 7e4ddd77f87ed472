//! Places that copies go to, and what another server keeps there.

use super::{accepted_job, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory::copies as inventory;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use shared::access::Privilege;
use shared::api::{ListQuery, TargetPage};
use shared::job::Job;
use shared::target::{CreateTarget, PatchTarget, StoredObject, Target, VerifyTarget};
use shared::{Code, Status};
use std::sync::Arc;
use utoipa_axum::routes;
use vault::StoreError;
use vault::store::{Objects, Put};

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::TargetRead, routes!(list_targets))
        .route(Privilege::TargetManage, routes!(create_target))
        .route(Privilege::TargetRead, routes!(get_target))
        .route(Privilege::TargetManage, routes!(update_target))
        .route(Privilege::TargetManage, routes!(detach_target))
        .route(Privilege::TargetManage, routes!(check_target))
        .route(Privilege::TargetManage, routes!(verify_target))
        .route(Privilege::TargetManage, routes!(prune_target))
        .route(Privilege::TargetStore, routes!(list_objects))
        .route(Privilege::TargetStore, routes!(get_object))
        .route(Privilege::TargetStore, routes!(put_object))
        .route(Privilege::TargetStore, routes!(delete_object))
}

/// Largest object that another server may have kept here: two packs.
const OBJECT_BYTES: usize = 128 << 20;

/// Targets.
#[utoipa::path(get, path = "/api/v1/targets", tag = "targets", params(ListQuery),
    responses((status = 200, body = TargetPage)))]
async fn list_targets(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<TargetPage>> {
    let page = inventory::targets(server.world(), &query).await?;
    Ok(Json(TargetPage {
        targets: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Adds a target: it is tried, and a vault is made there, or the one that is there is taken.
#[utoipa::path(post, path = "/api/v1/targets", tag = "targets", request_body = CreateTarget,
    responses((status = 201, body = Target)))]
async fn create_target(
    State(server): State<Server>,
    Body(request): Body<CreateTarget>,
) -> ApiResult<impl IntoResponse> {
    let made = server
        .world()
        .copies
        .create(request)
        .await
        .map_err(Status::from)?;
    let location = format!("/api/v1/targets/{}", made.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// One target, by name or id.
#[utoipa::path(get, path = "/api/v1/targets/{target}", tag = "targets", responses((status = 200, body = Target)),
    params(("target" = String, Path, description = "Name or id")))]
async fn get_target(State(server): State<Server>, Path(target): Path<String>) -> ApiResult<Json<Target>> {
    Ok(Json(inventory::target(server.world(), &target).await?))
}

/// Changes a target's name, limits or place. Where it is elsewhere from now on, the same vault has to be there.
#[utoipa::path(patch, path = "/api/v1/targets/{target}", tag = "targets", request_body = PatchTarget,
    responses((status = 200, body = Target)), params(("target" = String, Path, description = "Name or id")))]
async fn update_target(
    State(server): State<Server>,
    Path(target): Path<String>,
    Body(request): Body<PatchTarget>,
) -> ApiResult<Json<Target>> {
    let changed = server.world().copies.update(&target, request).await;
    Ok(Json(changed.map_err(Status::from)?))
}

/// Detaches a target. What is there stays, and can be attached again, here or elsewhere.
#[utoipa::path(delete, path = "/api/v1/targets/{target}", tag = "targets", responses((status = 204)),
    params(("target" = String, Path, description = "Name or id")))]
async fn detach_target(State(server): State<Server>, Path(target): Path<String>) -> ApiResult<StatusCode> {
    server
        .world()
        .copies
        .detach(&target)
        .await
        .map_err(Status::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries a target again, and reads which copies are there.
#[utoipa::path(post, path = "/api/v1/targets/{target}/check", tag = "targets",
    responses((status = 200, body = Target)), params(("target" = String, Path, description = "Name or id")))]
async fn check_target(
    State(server): State<Server>,
    Path(target): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<Target>> {
    let checked = server.world().copies.check(&target).await;
    Ok(Json(checked.map_err(Status::from)?))
}

/// Reads all that a target has, or a sample, and names what is damaged, and the copies that it hurts.
#[utoipa::path(post, path = "/api/v1/targets/{target}/verify", tag = "targets", request_body = VerifyTarget,
    responses((status = 202, body = Job)), params(("target" = String, Path, description = "Name or id")))]
async fn verify_target(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(target): Path<String>,
    Body(request): Body<VerifyTarget>,
) -> ApiResult<Response> {
    let target = inventory::target(server.world(), &target).await?;
    let job = server.jobs.verify_target(&target, request, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// Takes out of a target what no copy needs: first it is marked, and a day later, with the next clean-up, it goes.
#[utoipa::path(post, path = "/api/v1/targets/{target}/prune", tag = "targets",
    responses((status = 202, body = Job)), params(("target" = String, Path, description = "Name or id")))]
async fn prune_target(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(target): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let target = inventory::target(server.world(), &target).await?;
    Ok(accepted_job(
        &server.jobs.prune_target(&target, by(&caller)).await?,
    ))
}

/// Which objects are listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct Prefix {
    /// What their names begin with.
    #[serde(default)]
    prefix: String,
}

/// Which object, and which of its bytes.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct Object {
    /// Its name.
    name: String,
    /// The first byte; all of it if not given.
    #[serde(default)]
    from: Option<u64>,
    /// Behind the last byte.
    #[serde(default)]
    to: Option<u64>,
}

async fn objects(server: &Server, target: &str) -> Result<Arc<dyn Objects>, ApiError> {
    let id = inventory::target(server.world(), target).await?.id;
    let opened = server.world().copies.open(id).await.map_err(Status::from)?;
    Ok(opened.vault.objects())
}

/// A name as a vault gives them: nothing that leads out of it.
fn checked(name: &str) -> Result<&str, Status> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    if name.len() <= 256 && name.split('/').all(plain) {
        Ok(name)
    } else {
        Err(Status::invalid("name", "it is no name of an object of a vault"))
    }
}

fn of_store(name: &str, e: StoreError) -> ApiError {
    let (code, message) = match &e {
        StoreError::NotFound => (Code::NotFound, format!("there is no object {name}")),
        StoreError::Exists => (Code::AlreadyExists, format!("there is an object {name} already")),
        StoreError::Full => (Code::ResourceExhausted, format!("object {name}: {e}")),
        StoreError::Away(_) => (Code::Unavailable, format!("object {name}: {e}")),
        StoreError::Denied(_) | StoreError::Other(_) => {
            (Code::FailedPrecondition, format!("object {name}: {e}"))
        }
    };
    Status::new(code, message).into()
}

/// The objects that are kept at a target, for another server.
#[utoipa::path(get, path = "/api/v1/targets/{target}/objects", tag = "targets",
    params(("target" = String, Path, description = "Name or id"), Prefix),
    responses((status = 200, body = Vec<StoredObject>)))]
async fn list_objects(
    State(server): State<Server>,
    Path(target): Path<String>,
    Query(Prefix { prefix }): Query<Prefix>,
) -> ApiResult<Json<Vec<StoredObject>>> {
    if let Some(directory) = prefix.strip_suffix('/') {
        checked(directory)?;
    } else if !prefix.is_empty() {
        return Err(Status::invalid("prefix", "it ends with / or is empty").into());
    }
    let listed = objects(&server, &target).await?.list(&prefix).await;
    let listed = listed.map_err(|e| of_store(&prefix, e))?;
    let all = listed.into_iter().map(|object| StoredObject {
        name: object.name,
        size: object.size,
    });
    Ok(Json(all.collect()))
}

/// An object that is kept at a target, or a part of it.
#[utoipa::path(get, path = "/api/v1/targets/{target}/objects/content", tag = "targets",
    params(("target" = String, Path, description = "Name or id"), Object),
    responses((status = 200, content_type = "application/octet-stream")))]
async fn get_object(
    State(server): State<Server>,
    Path(target): Path<String>,
    Query(asked): Query<Object>,
) -> ApiResult<Response> {
    let name = checked(&asked.name)?;
    let range = match (asked.from, asked.to) {
        (None, None) => None,
        (Some(from), Some(to)) if from < to => Some(from..to),
        _ => return Err(Status::invalid("to", "from and to are a range of bytes").into()),
    };
    let got = objects(&server, &target).await?.get(name, range).await;
    let bytes = got.map_err(|e| of_store(name, e))?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes).into_response())
}

/// Keeps an object at a target. With `If-None-Match: *` only where none of that name is.
#[utoipa::path(put, path = "/api/v1/targets/{target}/objects/content", tag = "targets",
    params(("target" = String, Path, description = "Name or id"), Object),
    request_body(content_type = "application/octet-stream"), responses((status = 204)))]
async fn put_object(
    State(server): State<Server>,
    Path(target): Path<String>,
    Query(asked): Query<Object>,
    headers: HeaderMap,
    body: axum::body::Body,
) -> ApiResult<StatusCode> {
    let name = checked(&asked.name)?;
    let put = match headers.get(header::IF_NONE_MATCH) {
        Some(_) => Put::Create,
        None => Put::Replace,
    };
    let objects = objects(&server, &target).await?;
    let bytes = axum::body::to_bytes(body, OBJECT_BYTES).await;
    let bytes = bytes.map_err(|e| Status::invalid("body", format_args!("object {name}: {e}")))?;
    let kept = objects.put(name, vec![bytes], put).await;
    kept.map_err(|e| of_store(name, e))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an object that is kept at a target; that there is none is no error.
#[utoipa::path(delete, path = "/api/v1/targets/{target}/objects/content", tag = "targets",
    params(("target" = String, Path, description = "Name or id"), Object), responses((status = 204)))]
async fn delete_object(
    State(server): State<Server>,
    Path(target): Path<String>,
    Query(asked): Query<Object>,
) -> ApiResult<StatusCode> {
    let name = checked(&asked.name)?;
    let gone = objects(&server, &target).await?.delete(name).await;
    gone.map_err(|e| of_store(name, e))?;
    Ok(StatusCode::NO_CONTENT)
}
