//! What is there: reads for the API and the feed. Nothing here changes anything.

mod clone_jobs;
pub mod copies;
pub mod images;
pub mod migrations;
pub mod policies;

use crate::db::list::{Listing, Page};
use crate::db::{self, DbError, now};
use crate::disks::Space;
use crate::jobs::World;
use shared::access::rights::{Rights, Sees};
use shared::access::{Privilege, Token};
use shared::api::{Family, FamilyMember, ListQuery, Summary};
use shared::clone::CloneJobView;
use shared::feed::{Gone, Noun};
use shared::fork::ForkPoint;
use shared::job::{Job, JobKind, LogLine};
use shared::place::{Accelerator, Host, Image, Network, Storage};
use shared::snapshot::Snapshot;
use shared::vm::Vm;
use shared::{JobId, Status};

pub use clone_jobs::view as clone_job_view;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// The machine with this name or id; with what its active layers take on the host.
pub async fn vm(world: &World, reference: &str) -> Result<Vm, Status> {
    let mut vm = vm_row(world, reference).await?;
    for disk in &mut vm.disks {
        // A layer whose file is being made has no size yet.
        let info = world.disks.info(&world.layer_file(disk.layer)).await;
        disk.allocated_bytes = info.ok().map(|i| i.allocated_bytes);
    }
    Ok(vm)
}

/// The machine with this name or id, as the database knows it.
pub async fn vm_row(world: &World, reference: &str) -> Result<Vm, Status> {
    let vm = db::vms::find(&world.db, reference).await?;
    vm.ok_or_else(|| Status::not_found("VM", reference))
}

/// A page of machines. `sourceVm` may be a name.
pub async fn vms(world: &World, query: &ListQuery, sees: &Sees) -> Result<Page<Vm>, Status> {
    let query = resolve_vm(world, query, "sourceVm=").await?;
    let mut listing = Listing::parse(&query, db::vms::FIELDS, "name")?;
    listing.among(&["vms.id"], sees)?;
    Ok(db::vms::list(&world.db, &listing).await?)
}

/// A machine's snapshot with this name or id.
pub async fn snapshot(world: &World, vm: &Vm, reference: &str) -> Result<Snapshot, Status> {
    let snapshot = db::snapshots::find(&world.db, vm.id, reference).await?;
    snapshot.ok_or_else(|| Status::not_found("snapshot", format_args!("{reference} of {}", vm.name)))
}

/// A page of a machine's snapshots.
pub async fn snapshots(world: &World, vm: &Vm, query: &ListQuery) -> Result<Page<Snapshot>, Status> {
    let listing = Listing::parse(query, db::snapshots::FIELDS, "createTime")?;
    Ok(db::snapshots::list(&world.db, vm.id, listing).await?)
}

/// The job with this id.
pub async fn job(world: &World, reference: &str) -> Result<Job, Status> {
    let missing = || Status::not_found("job", reference);
    let id: JobId = reference.parse().map_err(|_| missing())?;
    Ok(db::jobs::by_id(&world.db, id).await?.ok_or_else(missing)?.job)
}

/// A page of jobs. `vm` may be a name.
pub async fn jobs(world: &World, query: &ListQuery, sees: &Sees) -> Result<Page<Job>, Status> {
    let query = resolve_vm(world, query, "vm=").await?;
    let mut listing = Listing::parse(&query, db::jobs::FIELDS, "createTime desc")?;
    listing.among(&["jobs.vm", "jobs.product"], sees)?;
    Ok(db::jobs::list(&world.db, &listing).await?)
}

/// A page of a job's log.
pub async fn job_log(world: &World, job: &Job, query: &ListQuery) -> Result<Page<LogLine>, Status> {
    if query.filter.is_some() || query.order_by.is_some() {
        return Err(Status::invalid("filter", "a log is neither filtered nor ordered"));
    }
    let after = match query.page_token.as_deref().filter(|t| !t.is_empty()) {
        Some(token) => token
            .parse()
            .map_err(|_| Status::invalid("pageToken", "it is not one of this log"))?,
        None => 0,
    };
    let size = query.page_size.unwrap_or(shared::api::MAX_PAGE_SIZE);
    shared::can::limit::within(
        "pageSize",
        u64::from(size),
        1,
        u64::from(shared::api::MAX_PAGE_SIZE),
        "lines",
    )?;
    let (items, last, total) = db::jobs::read_log(&world.db, job.id, after, size).await?;
    Ok(Page {
        items,
        next: last.map(|n| n.to_string()).unwrap_or_default(),
        total,
    })
}

