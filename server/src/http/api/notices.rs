//! Channels that notices of failed jobs go through, and what went through them.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::{ListQuery, NoticeChannelPage, NoticePage};
use shared::notice::{CreateNoticeChannel, NewNoticeChannel, Notice, NoticeChannel, PatchNoticeChannel};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    // An address may hold a secret: seeing channels asks as much as changing them.
    api.route(Privilege::NoticeManage, routes!(list_notice_channels))
        .route(Privilege::NoticeManage, routes!(create_notice_channel))
        .route(Privilege::NoticeManage, routes!(get_notice_channel))
        .route(Privilege::NoticeManage, routes!(update_notice_channel))
        .route(Privilege::NoticeManage, routes!(delete_notice_channel))
        .route(Privilege::NoticeManage, routes!(roll_notice_secret))
        .route(Privilege::NoticeManage, routes!(test_notice_channel))
        .route(Privilege::NoticeManage, routes!(list_notices))
}

/// Channels, with how the last delivery went and how many wait.
#[utoipa::path(get, path = "/api/v1/noticeChannels", tag = "notices", params(ListQuery),
    responses((status = 200, body = NoticeChannelPage)))]
async fn list_notice_channels(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<NoticeChannelPage>> {
    Ok(Json(server.notices.channels(&query).await?))
}

/// Makes a channel. It tells of all jobs, so it asks for `job.read` on everything, too. The secret of a webhook is in
/// this answer and nowhere else; what is posted is a `NoticeMessage`, signed as the Standard Webhooks specification has it.
#[utoipa::path(post, path = "/api/v1/noticeChannels", tag = "notices", request_body = CreateNoticeChannel,
    responses((status = 201, body = NewNoticeChannel)))]
async fn create_notice_channel(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateNoticeChannel>,
) -> ApiResult<impl IntoResponse> {
    caller.must(Privilege::JobRead, None)?;
    let new = server.notices.create(request).await?;
    let location = format!("/api/v1/noticeChannels/{}", new.channel.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(new)))
}

/// One channel, by name or id.
#[utoipa::path(get, path = "/api/v1/noticeChannels/{channel}", tag = "notices",
    responses((status = 200, body = NoticeChannel)), params(("channel" = String, Path, description = "Name or id")))]
async fn get_notice_channel(
    State(server): State<Server>,
    Path(channel): Path<String>,
) -> ApiResult<Json<NoticeChannel>> {
    Ok(Json(server.notices.channel(&channel).await?))
}

/// Changes a channel. When it is switched off, what waits there is given up. Asks for `job.read` on everything, too.
#[utoipa::path(patch, path = "/api/v1/noticeChannels/{channel}", tag = "notices", request_body = PatchNoticeChannel,
    responses((status = 200, body = NoticeChannel)), params(("channel" = String, Path, description = "Name or id")))]
async fn update_notice_channel(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(channel): Path<String>,
    Body(request): Body<PatchNoticeChannel>,
) -> ApiResult<Json<NoticeChannel>> {
    caller.must(Privilege::JobRead, None)?;
    Ok(Json(server.notices.update(&channel, request).await?))
}

/// Deletes a channel, with what waits there.
#[utoipa::path(delete, path = "/api/v1/noticeChannels/{channel}", tag = "notices",
    responses((status = 200, description = "Done")), params(("channel" = String, Path, description = "Name or id")))]
async fn delete_notice_channel(
    State(server): State<Server>,
    Path(channel): Path<String>,
) -> ApiResult<Json<()>> {
    server.notices.delete(&channel).await?;
    Ok(Json(()))
}

/// Gives a webhook another secret, which is in this answer and nowhere else. For a day posts are signed with the one
/// before as well. Asks for `job.read` on everything, too.
#[utoipa::path(post, path = "/api/v1/noticeChannels/{channel}/rollSecret", tag = "notices",
    responses((status = 200, body = NewNoticeChannel)),
    params(("channel" = String, Path, description = "Name or id")))]
async fn roll_notice_secret(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(channel): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<NewNoticeChannel>> {
    caller.must(Privilege::JobRead, None)?;
    Ok(Json(server.notices.roll(&channel).await?))
}

/// Sends a notice of nothing, once: the channel tells how it went.
#[utoipa::path(post, path = "/api/v1/noticeChannels/{channel}/test", tag = "notices",
    responses((status = 202, body = Notice)), params(("channel" = String, Path, description = "Name or id")))]
async fn test_notice_channel(
    State(server): State<Server>,
    Path(channel): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<(StatusCode, Json<Notice>)> {
    Ok((StatusCode::ACCEPTED, Json(server.notices.test(&channel).await?)))
}

/// What went through a channel and what waits there, newest first. It is kept for 30 days.
#[utoipa::path(get, path = "/api/v1/noticeChannels/{channel}/notices", tag = "notices",
    params(("channel" = String, Path, description = "Name or id"), ListQuery),
    responses((status = 200, body = NoticePage)))]
async fn list_notices(
    State(server): State<Server>,
    Path(channel): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<NoticePage>> {
    Ok(Json(server.notices.list(&channel, &query).await?))
}
