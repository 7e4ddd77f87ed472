//! The live feed.

use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::Query;
use crate::http::route::Api;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use shared::Status;
use shared::access::Privilege;
use shared::feed::Place;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::EventRead, routes!(listen))
}

/// From where on to listen.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct After {
    /// A place, `<epoch>-<generation>`, as the id of an event has it; or a generation alone. From now on if not given.
    #[serde(default)]
    after: Option<String>,
}

/// What changes, as it changes: an event stream.
///
/// `event` is the noun, `data` the resource or `{"deleted":true,…}`, `id` the place. `reset` tells to load all data
/// again; `alive` comes every five seconds. `Last-Event-ID` is heard before `after`.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(After), operation_id = "listen",
    responses((status = 200, description = "An event stream", content_type = "text/event-stream")))]
async fn listen(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(query): Query<After>,
) -> ApiResult<Response> {
    let here = server.feed.place();
    let last = headers.get("last-event-id").map(|v| v.to_str().unwrap_or("?"));
    let after = match (last.filter(|l| !l.is_empty()), query.after.as_deref()) {
        // What a browser sends back is ours, or of another life of this server: reset, never refuse.
        (Some(last), _) => Some(last.parse().unwrap_or(Place {
            epoch: !here.epoch,
            generation: 0,
        })),
        (None, None | Some("")) => None,
        (None, Some(after)) => Some(match after.parse::<u64>() {
            Ok(generation) => Place {
                epoch: here.epoch,
                generation,
            },
            Err(_) => after.parse().map_err(|e| Status::invalid("after", e))?,
        }),
    };
    let stream = server.feed.listen(caller, after);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that gather answers would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}
