//! One's own tokens.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path, Query};
use crate::http::route::Api;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use shared::access::{CreateToken, NewToken, Privilege};
use shared::api::{ListQuery, TokenPage};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::SelfManage, routes!(list))
        .route(Privilege::SelfManage, routes!(create))
        .route(Privilege::SelfManage, routes!(delete))
}

/// One's own tokens.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", params(ListQuery), operation_id = "list_tokens",
    responses((status = 200, body = TokenPage)))]
async fn list(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<TokenPage>> {
    Ok(Json(server.access.list_tokens(&caller, &query).await?))
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = CreateToken,
    operation_id = "create_token", responses((status = 201, body = NewToken)))]
async fn create(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateToken>,
) -> ApiResult<impl IntoResponse> {
    let new = server.access.create_token(&caller, request).await?;
    let location = format!("/api/v1/tokens/{}", new.token.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(new)))
}

/// Takes a token back: it is refused from now on.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens", operation_id = "delete_token",
    params(("token" = String, Path, description = "The token's id")),
    responses((status = 200, description = "Done")))]
async fn delete(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(token): Path<String>,
) -> ApiResult<Json<()>> {
    server.access.delete_token(&caller, &token).await?;
    Ok(Json(()))
}
