//! The simulation's own calls; they exist only with `--sim`.

use crate::http::Server;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{Body, Nothing, Path};
use crate::http::route::Api;
use axum::Json;
use axum::extract::State;
use shared::Status;
use shared::access::Privilege;
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::SimRelease, routes!(release))
}

/// Releases what waits under this name in the simulation.
#[utoipa::path(post, path = "/api/v1/sim/{name}/release", tag = "sim", operation_id = "release_sim",
    params(("name" = String, Path, description = "A name that begins with wait-at-")),
    responses((status = 200, description = "Done")))]
async fn release(
    State(server): State<Server>,
    Path(name): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<()>> {
    match server.world().hypervisor.as_sim() {
        Some(sim) => sim.release(&name),
        None => return Err(ApiError(Status::not_found("simulation", &name))),
    }
    Ok(Json(()))
}
