//! Storages and networks come, change and go.

use super::places::one;
use crate::db;
use crate::db::places::{NetworkRow, StorageRow};
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path};
use crate::http::route::Api;
use crate::inventory;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use shared::access::Privilege;
use shared::place::{
    CreateNetwork, CreateStorage, Network, NetworkKind, PatchNetwork, PatchStorage, Storage,
};
use shared::{NetworkId, Status, StorageId, can};
use std::io::ErrorKind;
use std::path::{Component, Path as FsPath, PathBuf};
use utoipa_axum::routes;
use uuid::Uuid;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::PlaceUpdate, routes!(create_storage))
        .route(Privilege::PlaceUpdate, routes!(update_storage))
        .route(Privilege::PlaceUpdate, routes!(delete_storage))
        .route(Privilege::PlaceUpdate, routes!(create_network))
        .route(Privilege::PlaceUpdate, routes!(update_network))
        .route(Privilege::PlaceUpdate, routes!(delete_network))
}

async fn storage(server: &Server, reference: &str) -> Result<Storage, Status> {
    one(inventory::storages(server.world()).await?, "storage", reference)
}

async fn network(server: &Server, reference: &str) -> Result<Network, Status> {
    one(inventory::networks(server.world()).await?, "network", reference)
}

/// A directory that layers can be made in.
fn directory(path: &str) -> Result<PathBuf, Status> {
    let directory = PathBuf::from(path);
    let plain = directory
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !directory.is_absolute() || !plain {
        let why = format_args!("{path:?} is no absolute path like /srv/machines");
        return Err(Status::invalid("path", why));
    }
    if directory.exists() && !directory.is_dir() {
        let why = format_args!("{path} is no directory: name one, or a path where nothing is yet");
        return Err(Status::invalid("path", why));
    }
    let failed = |why: std::io::Error| {
        let advice = match why.kind() {
            ErrorKind::PermissionDenied => "give the user that the server runs as the right to",
            _ => "name a directory where files can be made",
        };
        Status::invalid(
            "path",
            format_args!("layers cannot be made in {path}: {why}; {advice}"),
        )
    };
    std::fs::create_dir_all(&directory).map_err(failed)?;
    // What cannot be written to is found now, not when the first disk is made.
    tempfile::tempfile_in(&directory).map_err(failed)?;
    Ok(directory)
}

/// A path with all links followed, as far as it is there.
fn real(path: &FsPath) -> PathBuf {
    let found = path.ancestors().find_map(|there| {
        let rest = path.strip_prefix(there).ok()?;
        Some(there.canonicalize().ok()?.join(rest))
    });
    found.unwrap_or_else(|| path.to_owned())
}

/// Refuses a directory that shares files with a storage: each takes what it finds for its own.
fn check_apart(path: &str, all: &[StorageRow]) -> Result<(), Status> {
    let new = real(FsPath::new(path));
    for other in all {
        let there = real(FsPath::new(&other.path));
        let how = match (new.starts_with(&there), there.starts_with(&new)) {
            (true, true) => "is",
            (true, false) => "lies in",
            (false, true) => "contains",
            (false, false) => continue,
        };
        let why = format_args!(
            "{path} {how} the directory of storage {}, {}: name another",
            other.name, other.path
        );
        return Err(Status::invalid("path", why));
    }
    Ok(())
}

/// Adds a directory that disks can go to.
#[utoipa::path(post, path = "/api/v1/storages", tag = "storages", request_body = CreateStorage,
    responses((status = 201, body = Storage)))]
async fn create_storage(
    State(server): State<Server>,
    Body(request): Body<CreateStorage>,
) -> ApiResult<impl IntoResponse> {
    let path = request.path.trim_end_matches('/').to_owned();
    let all = db::places::storages(&server.world().db)
        .await
        .map_err(Status::from)?;
    let asked = path.clone();
    let made = tokio::task::spawn_blocking(move || {
        check_apart(&asked, &all)?;
        directory(&asked)
    });
    let made = made.await;
    let directory = made.map_err(|e| Status::new(shared::Code::Internal, e.to_string()))??;
    let id = StorageId(Uuid::now_v7());
    let row = StorageRow {
        id,
        name: request.name,
        path,
        default: request.default,
    };
    server.world().add_storage(id, directory);
    let added = server
        .world()
        .db
        .write(move |tx| Box::pin(async move { db::places::insert_storage(tx, &row).await }));
    added.await.map_err(Status::from)?;
    let made = storage(&server, &id.to_string()).await?;
    let location = format!("/api/v1/storages/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// Renames a storage, or has new disks go there.
#[utoipa::path(patch, path = "/api/v1/storages/{storage}", tag = "storages", request_body = PatchStorage,
    responses((status = 200, body = Storage)), params(("storage" = String, Path, description = "Name or id")))]
