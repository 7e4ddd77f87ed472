//! Roles: sets of privileges with a name.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path, Query};
use crate::http::route::Api;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use shared::access::{CreateRole, PatchRole, Privilege, Role};
use shared::api::{ListQuery, RolePage};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    // Whoever makes a token may confine it to a role, and has to see which there are.
    api.route(Privilege::SelfManage, routes!(list_roles))
        .route(Privilege::UserManage, routes!(create_role))
        .route(Privilege::SelfManage, routes!(get_role))
        .route(Privilege::UserManage, routes!(update_role))
        .route(Privilege::UserManage, routes!(delete_role))
}

/// Roles, with what whoever has them may do.
#[utoipa::path(get, path = "/api/v1/roles", tag = "roles", params(ListQuery),
    responses((status = 200, body = RolePage)))]
async fn list_roles(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<RolePage>> {
    Ok(Json(server.access.list_roles(&query).await?))
}

/// Makes a role of privileges that one has oneself.
#[utoipa::path(post, path = "/api/v1/roles", tag = "roles", request_body = CreateRole,
    responses((status = 201, body = Role)))]
async fn create_role(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateRole>,
) -> ApiResult<impl IntoResponse> {
    let role = server.access.create_role(&caller, request).await?;
    let location = format!("/api/v1/roles/{}", role.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(role)))
}

/// One role, by name or id.
#[utoipa::path(get, path = "/api/v1/roles/{role}", tag = "roles", responses((status = 200, body = Role)),
    params(("role" = String, Path, description = "Name or id")))]
async fn get_role(State(server): State<Server>, Path(role): Path<String>) -> ApiResult<Json<Role>> {
    Ok(Json(server.access.role(&role).await?))
}

/// Changes a role of one's own making: for whoever has it, at once.
#[utoipa::path(patch, path = "/api/v1/roles/{role}", tag = "roles", request_body = PatchRole,
    responses((status = 200, body = Role)), params(("role" = String, Path, description = "Name or id")))]
async fn update_role(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(role): Path<String>,
    Body(request): Body<PatchRole>,
) -> ApiResult<Json<Role>> {
    Ok(Json(server.access.update_role(&caller, &role, request).await?))
}

/// Deletes a role that neither a user nor a token has.
#[utoipa::path(delete, path = "/api/v1/roles/{role}", tag = "roles",
    responses((status = 200, description = "Done")), params(("role" = String, Path, description = "Name or id")))]
async fn delete_role(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(role): Path<String>,
) -> ApiResult<Json<()>> {
    server.access.delete_role(&caller, &role).await?;
    Ok(Json(()))
}
