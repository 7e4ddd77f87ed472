//! Routes of the API: each is registered with the privilege that it asks, here and nowhere else. The same
//! registration feeds the OpenAPI document and the list of routes that a golden file pins.

use super::Server;
use super::error::ApiError;
use super::guard;
use crate::access::reach::Thing;
use crate::access::{Access, Caller};
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, on};
use shared::access::Privilege;
use shared::notice::NoticeMessage;
use shared::status::ErrorBody;
use shared::{Code, Status};
use std::fmt;
use std::sync::Arc;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asks {
    /// Nothing.
    Nothing,
    /// To be somebody; the calls that it makes for them ask more.
    SignedIn,
    /// This privilege.
    Privilege(Privilege),
}

/// A route as the golden file has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The path, with its parameters in braces.
    pub path: String,
    /// The method.
    pub method: &'static str,
    /// What it asks of its caller.
    pub asks: Asks,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks = match self.asks {
            Asks::Nothing => "open",
            Asks::SignedIn => "signed-in",
            Asks::Privilege(privilege) => privilege.word(),
        };
        write!(f, "{} {} {asks}", self.method, self.path)
    }
}

/// The routes beside the API: sign-in, pages, files.
#[derive(Default)]
pub struct Own {
    /// The routes.
    pub router: Router<Server>,
    /// The same as a list.
    pub entries: Vec<Entry>,
}

impl Own {
    /// Adds a route; [`guard::OPEN`] alone says whether it is open.
    pub fn route<H, T>(mut self, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Server>,
        T: 'static,
    {
        let asks = if guard::is_open(path) {
            Asks::Nothing
        } else {
            Asks::SignedIn
        };
        let (method, filter) = match method {
            Method::Get => ("GET", MethodFilter::GET),
            Method::Post => ("POST", MethodFilter::POST),
        };
        self.entries.push(Entry {
            path: path.to_owned(),
            method,
            asks,
        });
        self.router = self.router.route(path, on(filter, handler));
        self
    }
}

/// The methods of routes beside the API: what browsers do without scripts.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
}

/// The API while it is put together.
pub struct Api {
    router: OpenApiRouter<Server>,
    entries: Vec<Entry>,
}

/// The API as it is served.
pub struct Built {
    /// Its routes.
    pub router: Router<Server>,
    /// Every route, by path.
    pub entries: Vec<Entry>,
    /// What it says of itself.
    pub document: OpenApi,
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", item.get.as_mut()),
        ("POST", item.post.as_mut()),
        ("PUT", item.put.as_mut()),
        ("PATCH", item.patch.as_mut()),
        ("DELETE", item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

fn query_names(operation: &Operation) -> Vec<String> {
    operation
        .parameters
        .iter()
        .flatten()
        .filter_map(|p| match p {
            RefOr::T(p) if matches!(p.parameter_in, ParameterIn::Query) => Some(p.name.clone()),
            _ => None,
        })
        .collect()
}

impl Default for Api {
    fn default() -> Self {
        let info = InfoBuilder::new()
            .title("Offshoot")
            .version("1")
            .description(Some(
                "Clones, forks and snapshots of virtual machines on QEMU. What takes time answers 202 with its job.",
            ))
            .build();
        let mut components = Components::new();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components
            .security_schemes
            .insert("token".to_owned(), RefOr::T(bearer));
        let mut schemas = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
        ErrorBody::schemas(&mut schemas);
        // What a webhook is posted is the answer of no route.
        schemas.push((NoticeMessage::name().into_owned(), NoticeMessage::schema()));
        NoticeMessage::schemas(&mut schemas);
        components.schemas.extend(schemas);
        let document = OpenApiBuilder::new()
            .info(info)
            .components(Some(components))
            .build();
        Self {
            router: OpenApiRouter::with_openapi(document),
            entries: Vec::new(),
        }
    }
}

impl Api {
    /// Adds one route, open to callers with this privilege: on the machine that the path names, else on everything.
    pub fn route(self, privilege: Privilege, routes: UtoipaMethodRouter<Server>) -> Self {
        self.add(privilege, false, routes)
    }

    /// Adds one route that lists, open to callers with this privilege on anything: its handler shows no more than
    /// [`Rights::sees`](shared::access::rights::Rights::sees) has.
    pub fn list(self, privilege: Privilege, routes: UtoipaMethodRouter<Server>) -> Self {
        self.add(privilege, true, routes)
    }

    fn add(mut self, privilege: Privilege, lists: bool, routes: UtoipaMethodRouter<Server>) -> Self {
        let (schemas, mut paths, methods) = routes;
        let mut known = Vec::new();
        for (path, item) in &mut paths.paths {
            for (method, operation) in operations(item) {
                self.entries.push(Entry {
                    path: path.clone(),
                    method,
                    asks: Asks::Privilege(privilege),
                });
                known.extend(query_names(operation));
                describe(operation, privilege);
            }
        }
        let thing = paths.paths.keys().find_map(|path| thing(path));
        let known: Arc<[String]> = known.into();
        let gate = from_fn(move |request: Request, next: Next| {
            let known = known.clone();
            async move {
                // Not across an await: a body is not to be shared between threads.
                let asked = check(&request, privilege, lists, thing, &known);
                let admitted = match asked {
                    Ok(ask) => look(privilege, ask).await,
                    Err(status) => Err(status),
                };
                match admitted {
                    Ok(()) => next.run(request).await,
                    Err(status) => ApiError(status).into_response(),
                }
            }
        });
        let gated = (schemas, paths, methods).map(|methods| methods.route_layer(gate));
        self.router = self.router.routes(gated);
        self
    }

    /// The API, complete.
    pub fn build(self) -> Built {
        let (router, document) = self.router.split_for_parts();
        let mut entries = self.entries;
        entries.sort();
        Built {
            router,
            entries,
            document,
        }
    }
}

fn describe(operation: &mut Operation, privilege: Privilege) {
    operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    operation.extensions = Some(
        ExtensionsBuilder::new()
            .add("x-privilege", privilege.word())
            .build(),
    );
    let error = ResponseBuilder::new()
        .description("What went wrong, and what to do about it.")
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(ErrorBody::name())))
                .build(),
        )
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), error.into());
}

