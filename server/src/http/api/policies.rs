//! Policies, and their runs.

use super::{accepted, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory::policies as inventory;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::{CopyRunPage, ListQuery, PolicyPage};
use shared::copy::CopyRun;
use shared::policy::retain::{PreviewRetention, RetentionPreview};
use shared::policy::{CreatePolicy, PatchPolicy, Policy};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::TargetRead, routes!(list_policies))
        .route(Privilege::TargetManage, routes!(create_policy))
        .route(Privilege::TargetRead, routes!(get_policy))
        .route(Privilege::TargetManage, routes!(update_policy))
        .route(Privilege::TargetManage, routes!(delete_policy))
        .route(Privilege::TargetRead, routes!(preview_policy))
        .route(Privilege::CopyCreate, routes!(run_policy))
        .route(Privilege::TargetRead, routes!(list_copy_runs))
        .route(Privilege::TargetRead, routes!(get_copy_run))
}

/// Policies: when copies are made, of which machines, where they go, and which are kept.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", params(ListQuery),
    responses((status = 200, body = PolicyPage)))]
async fn list_policies(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<PolicyPage>> {
    let page = inventory::policies(server.world(), &query).await?;
    Ok(Json(PolicyPage {
        policies: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Makes a policy.
#[utoipa::path(post, path = "/api/v1/policies", tag = "policies", request_body = CreatePolicy,
    responses((status = 201, body = Policy)))]
async fn create_policy(
    State(server): State<Server>,
    Body(request): Body<CreatePolicy>,
) -> ApiResult<impl IntoResponse> {
    let id = server.jobs.create_policy(request).await?.to_string();
    let made = inventory::policy(server.world(), &id).await?;
    let location = format!("/api/v1/policies/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// One policy, by name or id.
#[utoipa::path(get, path = "/api/v1/policies/{policy}", tag = "policies", responses((status = 200, body = Policy)),
    params(("policy" = String, Path, description = "Name or id")))]
async fn get_policy(State(server): State<Server>, Path(policy): Path<String>) -> ApiResult<Json<Policy>> {
    Ok(Json(inventory::policy(server.world(), &policy).await?))
}

/// Changes a policy. With another schedule, or switched on again, it makes up for nothing that was due before.
#[utoipa::path(patch, path = "/api/v1/policies/{policy}", tag = "policies", request_body = PatchPolicy,
    responses((status = 200, body = Policy)), params(("policy" = String, Path, description = "Name or id")))]
async fn update_policy(
    State(server): State<Server>,
    Path(policy): Path<String>,
    Body(request): Body<PatchPolicy>,
) -> ApiResult<Json<Policy>> {
    let id = server.jobs.update_policy(&policy, request).await?;
    Ok(Json(inventory::policy(server.world(), &id.to_string()).await?))
}

/// Deletes a policy. The copies that it made stay, and nothing removes them any more.
#[utoipa::path(delete, path = "/api/v1/policies/{policy}", tag = "policies", responses((status = 204)),
    params(("policy" = String, Path, description = "Name or id")))]
async fn delete_policy(State(server): State<Server>, Path(policy): Path<String>) -> ApiResult<StatusCode> {
    server.jobs.delete_policy(&policy).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which of the copies that a policy has made such rules would keep, and why; nothing is removed.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/preview", tag = "policies", request_body = PreviewRetention,
    responses((status = 200, body = RetentionPreview)), params(("policy" = String, Path, description = "Name or id")))]
async fn preview_policy(
    State(server): State<Server>,
    Path(policy): Path<String>,
    Body(request): Body<PreviewRetention>,
) -> ApiResult<Json<RetentionPreview>> {
    Ok(Json(inventory::preview(server.world(), &policy, &request).await?))
}

/// Makes the copies of a policy now, also of one that is switched off.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/run", tag = "policies", responses((status = 202, body = CopyRun)),
    params(("policy" = String, Path, description = "Name or id")))]
async fn run_policy(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(policy): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let id = server.jobs.run_policy(&policy, by(&caller)).await?.to_string();
    let sees = caller.rights.sees(Privilege::CopyRead);
    let run = inventory::run(server.world(), &id, &sees).await?;
    Ok(accepted(format!("/api/v1/copyRuns/{id}"), run))
}

/// The runs of policies, newest first, each with the tasks of the machines that one sees.
#[utoipa::path(get, path = "/api/v1/copyRuns", tag = "policies", params(ListQuery),
    responses((status = 200, body = CopyRunPage)))]
async fn list_copy_runs(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CopyRunPage>> {
    let sees = caller.rights.sees(Privilege::CopyRead);
    let page = inventory::runs(server.world(), &query, &sees).await?;
    Ok(Json(CopyRunPage {
        copy_runs: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// One run of a policy.
#[utoipa::path(get, path = "/api/v1/copyRuns/{copyRun}", tag = "policies", responses((status = 200, body = CopyRun)),
    params(("copyRun" = String, Path, description = "Its id")))]
async fn get_copy_run(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
) -> ApiResult<Json<CopyRun>> {
    let sees = caller.rights.sees(Privilege::CopyRead);
    Ok(Json(inventory::run(server.world(), &run, &sees).await?))
}