async fn update_storage(
    State(server): State<Server>,
    Path(reference): Path<String>,
    Body(request): Body<PatchStorage>,
) -> ApiResult<Json<Storage>> {
    let now = storage(&server, &reference).await?;
    if request.name.is_some() {
        can::can_rename_storage(&now)?;
    }
    let id = now.id;
    let changed = server.world().db.write(move |tx| {
        Box::pin(async move {
            if let Some(name) = &request.name {
                db::places::rename_storage(tx, id, name).await?;
            }
            if request.default {
                db::places::set_default(tx, id).await?;
            }
            Ok(())
        })
    });
    changed.await.map_err(Status::from)?;
    Ok(Json(storage(&server, &id.to_string()).await?))
}

/// Removes a storage that nothing is in. Its directory stays.
#[utoipa::path(delete, path = "/api/v1/storages/{storage}", tag = "storages", responses((status = 204)),
    params(("storage" = String, Path, description = "Name or id")))]
async fn delete_storage(
    State(server): State<Server>,
    Path(reference): Path<String>,
) -> ApiResult<StatusCode> {
    let now = storage(&server, &reference).await?;
    let gone = server.world().db.write(move |tx| {
        Box::pin(async move {
            let layers = db::places::layers_in(tx.conn(), now.id).await?;
            let id = now.id;
            can::can_delete_storage(&Storage { layers, ..now })?;
            db::places::delete_storage(tx, id).await
        })
    });
    gone.await.map_err(Status::from)?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_bridge(server: &Server, bridge: &str) -> Result<(), Status> {
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    if bridge.is_empty() || bridge.len() > 15 || !bridge.chars().all(plain) || bridge.starts_with('.') {
        let why = format_args!("{bridge:?} is no name of a bridge, like br0");
        return Err(Status::invalid("bridge", why));
    }
    if !server.world().hypervisor.has_bridge(bridge) {
        let why = format_args!(
            "this host has no bridge {bridge}: make it first (`ip link add {bridge} type bridge`)"
        );
        return Err(Status::invalid("bridge", why));
    }
    Ok(())
}

/// Adds a network.
#[utoipa::path(post, path = "/api/v1/networks", tag = "networks", request_body = CreateNetwork,
    responses((status = 201, body = Network)))]
async fn create_network(
    State(server): State<Server>,
    Body(request): Body<CreateNetwork>,
) -> ApiResult<impl IntoResponse> {
    match (request.kind, &request.bridge) {
        (NetworkKind::Bridge, Some(bridge)) => check_bridge(&server, bridge)?,
        (NetworkKind::Bridge, None) => {
            return Err(Status::invalid("bridge", "a bridged network names a bridge of the host").into());
        }
        (_, Some(_)) => return Err(Status::invalid("bridge", "only a bridged network has one").into()),
        (_, None) => {}
    }
    let id = NetworkId(Uuid::now_v7());
    let row = NetworkRow {
        id,
        name: request.name,
        kind: request.kind,
        bridge: request.bridge,
    };
    let added = server
        .world()
        .db
        .write(move |tx| Box::pin(async move { db::places::insert_network(tx, &row).await }));
    added.await.map_err(Status::from)?;
    let made = network(&server, &id.to_string()).await?;
    let location = format!("/api/v1/networks/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// Changes a network's name or bridge.
#[utoipa::path(patch, path = "/api/v1/networks/{network}", tag = "networks", request_body = PatchNetwork,
    responses((status = 200, body = Network)), params(("network" = String, Path, description = "Name or id")))]
async fn update_network(
    State(server): State<Server>,
    Path(reference): Path<String>,
    Body(request): Body<PatchNetwork>,
) -> ApiResult<Json<Network>> {
    let now = network(&server, &reference).await?;
    can::can_rename_network(&now)?;
    if let Some(bridge) = &request.bridge {
        if now.kind != NetworkKind::Bridge {
            return Err(Status::invalid("bridge", "only a bridged network has one").into());
        }
        check_bridge(&server, bridge)?;
    }
    let (id, name) = (now.id, request.name.unwrap_or(now.name));
    let changed = server.world().db.write(move |tx| {
        Box::pin(async move { db::places::patch_network(tx, id, &name, request.bridge.as_deref()).await })
    });
    changed.await.map_err(Status::from)?;
    Ok(Json(network(&server, &id.to_string()).await?))
}

/// Removes a network that no NIC is on.
#[utoipa::path(delete, path = "/api/v1/networks/{network}", tag = "networks", responses((status = 204)),
    params(("network" = String, Path, description = "Name or id")))]
async fn delete_network(
    State(server): State<Server>,
    Path(reference): Path<String>,
) -> ApiResult<StatusCode> {
    let now = network(&server, &reference).await?;
    let gone = server.world().db.write(move |tx| {
        Box::pin(async move {
            let nics = db::places::nics_on(tx.conn(), now.id).await?;
            let id = now.id;
            can::can_delete_network(&Network { nics, ..now })?;
            db::places::delete_network(tx, id).await
        })
    });
    gone.await.map_err(Status::from)?;
    Ok(StatusCode::NO_CONTENT)
}