/// The part of a path that says what machine a route is about, and by what.
fn thing(path: &str) -> Option<(usize, Thing)> {
    path.split('/').enumerate().find_map(|(at, part)| match part {
        "{vm}" => Some((at, Thing::Vm)),
        "{job}" => Some((at, Thing::Job)),
        "{cloneJob}" => Some((at, Thing::CloneJob)),
        "{forkPoint}" => Some((at, Thing::ForkPoint)),
        "{copy}" => Some((at, Thing::Copy)),
        "{copyTask}" => Some((at, Thing::CopyTask)),
        _ => None,
    })
}

/// What is still to be looked up: who asks for what.
type Ask = (Access, Caller, Option<(Thing, String)>);

/// Whether a caller may use a route, as far as it can be told without the database.
fn check(
    request: &Request,
    privilege: Privilege,
    lists: bool,
    thing: Option<(usize, Thing)>,
    known: &[String],
) -> Result<Option<Ask>, Status> {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return Err(Status::new(Code::Unauthenticated, "sign in, or send a token"));
    };
    // What a list shows is narrowed by its handler.
    let whole = caller.may(privilege) || lists && caller.rights.somewhere(privilege);
    let access = request.extensions().get::<Access>();
    let ask = match access.filter(|_| !whole) {
        None => {
            if !whole {
                caller.must(privilege, None)?;
            }
            None
        }
        Some(access) => {
            let of = thing.and_then(|(at, thing)| {
                let part = request.uri().path().split('/').nth(at)?;
                Some((thing, percent_decoded(part)?))
            });
            Some((access.clone(), caller.clone(), of))
        }
    };
    let query = request.uri().query().unwrap_or_default();
    for (key, _) in form_urlencoded::parse(query.as_bytes()) {
        if !known.iter().any(|k| *k == key) {
            let why = match known {
                [] => "this call takes no query".to_owned(),
                _ => format!("this call's query has only {}", known.join(", ")),
            };
            return Err(Status::invalid(&key, why));
        }
    }
    Ok(ask)
}

async fn look(privilege: Privilege, ask: Option<Ask>) -> Result<(), Status> {
    match ask {
        None => Ok(()),
        Some((access, caller, of)) => {
            let of = of.as_ref().map(|(thing, reference)| (*thing, reference.as_str()));
            access.admit(&caller, privilege, of).await
        }
    }
}

/// A part of a path as a handler gets it.
fn percent_decoded(part: &str) -> Option<String> {
    percent_encoding::percent_decode_str(part)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}
