//! Targets, copies and copy tasks.

use crate::db::list::{Listing, Page};
use crate::db::{self};
use crate::jobs::World;
use shared::access::rights::Sees;
use shared::api::ListQuery;
use shared::copy::{Copy, CopyTask};
use shared::job::JobKind;
use shared::target::Target;
use shared::vm::Vm;
use shared::{CopyId, JobId, Status};

/// A page of targets.
pub async fn targets(world: &World, query: &ListQuery) -> Result<Page<Target>, Status> {
    let listing = Listing::parse(query, db::targets::FIELDS, "name")?;
    Ok(db::targets::list(&world.db, &listing).await?)
}

/// The target with this name or id.
pub async fn target(world: &World, reference: &str) -> Result<Target, Status> {
    Ok(db::targets::known(&world.db, reference).await?.target)
}

/// A page of copies, of the machines that somebody sees.
pub async fn copies(world: &World, query: &ListQuery, sees: &Sees) -> Result<Page<Copy>, Status> {
    let mut query = super::resolve_vm(world, query, "vm=").await?;
    if let Some(filter) = &mut query.filter {
        let mut words = Vec::new();
        for word in filter.split_whitespace() {
            let found = match word.strip_prefix("target=") {
                Some(reference) => {
                    let found = world
                        .db
                        .reading(async |conn| db::targets::get(conn, reference).await);
                    found.await?.map(|stored| format!("target={}", stored.target.id))
                }
                None => None,
            };
            words.push(found.unwrap_or_else(|| word.to_owned()));
        }
        *filter = words.join(" ");
    }
    let listing = Listing::parse(&query, db::copies::FIELDS, "snapshotTime desc")?;
    Ok(db::copies::list(&world.db, listing, sees).await?)
}

/// The copy with this id.
pub async fn copy(world: &World, reference: &str) -> Result<Copy, Status> {
    let found = match reference.parse::<CopyId>() {
        Ok(id) => db::copies::by_id(&world.db, id).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| Status::not_found("copy", reference))
}

/// A page of copy tasks, of one machine or of those that somebody sees.
pub async fn tasks(
    world: &World,
    vm: Option<&Vm>,
    query: &ListQuery,
    sees: &Sees,
) -> Result<Page<CopyTask>, Status> {
    let query = super::resolve_vm(world, query, "vm=").await?;
    let mut listing = Listing::parse(&query, db::jobs::FIELDS, "createTime desc")?;
    listing.only("jobs.kind", JobKind::CopySnapshot);
    match vm {
        Some(vm) => listing.only("jobs.vm", vm.id),
        None => listing.among(&["jobs.vm"], sees)?,
    }
    let page = db::jobs::list(&world.db, &listing).await?;
    let mut tasks = Vec::with_capacity(page.items.len());
    for task in page.items.iter().filter_map(CopyTask::of) {
        tasks.push(signed(world, task).await?);
    }
    Ok(page.with(tasks))
}

/// The copy task with this id.
pub async fn task(world: &World, reference: &str) -> Result<CopyTask, Status> {
    let found = match reference.parse::<JobId>() {
        Ok(id) => db::jobs::by_id(&world.db, id).await?,
        Err(_) => None,
    };
    let task = found.as_ref().and_then(|stored| CopyTask::of(&stored.job));
    let task = task.ok_or_else(|| Status::not_found("copy task", reference))?;
    signed(world, task).await
}

/// A task with the sign that its copy boots.
async fn signed(world: &World, task: CopyTask) -> Result<CopyTask, Status> {
    let copy = match task.copy.filter(|_| task.status.is_over()) {
        Some(id) => db::copies::by_id(&world.db, id).await?,
        None => None,
    };
    Ok(CopyTask {
        verified: copy.and_then(|copy| copy.booted),
        ..task
    })
}
