//! Counts for the overview.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::route::Api;
use crate::inventory;
use axum::extract::State;
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::Summary;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    // Everybody may ask: it counts what the caller sees.
    api.route(Privilege::SelfManage, routes!(get_summary))
}

/// How many there are of what the console counts.
#[utoipa::path(get, path = "/api/v1/summary", tag = "summary", responses((status = 200, body = Summary)))]
async fn get_summary(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<Json<Summary>> {
    Ok(Json(inventory::summary(server.world(), &caller.rights).await?))
}
