//! Hosts, storages and networks.

use crate::db;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Path, Query};
use crate::http::route::Api;
use crate::inventory;
use axum::Json;
use axum::extract::State;
use shared::access::Privilege;
use shared::api::{DEFAULT_PAGE_SIZE, HostPage, ListQuery, MAX_PAGE_SIZE, NetworkPage, StoragePage};
use shared::can::limit;
use shared::place::{Host, Network, PatchHost, Storage};
use shared::{Name, Status};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::PlaceRead, routes!(list_hosts))
        .route(Privilege::PlaceRead, routes!(get_host))
        .route(Privilege::PlaceUpdate, routes!(update_host))
        .route(Privilege::PlaceRead, routes!(list_storages))
        .route(Privilege::PlaceRead, routes!(get_storage))
        .route(Privilege::PlaceRead, routes!(list_networks))
        .route(Privilege::PlaceRead, routes!(get_network))
}

/// What has a name and an id, and of which there are few.
pub(super) trait Place {
    fn name(&self) -> &Name;
    fn id(&self) -> String;
}

macro_rules! places {
    ($($place:ty)*) => {$(
        impl Place for $place {
            fn name(&self) -> &Name {
                &self.name
            }
            fn id(&self) -> String {
                self.id.to_string()
            }
        }
    )*};
}

places! { Host Storage Network }

/// The one with this name or id.
pub(super) fn one<T: Place>(all: Vec<T>, noun: &str, reference: &str) -> Result<T, Status> {
    let found = all
        .into_iter()
        .find(|p| p.name().as_str() == reference || p.id() == reference);
    found.ok_or_else(|| Status::not_found(noun, reference))
}

/// A page of things that come ordered by name; answers the items, the next page's token and how many there are.
fn page<T: Place>(mut all: Vec<T>, query: &ListQuery) -> Result<(Vec<T>, String, u64), Status> {
    let size = query.page_size.unwrap_or(DEFAULT_PAGE_SIZE);
    limit::within("pageSize", u64::from(size), 1, u64::from(MAX_PAGE_SIZE), "items")?;
    for term in query.filter.as_deref().unwrap_or_default().split_whitespace() {
        if let Some(name) = term.strip_prefix("name=") {
            all.retain(|p| p.name().as_str() == name);
        } else if let Some(part) = term.strip_prefix("name:") {
            all.retain(|p| p.name().as_str().contains(part));
        } else {
            let why = format!("{term:?} is neither name=value nor name:part");
            return Err(Status::invalid("filter", why));
        }
    }
    match query.order_by.as_deref().unwrap_or_default().trim() {
        "" | "name" => {}
        "name desc" => all.reverse(),
        other => {
            return Err(Status::invalid(
                "orderBy",
                format!("{other:?} is none of name, name desc"),
            ));
        }
    }
    let total = all.len() as u64;
    if let Some(after) = query.page_token.as_deref().filter(|t| !t.is_empty()) {
        let at = all.iter().position(|p| p.id() == after);
        let at = at.ok_or_else(|| Status::invalid("pageToken", "it is not one that this list gave"))?;
        all.drain(..=at);
    }
    let more = all.len() > size as usize;
    all.truncate(size as usize);
    let next = all.last().filter(|_| more).map(Place::id).unwrap_or_default();
    Ok((all, next, total))
}

/// Hosts.
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", params(ListQuery),
    responses((status = 200, body = HostPage)))]
async fn list_hosts(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<HostPage>> {
    let (hosts, next_page_token, total_size) = page(inventory::hosts(server.world()).await?, &query)?;
    Ok(Json(HostPage {
        hosts,
        next_page_token,
        total_size,
    }))
}

/// One host, by name or id.
#[utoipa::path(get, path = "/api/v1/hosts/{host}", tag = "hosts", responses((status = 200, body = Host)),
    params(("host" = String, Path, description = "Name or id")))]
async fn get_host(State(server): State<Server>, Path(host): Path<String>) -> ApiResult<Json<Host>> {
    Ok(Json(one(inventory::hosts(server.world()).await?, "host", &host)?))
}

/// Takes a host out for maintenance, or back: what runs goes on, and nothing begins.
#[utoipa::path(patch, path = "/api/v1/hosts/{host}", tag = "hosts", request_body = PatchHost,
    responses((status = 200, body = Host)), params(("host" = String, Path, description = "Name or id")))]
async fn update_host(
    State(server): State<Server>,
    Path(host): Path<String>,
    Body(request): Body<PatchHost>,
) -> ApiResult<Json<Host>> {
    let id = one(inventory::hosts(server.world()).await?, "host", &host)?.id;
    let changed = server
        .world()
        .db
        .write(move |tx| Box::pin(async move { db::places::set_host_state(tx, id, request.state).await }));
    changed.await.map_err(Status::from)?;
    get_host(State(server), Path(host)).await
}

/// Storages.
#[utoipa::path(get, path = "/api/v1/storages", tag = "storages", params(ListQuery),
    responses((status = 200, body = StoragePage)))]
async fn list_storages(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<StoragePage>> {
    let (storages, next_page_token, total_size) = page(inventory::storages(server.world()).await?, &query)?;
    Ok(Json(StoragePage {
        storages,
        next_page_token,
        total_size,
    }))
}

/// One storage, by name or id.
#[utoipa::path(get, path = "/api/v1/storages/{storage}", tag = "storages",
    responses((status = 200, body = Storage)), params(("storage" = String, Path, description = "Name or id")))]
async fn get_storage(State(server): State<Server>, Path(storage): Path<String>) -> ApiResult<Json<Storage>> {
    let all = inventory::storages(server.world()).await?;
    Ok(Json(one(all, "storage", &storage)?))
}

/// Networks.
#[utoipa::path(get, path = "/api/v1/networks", tag = "networks", params(ListQuery),
    responses((status = 200, body = NetworkPage)))]
async fn list_networks(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<NetworkPage>> {
    let (networks, next_page_token, total_size) = page(inventory::networks(server.world()).await?, &query)?;
    Ok(Json(NetworkPage {
        networks,
        next_page_token,
        total_size,
    }))
}

/// One network, by name or id.
#[utoipa::path(get, path = "/api/v1/networks/{network}", tag = "networks",
    responses((status = 200, body = Network)), params(("network" = String, Path, description = "Name or id")))]
async fn get_network(State(server): State<Server>, Path(network): Path<String>) -> ApiResult<Json<Network>> {
    let all = inventory::networks(server.world()).await?;
    Ok(Json(one(all, "network", &network)?))
}
