//! Who is calling, and what they sign in with.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing};
use crate::http::route::Api;
use axum::extract::State;
use axum::{Extension, Json};
use shared::access::{GiveCode, Me, Privilege, RecoveryCodes, SetPassword, TwoFactorSecret};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::SelfManage, routes!(get_me))
        .route(Privilege::SelfManage, routes!(put_password))
        .route(Privilege::SelfManage, routes!(begin_two_factor))
        .route(Privilege::SelfManage, routes!(get_two_factor))
        .route(Privilege::SelfManage, routes!(confirm_two_factor))
        .route(Privilege::SelfManage, routes!(remove_two_factor))
}

/// Who is calling, and what they may do.
#[utoipa::path(get, path = "/api/v1/me", tag = "me", responses((status = 200, body = Me)))]
async fn get_me(State(server): State<Server>, Extension(caller): Extension<Caller>) -> ApiResult<Json<Me>> {
    Ok(Json(server.access.me(&caller).await?))
}

/// Sets one's own password; one's other sessions end.
#[utoipa::path(put, path = "/api/v1/me/password", tag = "me", request_body = SetPassword,
    responses((status = 200, description = "Done")))]
async fn put_password(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<SetPassword>,
) -> ApiResult<Json<()>> {
    server.access.set_password(&caller, request.password).await?;
    Ok(Json(()))
}

/// Begins to set a second factor up: what an authenticator app needs to know. Nothing is asked for until a code has proved it.
#[utoipa::path(post, path = "/api/v1/me/twoFactor", tag = "me", responses((status = 200, body = TwoFactorSecret)))]
async fn begin_two_factor(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<TwoFactorSecret>> {
    Ok(Json(server.access.begin_two_factor(&caller).await?))
}

/// The same again, while it is being set up.
#[utoipa::path(get, path = "/api/v1/me/twoFactor", tag = "me", responses((status = 200, body = TwoFactorSecret)))]
async fn get_two_factor(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<Json<TwoFactorSecret>> {
    Ok(Json(server.access.pending_two_factor(&caller).await?))
}

/// Asks for a second factor from now on; one's other sessions end. The codes to recover with are in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/me/twoFactor/confirm", tag = "me", request_body = GiveCode,
    responses((status = 200, body = RecoveryCodes)))]
async fn confirm_two_factor(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<GiveCode>,
) -> ApiResult<Json<RecoveryCodes>> {
    Ok(Json(
        server.access.confirm_two_factor(&caller, &request.code).await?,
    ))
}

/// Asks for no second factor any more; a code has to prove that it is one's own.
#[utoipa::path(post, path = "/api/v1/me/twoFactor/remove", tag = "me", request_body = GiveCode,
    responses((status = 200, description = "Done")))]
async fn remove_two_factor(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<GiveCode>,
) -> ApiResult<Json<()>> {
    server.access.remove_two_factor(&caller, &request.code).await?;
    Ok(Json(()))
}
