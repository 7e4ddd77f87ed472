//! What a Prometheus reads: how much there is of what, and how long answers take.

use super::Server;
use super::error::{ApiError, ApiResult};
use crate::access::Caller;
use crate::{db, inventory};
use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use shared::access::Privilege;
use shared::{Code, Status};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// The media type of the text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    method: String,
    /// As it is registered, with its parameters in braces.
    route: String,
    status: u16,
}

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type Answers = Family<Answer, Histogram>;

/// What is counted while the server runs.
pub struct Metrics {
    registry: Registry,
    answers: Answers,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond to half a minute.
        let answers = Answers::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16)));
        let mut registry = Registry::with_prefix("offshoot");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", version);
        let help = "How long answers took, without what they stream";
        registry.register_with_unit("http_answer", help, Unit::Seconds, answers.clone());
        Self { registry, answers }
    }
}

/// The layer that takes the time.
pub async fn layer(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().to_string();
    // Whatever was asked that no route has is one: nobody fills the memory by asking.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let answer = Answer {
        method,
        route,
        status,
    };
    let taken = metrics.answers.get_or_create(&answer);
    taken.observe(began.elapsed().as_secs_f64());
    response
}

/// GET /metrics
pub async fn show(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<impl IntoResponse> {
    caller.must(Privilege::MetricsRead, None)?;
    let mut text = String::new();
    let now = what_there_is(&server).await?;
    // Each ends with a mark of its end, and there may be one only.
    let written = encode(&mut text, &now).and_then(|()| {
        let end = text.trim_end_matches("# EOF\n").len();
        text.truncate(end);
        encode(&mut text, &server.metrics.registry)
    });
    written.map_err(|e| {
        ApiError(Status::new(
            Code::Internal,
            format!("cannot write the metrics: {e}"),
        ))
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}

async fn what_there_is(server: &Server) -> Result<Registry, Status> {
    let world = server.world();
    let mut registry = Registry::with_prefix("offshoot");
    let mut gauges = |name: &str, help: &str, unit: Option<Unit>, all: Vec<(Labels, u64)>| {
        let family = Gauges::default();
        for (labels, value) in all {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    let vms = db::vms::counts(&world.db, &shared::access::rights::Sees::All).await?;
    let states = vms
        .iter()
        .map(|(state, (n, _))| (vec![("state", state.clone())], *n));
    gauges(
        "vms",
        "Machines by state; TROUBLED: paused by a trouble",
        None,
        states.collect(),
    );
    let jobs = db::jobs::by_state(&world.db).await?;
    let jobs = jobs
        .into_iter()
        .map(|(kind, state, n)| (vec![("kind", kind), ("state", state)], n));
    gauges(
        "jobs",
        "Jobs that are kept, by kind and state",
        None,
        jobs.collect(),
    );
    let (mut total, mut free) = (Vec::new(), Vec::new());
    let reached = inventory::storages(world)
        .await?
        .into_iter()
        .filter(|s| s.away.is_none());
    for storage in reached {
        let labels = vec![("storage", storage.name.to_string())];
        total.push((labels.clone(), storage.total_bytes));
        free.push((labels, storage.free_bytes));
    }
    gauges(
        "storage_size",
        "Size of a storage's file system",
        Some(Unit::Bytes),
        total,
    );
    gauges("storage_free", "What is free there", Some(Unit::Bytes), free);
    let (mut cpus, mut memory, mut in_use) = (Vec::new(), Vec::new(), Vec::new());
    for host in inventory::hosts(world).await? {
        let labels = vec![("host", host.name.to_string())];
        cpus.push((labels.clone(), u64::from(host.cpus)));
        memory.push((labels.clone(), host.memory_mib << 20));
        in_use.push((labels, host.memory_in_use_mib << 20));
    }
    gauges("host_cpus", "Processors of a host", None, cpus);
    gauges("host_memory", "Memory of a host", Some(Unit::Bytes), memory);
    gauges(
        "host_memory_in_use",
        "Memory given to the machines that run",
        Some(Unit::Bytes),
        in_use,
    );
    let changes: Gauge<u64, AtomicU64> = Gauge::default();
    changes.set(world.db.place().generation);
    registry.register("generation", "Number of the last change of anything", changes);
    Ok(registry)
}
