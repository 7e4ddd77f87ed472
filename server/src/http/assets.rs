//! The console's files: compressed beforehand, kept by browsers for ever where the name has a hash.

use super::Server;
use super::error::{ApiError, ApiResult};
use app::Assets;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::Status;
use std::path::Path;
use tower::ServiceExt;
use tower_http::services::ServeDir;

/// The folder of the files that pages load, from the manifest beside it. Without one the console still works, as
/// HTML alone.
pub fn manifest(site_dir: &Path) -> Assets {
    let path = site_dir.join("manifest.json");
    let read = std::fs::read(&path)
        .map_err(|e| e.to_string())
        .and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()));
    read.unwrap_or_else(|why| {
        tracing::warn!(path = %path.display(), why, "the console's files are not there: its pages have no style and no script");
        Assets {
            version: "missing".to_owned(),
        }
    })
}

/// GET /pkg/{version}/{file}.
pub async fn serve(State(server): State<Server>, request: Request) -> ApiResult<Response> {
    let path = request.uri().path().to_owned();
    // ServeDir decodes the path and refuses what leads out of the directory.
    let files = ServeDir::new(&server.config.site_dir)
        .append_index_html_on_directories(false)
        .precompressed_br();
    let mut response = match files.oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    };
    if response.status() == StatusCode::NOT_FOUND {
        return Err(ApiError(Status::not_found("file", path)));
    }
    // The version is a hash: what is below it never changes.
    let own = format!("/pkg/{}/", server.assets.version);
    let cache = if path.starts_with(&own) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}
