//! Sources, what they have, and the machines that are carried over, with their cycles, test clones and cutovers.

use crate::db::list::{Listing, Page};
use crate::db::{self};
use crate::jobs::World;
use crate::sources::Sources;
use shared::api::ListQuery;
use shared::job::{Job, JobKind, StepState, step};
use shared::migrate::groups::{Group, Groups};
use shared::migrate::views::{CutoverJob, Forecast, MigrationClone, ReplicationCycle};
use shared::migrate::{Inventory, MigratingVm, Source};
use shared::{Name, Status, Timestamp};
use std::collections::BTreeMap;

/// A page of sources.
pub async fn sources(world: &World, query: &ListQuery) -> Result<Page<Source>, Status> {
    let listing = Listing::parse(query, db::migrations::SOURCE_FIELDS, "name")?;
    Ok(db::migrations::sources(&world.db, &listing).await?)
}

/// The source with this name or id.
pub async fn source(world: &World, reference: &str) -> Result<Source, Status> {
    let found = world
        .db
        .reading(async |conn| db::migrations::source(conn, reference).await);
    Ok(found.await?)
}

/// What a source has.
pub async fn inventory(world: &World, reference: &str) -> Result<Inventory, Status> {
    let source = source(world, reference).await?;
    let carried = db::migrations::open(&world.db).await?;
    let mut vms = Sources::of(world).list(&source).await?;
    for vm in &mut vms {
        let by = carried
            .iter()
            .find(|c| c.source == source.id && c.source_vm == vm.id);
        vm.migrating_vm = by.map(|c| c.id);
    }
    Ok(Inventory { vms })
}

/// A page of machines that are carried over. Source and target may be named.
pub async fn migrating_vms(world: &World, query: &ListQuery) -> Result<Page<MigratingVm>, Status> {
    let mut query = query.clone();
    if let Some(filter) = &mut query.filter {
        let mut words = Vec::new();
        for word in filter.split_whitespace() {
            words.push(match word.split_once('=') {
                Some(("source", name)) => format!("source={}", source(world, name).await?.id),
                Some(("target", name)) => {
                    format!("target={}", db::targets::known(&world.db, name).await?.target.id)
                }
                _ => word.to_owned(),
            });
        }
        *filter = words.join(" ");
    }
    let listing = Listing::parse(&query, db::migrations::FIELDS, "name")?;
    Ok(db::migrations::list(&world.db, &listing).await?)
}

/// The machine that is carried over with this name or id.
pub async fn migrating_vm(world: &World, reference: &str) -> Result<MigratingVm, Status> {
    let found = world
        .db
        .reading(async |conn| db::migrations::known(conn, reference).await);
    Ok(found.await?)
}

/// All groups, by name.
pub async fn groups(world: &World) -> Result<Groups, Status> {
    let all = world
        .db
        .reading(async |conn| db::migrations::in_group(conn, None).await)
        .await?;
    let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for vm in all {
        if let Some(group) = vm.group.clone() {
            by_name.entry(group).or_default().push(vm);
        }
    }
    let mut groups = Vec::new();
    for (name, vms) in by_name {
        groups.push(of_group(world, name, &vms).await?);
    }
    Ok(Groups { groups })
}

/// The group with this name.
pub async fn group(world: &World, name: &str) -> Result<Group, Status> {
    let vms = world
        .db
        .reading(async |conn| db::migrations::in_group(conn, Some(name)).await)
        .await?;
    match vms.first().and_then(|vm| vm.group.clone()) {
        Some(name) => of_group(world, name, &vms).await,
        None => Err(Status::not_found("group", name)),
    }
}

async fn of_group(world: &World, name: Name, vms: &[MigratingVm]) -> Result<Group, Status> {
    let job = world
        .db
        .reading(async |conn| db::migrations::group_cutover(conn, &name).await)
        .await?;
    Ok(Group::of(name, vms, job))
}

/// A page of the jobs of a migration that are of this kind.
async fn jobs(
    world: &World,
    vm: &MigratingVm,
    kind: JobKind,
    query: &ListQuery,
) -> Result<Page<Job>, Status> {
    let mut listing = Listing::parse(query, db::jobs::FIELDS, "createTime desc")?;
    listing.only("jobs.migration", vm.id);
    listing.only("jobs.kind", kind);
    Ok(db::jobs::list(&world.db, &listing).await?)
}

/// A page of its cycles, newest first.
pub async fn cycles(
    world: &World,
    reference: &str,
    query: &ListQuery,
) -> Result<Page<ReplicationCycle>, Status> {
    let vm = migrating_vm(world, reference).await?;
    let page = jobs(world, &vm, JobKind::CopySnapshot, query).await?;
    let items = page.items.iter().filter_map(ReplicationCycle::of).collect();
    Ok(page.with(items))
}

/// A page of its test clones, newest first.
pub async fn clones(
    world: &World,
    reference: &str,
    query: &ListQuery,
) -> Result<Page<MigrationClone>, Status> {
    let vm = migrating_vm(world, reference).await?;
    let page = jobs(world, &vm, JobKind::RestoreCopy, query).await?;
    let mut items = Vec::new();
    for job in &page.items {
        let judged = db::migrations::judged(&world.db, job.id).await?;
        items.extend(MigrationClone::of(job, judged));
    }
    Ok(page.with(items))
}

/// A page of its cutovers, newest first.
pub async fn cutovers(world: &World, reference: &str, query: &ListQuery) -> Result<Page<CutoverJob>, Status> {
    let vm = migrating_vm(world, reference).await?;
    let page = jobs(world, &vm, JobKind::CutOver, query).await?;
    let items = page.items.iter().filter_map(CutoverJob::of).collect();
    Ok(page.with(items))
}

/// How long it took from the beginning of a step of a job to the end of another, in milliseconds.
fn took(job: &Job, from: &str, to: &str) -> Option<u64> {
    let step = |name: &str| {
        job.steps
            .iter()
            .find(|s| s.name == name && s.state == StepState::Done)
    };
    let (from, to): (Timestamp, Timestamp) = (step(from)?.start_time?, step(to)?.end_time?);
    u64::try_from(to.since(from) / 1000).ok()
}

/// How long a cutover would take, by what was measured in this migration.
pub async fn forecast(world: &World, reference: &str) -> Result<Forecast, Status> {
    let vm = migrating_vm(world, reference).await?;
    let last = async |kind| db::migrations::last_good(&world.db, vm.id, kind).await;
    let (cycle, clone, cutover, adaptation) = (
        last(JobKind::CopySnapshot).await?,
        last(JobKind::RestoreCopy).await?,
        last(JobKind::CutOver).await?,
        last(JobKind::AdaptCopy).await?,
    );
    // Where that cannot be asked it may run.
    let off = match Sources::of(world).of_migration(&vm).await {
        Ok(source) => !source.runs(),
        Err(_) => false,
    };
    let before = cutover.and_then(|job| took(&job, step::SHUTTING_DOWN_SOURCE, step::SHUTTING_DOWN_SOURCE));
    Ok(Forecast {
        shutting_down_millis: if off { Some(0) } else { before },
        final_sync_millis: cycle.and_then(|job| took(&job, step::MINTING, step::FINALIZING)),
        adapting_millis: match vm.adapts {
            true => adaptation.and_then(|job| took(&job, step::MINTING, step::LETTING_GO)),
            false => Some(0),
        },
        instantiating_millis: clone.and_then(|job| took(&job, step::MINTING, step::INSTANTIATING)),
    })
}