/// The clone job with this id, or the newest with this clone job id.
pub async fn clone_job(world: &World, reference: &str) -> Result<(Job, CloneJobView), Status> {
    let found = match reference.parse::<JobId>() {
        Ok(id) => db::jobs::by_id(&world.db, id).await?.map(|s| s.job),
        Err(_) => db::jobs::by_clone_job_id(&world.db, reference, None).await?,
    };
    let job = found.filter(|j| j.kind == JobKind::CloneVm);
    let job = job.ok_or_else(|| Status::not_found("clone job", reference))?;
    let view = clone_jobs::view(world, &job).await?;
    Ok((job, view))
}

/// A page of a machine's clone jobs, newest first.
pub async fn clone_jobs(world: &World, vm: &Vm, query: &ListQuery) -> Result<Page<CloneJobView>, Status> {
    let mut listing = Listing::parse(query, db::jobs::FIELDS, "createTime desc")?;
    listing.only("jobs.vm", vm.id);
    listing.only("jobs.kind", JobKind::CloneVm);
    let page = db::jobs::list(&world.db, &listing).await?;
    let mut views = Vec::with_capacity(page.items.len());
    for job in &page.items {
        views.push(clone_jobs::view(world, job).await?);
    }
    Ok(page.with(views))
}

/// A page of the jobs that forked a machine, newest first.
pub async fn instant_clones(world: &World, vm: &Vm, query: &ListQuery) -> Result<Page<Job>, Status> {
    let mut listing = Listing::parse(query, db::jobs::FIELDS, "createTime desc")?;
    listing.only("jobs.vm", vm.id);
    listing.only("jobs.kind", JobKind::InstantCloneVm);
    Ok(db::jobs::list(&world.db, &listing).await?)
}

/// The fork point with this name or id.
pub async fn fork_point(world: &World, reference: &str) -> Result<ForkPoint, Status> {
    let point = db::fork_points::find(&world.db, reference).await?;
    Ok(point
        .ok_or_else(|| Status::not_found("fork point", reference))?
        .point)
}

/// A page of fork points. `vm` may be a name.
pub async fn fork_points(world: &World, query: &ListQuery, sees: &Sees) -> Result<Page<ForkPoint>, Status> {
    let query = resolve_vm(world, query, "vm=").await?;
    let mut listing = Listing::parse(&query, db::fork_points::FIELDS, "createTime desc")?;
    listing.among(&["fork_points.vm"], sees)?;
    Ok(db::fork_points::list(&world.db, &listing).await?)
}

/// A machine, those that were forked with it, and those that were forked from it; with what their memory costs now.
pub async fn family(world: &World, vm: &Vm, sees: &Sees) -> Result<Family, Status> {
    let mut ids = vec![vm.id];
    ids.extend(db::vms::family(&world.db, vm.id, vm.lineage.fork_point).await?);
    ids.retain(|id| sees.has(*id));
    let mut family = Family::default();
    for id in ids {
        let Some(member) = db::vms::by_id(&world.db, id).await? else {
            continue;
        };
        // One that does not run costs nothing.
        let memory = world.hypervisor.memory(id, member.memory_mib).await.ok();
        family.members.push(FamilyMember {
            vm: id,
            name: member.name,
            memory_mib: member.memory_mib,
            memory,
        });
    }
    if let Some(job) = vm.lineage.job.filter(|_| vm.lineage.fork_point.is_some())
        && let Some(stored) = db::jobs::by_id(&world.db, job).await?
    {
        family.frozen_bytes = stored.job.outcome.into_inner().fork.and_then(|f| f.frozen_bytes);
    }
    Ok(family)
}

