//! Whether the server lives, and whether it is ready.

use super::Server;
use super::error::{ApiError, ApiResult};
use axum::extract::State;
use shared::{Code, Status};

/// GET /healthz: the process answers.
pub async fn live() -> &'static str {
    "ok\n"
}

/// GET /readyz: what it stands on answers too.
pub async fn ready(State(server): State<Server>) -> ApiResult<&'static str> {
    let away = |message: &str| ApiError(Status::new(Code::Unavailable, message));
    if server.stop.is_cancelled() {
        return Err(away("the server is stopping"));
    }
    server.world().db.ping().await.map_err(|e| {
        tracing::error!(error = %crate::db::chain(&e), "not ready");
        away("the database does not answer")
    })?;
    server.world().hypervisor.version().await.map_err(|e| {
        tracing::error!(error = %crate::db::chain(&e), "not ready");
        away("the hypervisor cannot be used; `offshoot doctor` says what is missing")
    })?;
    Ok("ready\n")
}
