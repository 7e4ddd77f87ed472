//! Who did what, and what was refused.

use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::Query;
use crate::http::route::Api;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use shared::access::Privilege;
use shared::access::audit::ExportFormat;
use shared::api::{AuditPage, ListQuery};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::AuditRead, routes!(list_audit))
        .route(Privilege::AuditRead, routes!(export_audit))
}

/// Every request that changed something or was refused, newest first. Reading is not among it.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(ListQuery),
    responses((status = 200, body = AuditPage)))]
async fn list_audit(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<AuditPage>> {
    Ok(Json(server.access.list_audit(&query).await?))
}

/// What to export.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct What {
    /// `jsonl`, one JSON object on each line, or `csv`.
    #[serde(default)]
    #[param(inline)]
    format: ExportFormat,
    /// As in the list.
    #[serde(default)]
    filter: Option<String>,
}

/// The same as a file, all of it.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(What),
    responses((status = 200, description = "All events", content_type = "application/jsonl")))]
async fn export_audit(State(server): State<Server>, Query(what): Query<What>) -> ApiResult<Response> {
    let text = server.access.export_audit(what.filter, what.format)?;
    let (kind, name) = match what.format {
        ExportFormat::Jsonl => ("application/jsonl", "attachment; filename=\"audit.jsonl\""),
        ExportFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"audit.csv\""),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(text)).into_response())
}
