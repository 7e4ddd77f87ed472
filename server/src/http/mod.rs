//! The server's face: router, layers, errors, pages.

pub mod api;
pub mod assets;
pub mod audit;
pub mod docs;
pub mod error;
pub mod extract;
pub mod guard;
pub mod health;
pub mod metrics;
pub mod oidc;
pub mod pages;
pub mod route;
pub mod sign_in;
pub mod tls;
pub mod trace;

use crate::access::Access;
use crate::config::Config;
use crate::consoles::Consoles;
use crate::events::Feed;
use crate::jobs::{Jobs, World};
use crate::notices::Notices;
use crate::oidc::Provider;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use error::ApiError;
use guard::Hosts;
use route::{Asks, Entry, Method, Own};
use shared::{Code, Status};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Largest body of a request, in bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// What handlers work with.
pub struct Parts {
    /// What the server was told.
    pub config: Config,
    /// The job engine, and what it works with.
    pub jobs: Jobs,
    /// Who may come in.
    pub access: Access,
    /// The OpenID Connect provider that people may sign in by.
    pub oidc: Option<Provider>,
    /// Who is told of jobs that fail.
    pub notices: Notices,
    /// The live feed.
    pub feed: Feed,
    /// Serial lines that somebody looks at.
    pub consoles: Consoles,
    /// The names it answers to.
    pub hosts: Hosts,
    /// The name of the session's cookie.
    pub cookie: String,
    /// Whether it is spoken to by TLS.
    pub tls: bool,
    /// What tells browsers to come by TLS only.
    pub hsts: Option<HeaderValue>,
    /// Cancelled when the server begins to stop: feeds end first.
    pub stop: CancellationToken,
    /// The names of the console's files.
    pub assets: app::Assets,
    /// What a Prometheus reads.
    pub metrics: Arc<metrics::Metrics>,
    flashes: pages::Flashes,
    docs: OnceLock<docs::Written>,
    // Without its state: with it the server would hold itself.
    api: OnceLock<Router<Server>>,
}

/// The ways in.
pub struct Doors {
    /// Who may come in.
    pub access: Access,
    /// The OpenID Connect provider that people may sign in by.
    pub oidc: Option<Provider>,
}

/// The server, as handlers share it.
#[derive(Clone)]
pub struct Server(Arc<Parts>);

impl Deref for Server {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Server {
    /// A server with its engine, listening at this address.
    pub fn new(config: Config, jobs: Jobs, doors: Doors, notices: Notices, listen: SocketAddr) -> Self {
        let Doors { access, oidc } = doors;
        // Leptos renders on this runtime; told once, a second server in the process finds it told.
        drop(any_spawner::Executor::init_tokio());
        let stop = CancellationToken::new();
        let feed = Feed::start(jobs.clone(), access.clone(), stop.clone());
        let instance = match &config.instance {
            Some(name) => name.to_string(),
            None => listen.port().to_string(),
        };
        Self(Arc::new(Parts {
            hosts: Hosts::new(listen, &config.allowed_hosts, config.public_url.as_deref()),
            cookie: format!("offshoot-{instance}"),
            tls: config.tls_cert.is_some(),
            hsts: match config.hsts_seconds {
                0 => None,
                seconds => HeaderValue::from_str(&format!("max-age={seconds}")).ok(),
            },
            assets: assets::manifest(&config.site_dir),
            consoles: Consoles::new(jobs.world().hypervisor.clone()),
            config,
            jobs,
            access,
            oidc,
            notices,
            feed,
            stop,
            metrics: Arc::default(),
            flashes: pages::Flashes::default(),
            docs: OnceLock::new(),
            api: OnceLock::new(),
        }))
    }

    /// What there is, to read.
    pub fn world(&self) -> &World {
        self.jobs.world()
    }

    fn docs(&self) -> &docs::Written {
        self.docs
            .get_or_init(|| docs::Written::new(&api::all(self.config.sim).build().document))
    }

    /// The API alone, for calls in process: whoever calls brings the `Caller` along.
    fn api(&self) -> Router {
        let layered = || {
            self.api_routes()
                .fallback(unknown)
                .layer(from_fn_with_state(self.access.clone(), audit::layer))
                .layer(from_fn(trace::layer))
        };
        self.api.get_or_init(layered).clone().with_state(self.clone())
    }

    fn api_routes(&self) -> Router<Server> {
        api::all(self.config.sim)
            .build()
            .router
            .method_not_allowed_fallback(wrong_method)
            // What a route asks of a machine is looked up with it.
            .layer(Extension(self.access.clone()))
    }

    /// Everything, as it is served over the network.
    pub fn router(&self) -> Router {
        self.api_routes()
            .merge(own().router.method_not_allowed_fallback(wrong_method))
            .fallback(pages::fallback)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(from_fn_with_state(self.clone(), guard::layer))
            .layer(from_fn_with_state(self.access.clone(), audit::layer))
            .layer(from_fn(trace::layer))
            .layer(from_fn_with_state(self.metrics.clone(), metrics::layer))
            .with_state(self.clone())
    }
}

fn own() -> Own {
    Own::default()
        .route(Method::Get, "/healthz", health::live)
        .route(Method::Get, "/readyz", health::ready)
        .route(Method::Get, "/metrics", metrics::show)
        .route(Method::Get, "/login", pages::page)
        .route(Method::Post, "/login", sign_in::log_in)
        .route(Method::Get, "/login/code", pages::page)
        .route(Method::Post, "/login/code", sign_in::give_code)
        .route(Method::Post, "/do/{*form}", pages::form)
        .route(Method::Post, "/do/theme", pages::form)
        .route(Method::Post, "/do/language", pages::form)
        .route(Method::Post, "/logout", sign_in::log_out)
        .route(Method::Get, "/welcome/{link}", sign_in::welcome)
        .route(Method::Post, "/welcome/{link}", sign_in::welcome_posted)
        .route(Method::Get, oidc::BEGIN, oidc::begin)
        .route(Method::Get, oidc::CALLBACK, oidc::callback)
        .route(Method::Get, "/pkg/{*file}", assets::serve)
}

/// Every route that there is, by path, with what it asks.
pub fn entries(sim: bool) -> Vec<Entry> {
    let mut all = api::all(sim).build().entries;
    all.extend(own().entries);
    // The pages are what is left over.
    all.push(Entry {
        path: "/{*page}".to_owned(),
        method: "GET",
        asks: Asks::SignedIn,
    });
    all.sort();
    all
}

async fn unknown(request: Request) -> ApiError {
    ApiError(Status::not_found("resource", request.uri().path()))
}

async fn wrong_method(request: Request) -> Response {
    let why = format!("{} is not offered on {}", request.method(), request.uri().path());
    error::with_http(
        StatusCode::METHOD_NOT_ALLOWED,
        Status::new(Code::Unimplemented, why),
    )
    .into_response()
}