/// The image with this name or id.
pub async fn image(world: &World, reference: &str) -> Result<Image, Status> {
    let image = db::images::find(&world.db, reference).await?;
    image.ok_or_else(|| Status::not_found("image", reference))
}

/// A page of images.
pub async fn images(world: &World, query: &ListQuery) -> Result<Page<Image>, Status> {
    let listing = Listing::parse(query, db::images::FIELDS, "name")?;
    Ok(db::images::list(&world.db, &listing).await?)
}

/// All hosts.
pub async fn hosts(world: &World) -> Result<Vec<Host>, Status> {
    let counts = db::vms::counts(&world.db, &Sees::All).await?;
    let using = ["RUNNING", "PAUSED", "STOPPING", "TROUBLED", "STARTING"];
    let in_use = using
        .iter()
        .filter_map(|s| counts.get(*s))
        .map(|(_, mib)| mib)
        .sum();
    let version = match world.hypervisor.version().await {
        Ok(version) => version,
        Err(e) => format!("unknown: {}", db::chain(&e)),
    };
    let rows = db::places::hosts(&world.db).await?;
    Ok(rows
        .into_iter()
        .map(|row| Host {
            id: row.id,
            name: row.name,
            state: row.state,
            accelerator: world.hypervisor.accelerator(),
            qemu_version: version.clone(),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_mib: memory_mib(),
            memory_in_use_mib: in_use,
            running_vms: counts.get("RUNNING").map_or(0, |(n, _)| *n as u32),
        })
        .collect())
}

/// The memory of this host, in MiB.
fn memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) >> 20
}

/// All storages.
pub async fn storages(world: &World) -> Result<Vec<Storage>, Status> {
    let mut storages = Vec::new();
    for row in db::places::storages(&world.db).await? {
        // One that is away takes nothing else with it.
        let (space, away) = match world.disks.space(std::path::Path::new(&row.path)).await {
            Ok(space) => (space, None),
            Err(e) => (Space::default(), Some(db::chain(&e))),
        };
        let layers = world
            .db
            .reading(async |conn| db::places::layers_in(conn, row.id).await)
            .await?;
        storages.push(Storage {
            id: row.id,
            name: row.name,
            path: row.path,
            away,
            total_bytes: space.total,
            free_bytes: space.free,
            default: row.default,
            layers,
        });
    }
    Ok(storages)
}

/// All networks.
pub async fn networks(world: &World) -> Result<Vec<Network>, Status> {
    let mut networks = Vec::new();
    for row in db::places::networks(&world.db).await? {
        let nics = world
            .db
            .reading(async |conn| db::places::nics_on(conn, row.id).await)
            .await?;
        networks.push(Network {
            nics,
            id: row.id,
            name: row.name,
            kind: row.kind,
            bridge: row.bridge,
        });
    }
    Ok(networks)
}

