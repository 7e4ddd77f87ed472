//! Users, and the roles that they have.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use shared::Status;
use shared::access::{
    CreateGrant, CreateUser, LinkOidc, OneTimeLink, PatchUser, Privilege, SetPassword, User,
};
use shared::api::{ListQuery, UserPage};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::UserManage, routes!(list_users))
        .route(Privilege::UserManage, routes!(create_user))
        .route(Privilege::UserManage, routes!(get_user))
        .route(Privilege::UserManage, routes!(update_user))
        .route(Privilege::UserManage, routes!(delete_user))
        .route(Privilege::UserManage, routes!(put_user_password))
        .route(Privilege::UserManage, routes!(create_user_link))
        .route(Privilege::UserManage, routes!(delete_user_two_factor))
        .route(Privilege::UserManage, routes!(put_user_oidc))
        .route(Privilege::UserManage, routes!(delete_user_oidc))
        .route(Privilege::UserManage, routes!(create_grant))
        .route(Privilege::UserManage, routes!(delete_grant))
}

/// Users, with their roles.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", params(ListQuery),
    responses((status = 200, body = UserPage)))]
async fn list_users(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<UserPage>> {
    Ok(Json(server.access.list_users(&query).await?))
}

/// Adds a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = CreateUser,
    responses((status = 201, body = User)))]
async fn create_user(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateUser>,
) -> ApiResult<impl IntoResponse> {
    let user = server.access.create_user(&caller, request).await?;
    let location = format!("/api/v1/users/{}", user.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(user)))
}

/// One user, by name or id.
#[utoipa::path(get, path = "/api/v1/users/{user}", tag = "users", responses((status = 200, body = User)),
    params(("user" = String, Path, description = "Name or id")))]
async fn get_user(State(server): State<Server>, Path(user): Path<String>) -> ApiResult<Json<User>> {
    Ok(Json(server.access.user(&user).await?))
}

/// Gives a user another name, or keeps the user out: sessions end at once, and tokens are refused.
#[utoipa::path(patch, path = "/api/v1/users/{user}", tag = "users", request_body = PatchUser,
    responses((status = 200, body = User)), params(("user" = String, Path, description = "Name or id")))]
async fn update_user(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Body(request): Body<PatchUser>,
) -> ApiResult<Json<User>> {
    Ok(Json(server.access.update_user(&caller, &user, request).await?))
}

/// Removes a user, with sessions and tokens. The last administrator stays.
#[utoipa::path(delete, path = "/api/v1/users/{user}", tag = "users",
    responses((status = 200, description = "Done")), params(("user" = String, Path, description = "Name or id")))]
async fn delete_user(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
) -> ApiResult<Json<()>> {
    server.access.delete_user(&caller, &user).await?;
    Ok(Json(()))
}

/// Sets a user's password; the user's sessions end.
#[utoipa::path(put, path = "/api/v1/users/{user}/password", tag = "users", request_body = SetPassword,
    responses((status = 200, description = "Done")), params(("user" = String, Path, description = "Name or id")))]
async fn put_user_password(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Body(request): Body<SetPassword>,
) -> ApiResult<Json<()>> {
    server
        .access
        .set_user_password(&caller, &user, request.password)
        .await?;
    Ok(Json(()))
}

/// Makes a link that signs a user in once, within a day. It is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/users/{user}/link", tag = "users",
    responses((status = 200, body = OneTimeLink)), params(("user" = String, Path, description = "Name or id")))]
async fn create_user_link(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    headers: HeaderMap,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<OneTimeLink>> {
    // Checked already: the server answers to it.
    let host = headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let scheme = if server.tls { "https" } else { "http" };
    let origin = format!("{scheme}://{host}");
    Ok(Json(server.access.link_for(&caller, &user, &origin).await?))
}

/// Asks a user for no second factor any more: for those who have lost it.
#[utoipa::path(delete, path = "/api/v1/users/{user}/twoFactor", tag = "users",
    responses((status = 200, body = User)), params(("user" = String, Path, description = "Name or id")))]
async fn delete_user_two_factor(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
) -> ApiResult<Json<User>> {
    Ok(Json(server.access.reset_two_factor(&caller, &user).await?))
}

/// Has somebody of the OpenID Connect provider sign in as a user from now on; the user's sessions end.
#[utoipa::path(put, path = "/api/v1/users/{user}/oidc", tag = "users", request_body = LinkOidc,
    responses((status = 200, body = User)), params(("user" = String, Path, description = "Name or id")))]
async fn put_user_oidc(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Body(request): Body<LinkOidc>,
) -> ApiResult<Json<User>> {
    let oidc = server.config.oidc.as_ref();
    let oidc = oidc.ok_or_else(|| {
        Status::precondition("sign-in by OpenID Connect is not configured here: oidc_issuer does that")
    })?;
    let linked = server
        .access
        .link_oidc(&caller, &user, &oidc.issuer, request.subject);
    Ok(Json(linked.await?))
}

/// Lets nobody of the OpenID Connect provider sign in as a user any more: sessions end, and roles that groups gave go.
#[utoipa::path(delete, path = "/api/v1/users/{user}/oidc", tag = "users",
    responses((status = 200, body = User)), params(("user" = String, Path, description = "Name or id")))]
async fn delete_user_oidc(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
) -> ApiResult<Json<User>> {
    Ok(Json(server.access.unlink_oidc(&caller, &user).await?))
}

/// Gives a user a role, on everything or on one machine. Nobody gives more than they have.
#[utoipa::path(post, path = "/api/v1/users/{user}/grants", tag = "users", request_body = CreateGrant,
    responses((status = 200, body = User)), params(("user" = String, Path, description = "Name or id")))]
async fn create_grant(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Body(request): Body<CreateGrant>,
) -> ApiResult<Json<User>> {
    Ok(Json(server.access.give_role(&caller, &user, request).await?))
}

/// Takes a role away from a user.
#[utoipa::path(delete, path = "/api/v1/users/{user}/grants/{grant}", tag = "users",
    params(("user" = String, Path, description = "Name or id"), ("grant" = String, Path, description = "Its id")),
    responses((status = 200, body = User)))]
async fn delete_grant(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path((user, grant)): Path<(String, String)>,
) -> ApiResult<Json<User>> {
    Ok(Json(server.access.take_role(&caller, &user, &grant).await?))
}
