//! Who is calling.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::Body;
use crate::http::route::Api;
use axum::extract::State;
use axum::{Extension, Json};
use shared::access::{Me, Privilege, SetPassword};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::SelfManage, routes!(get_me))
        .route(Privilege::SelfManage, routes!(put_password))
}

/// Who is calling, and what they may do.
#[utoipa::path(get, path = "/api/v1/me", tag = "me", responses((status = 200, body = Me)))]
async fn get_me(Extension(caller): Extension<Caller>) -> Json<Me> {
    Json(caller.me())
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