/// Counts for the overview and the rail.
pub async fn summary(world: &World, rights: &Rights) -> Result<Summary, Status> {
    let counts = db::vms::counts(&world.db, &rights.sees(Privilege::VmRead)).await?;
    let count = |state: &str| counts.get(state).map_or(0, |(n, _)| *n);
    let (active_jobs, failed_jobs_last_day) = {
        let (since, sees) = (now().plus_micros(-DAY_MICROS), rights.sees(Privilege::JobRead));
        db::jobs::counts(&world.db, since, &sees).await?
    };
    Ok(Summary {
        vms: counts.values().map(|(n, _)| n).sum(),
        running_vms: count("RUNNING"),
        troubled_vms: count("ERROR") + count("TROUBLED"),
        snapshots: db::snapshots::count(&world.db, &rights.sees(Privilege::SnapshotRead)).await?,
        active_jobs,
        failed_jobs_last_day,
        simulated: world.hypervisor.accelerator() == Accelerator::Sim,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// What the feed says of a thing that changed: the resource as JSON, or that it is gone.
pub async fn changed(world: &World, change: &db::Change) -> Result<String, DbError> {
    let gone = || {
        let (id, generation) = (change.id.clone(), change.generation);
        db::to_json(&Gone {
            deleted: true,
            id,
            generation,
        })
    };
    if change.deleted {
        return gone();
    }
    fn parsed<T: std::str::FromStr>(change: &db::Change) -> Option<T> {
        change.id.parse().ok()
    }
    let json = match change.noun {
        Noun::Vm => match parsed(change) {
            Some(id) => db::vms::by_id(&world.db, id).await?.map(|v| db::to_json(&v)),
            None => None,
        },
        Noun::Snapshot => match parsed(change) {
            Some(id) => db::snapshots::by_id(&world.db, id)
                .await?
                .map(|s| db::to_json(&s)),
            None => None,
        },
        Noun::Job => match parsed(change) {
            Some(id) => db::jobs::by_id(&world.db, id).await?.map(|s| db::to_json(&s.job)),
            None => None,
        },
        Noun::ForkPoint => match parsed(change) {
            Some(id) => db::fork_points::by_id(&world.db, id)
                .await?
                .map(|s| db::to_json(&s.point)),
            None => None,
        },
        Noun::Image => db::images::find(&world.db, &change.id)
            .await?
            .map(|i| db::to_json(&i)),
        Noun::Upload => match parsed(change) {
            Some(id) => images::upload(world, id).await?.map(|u| db::to_json(&u)),
            None => None,
        },
        Noun::Export => match parsed(change) {
            Some(id) => db::exports::by_id(&world.db, id).await?.map(|e| db::to_json(&e)),
            None => None,
        },
        Noun::Token => {
            let token: Option<Token> = db::access::token(&world.db, &change.id).await?;
            token.map(|t| db::to_json(&t))
        }
        Noun::User => {
            let found = world
                .db
                .reading(async |conn| db::users::find(conn, &change.id).await)
                .await?;
            found.map(|row| db::to_json(&row.user))
        }
        Noun::Role => {
            let found = world
                .db
                .reading(async |conn| db::roles::find(conn, &change.id).await)
                .await?;
            found.map(|role| db::to_json(&role))
        }
        Noun::NoticeChannel => {
            let found = world
                .db
                .reading(async |conn| db::notice_channels::find(conn, &change.id).await)
                .await?;
            found.map(|channel| db::to_json(&channel))
        }
        Noun::Target => {
            let found = world
                .db
                .reading(async |conn| db::targets::get(conn, &change.id).await)
                .await?;
            found.map(|stored| db::to_json(&stored.target))
        }
        Noun::Copy => match parsed(change) {
            Some(id) => db::copies::by_id(&world.db, id).await?.map(|c| db::to_json(&c)),
            None => None,
        },
        Noun::MigratingVm => {
            let found = world
                .db
                .reading(async |conn| db::migrations::known(conn, &change.id).await);
            match found.await {
                Ok(vm) => Some(db::to_json(&vm)),
                Err(DbError::Refused(_)) => None,
                Err(e) => return Err(e),
            }
        }
        // There are few, and they hardly change: who shows them asks again.
        Noun::Host | Noun::Storage | Noun::Network | Noun::Policy | Noun::Source => {
            let (id, generation) = (&change.id, change.generation);
            Some(db::to_json(
                &serde_json::json!({ "id": id, "generation": generation }),
            ))
        }
    };
    json.unwrap_or_else(gone)
}

/// Replaces a machine's name in a filter by its id.
async fn resolve_vm(world: &World, query: &ListQuery, term: &str) -> Result<ListQuery, Status> {
    let mut query = query.clone();
    if let Some(filter) = &query.filter {
        let mut words = Vec::new();
        for word in filter.split_whitespace() {
            words.push(match word.strip_prefix(term) {
                Some(reference) => {
                    // The history of a machine that is gone is found by its id.
                    let found = db::vms::find(&world.db, reference).await?;
                    format!(
                        "{term}{}",
                        found.map_or(reference.to_owned(), |v| v.id.to_string())
                    )
                }
                None => word.to_owned(),
            });
        }
        query.filter = Some(words.join(" "));
    }
    Ok(query)
}
