//! Sessions: who is signed in from where.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::Path;
use crate::http::route::Api;
use axum::extract::State;
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::SessionPage;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::SelfManage, routes!(list_sessions))
        .route(Privilege::SelfManage, routes!(delete_session))
        .route(Privilege::UserManage, routes!(list_user_sessions))
        .route(Privilege::UserManage, routes!(delete_user_session))
}

/// One's own sessions, the newest first.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "sessions", responses((status = 200, body = SessionPage)))]
async fn list_sessions(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<Json<SessionPage>> {
    Ok(Json(server.access.list_sessions(&caller, None).await?))
}

/// Ends a session of one's own.
#[utoipa::path(delete, path = "/api/v1/sessions/{session}", tag = "sessions",
    params(("session" = String, Path, description = "Its id")), responses((status = 200, description = "Done")))]
async fn delete_session(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(session): Path<String>,
) -> ApiResult<Json<()>> {
    server.access.end_session(&caller, None, &session).await?;
    Ok(Json(()))
}

/// A user's sessions.
#[utoipa::path(get, path = "/api/v1/users/{user}/sessions", tag = "sessions",
    params(("user" = String, Path, description = "Name or id")), responses((status = 200, body = SessionPage)))]
async fn list_user_sessions(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
) -> ApiResult<Json<SessionPage>> {
    Ok(Json(server.access.list_sessions(&caller, Some(&user)).await?))
}

/// Ends a session of a user.
#[utoipa::path(delete, path = "/api/v1/users/{user}/sessions/{session}", tag = "sessions",
    params(("user" = String, Path, description = "Name or id"), ("session" = String, Path, description = "Its id")),
    responses((status = 200, description = "Done")))]
async fn delete_user_session(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path((user, session)): Path<(String, String)>,
) -> ApiResult<Json<()>> {
    server.access.end_session(&caller, Some(&user), &session).await?;
    Ok(Json(()))
}
