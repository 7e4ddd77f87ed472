//! Policies, what their retention would keep, and the runs that they have begun.

use crate::copies::retention::verdicts;
use crate::copies::schedule::{Schedule, zone};
use crate::db::copy_runs::Run;
use crate::db::list::{Listing, Page};
use crate::db::policies::Stored;
use crate::db::{self, DbError};
use crate::jobs::World;
use shared::access::rights::Sees;
use shared::api::ListQuery;
use shared::copy::{CopyRun, CopyTask, TaskStatus};
use shared::policy::retain::{PreviewGroup, PreviewRetention, RetentionPreview};
use shared::policy::{Policy, check};
use shared::{RunId, Status, TargetId, VmId};

/// A policy, with when it is due next.
fn shown(world: &World, stored: Stored) -> Policy {
    let Stored {
        mut policy,
        last_time,
        ..
    } = stored;
    if let Some(schedule) = policy.schedule.as_ref().filter(|_| policy.enabled) {
        let after = world.clock.now().max(last_time);
        let parsed = Schedule::parse(schedule).ok();
        policy.next_time = parsed.and_then(|schedule| schedule.next_after(after));
    }
    policy
}

/// A page of policies.
pub async fn policies(world: &World, query: &ListQuery) -> Result<Page<Policy>, Status> {
    let listing = Listing::parse(query, db::policies::FIELDS, "name")?;
    let mut page = db::policies::list(&world.db, &listing).await?;
    let items = std::mem::take(&mut page.items);
    let items = items.into_iter().map(|stored| shown(world, stored)).collect();
    Ok(page.with(items))
}

async fn stored(world: &World, reference: &str) -> Result<Stored, DbError> {
    world
        .db
        .reading(async |conn| db::policies::known(conn, reference).await)
        .await
}

/// The policy with this name or id.
pub async fn policy(world: &World, reference: &str) -> Result<Policy, Status> {
    Ok(shown(world, stored(world, reference).await?))
}

/// What rules would keep of the copies that a policy has made, of the machines and at the targets that are asked for.
pub async fn preview(
    world: &World,
    reference: &str,
    asked: &PreviewRetention,
) -> Result<RetentionPreview, Status> {
    check::retention(&asked.retention)?;
    let zone = zone("timeZone", &asked.time_zone)?;
    let policy = stored(world, reference).await?.policy;
    let vms = match (&asked.vms[..], &asked.label) {
        ([], None) => None,
        (vms, label) => {
            check::machines(vms, label.as_deref())?;
            Some(machines(world, vms, label.as_deref()).await?)
        }
    };
    let mut targets = Vec::new();
    for name in &asked.targets {
        let found = world
            .db
            .reading(async |conn| db::targets::get(conn, name.as_str()).await);
        let found = found
            .await?
            .ok_or_else(|| Status::invalid("targets", format_args!("there is no target {name}")))?;
        targets.push(found.target.id);
    }
    let now = world.clock.now();
    let mut preview = RetentionPreview {
        keep: 0,
        drop: 0,
        groups: Vec::new(),
    };
    for (vm, target) in db::retention::groups(&world.db, policy.id).await? {
        let wanted = vms.as_ref().is_none_or(|vms| vms.contains(&vm))
            && (targets.is_empty() || targets.contains(&target));
        if !wanted {
            continue;
        }
        let copies = verdicts(&world.db, policy.id, (vm, target), &asked.retention, (&zone, now)).await?;
        let kept = copies.iter().filter(|copy| copy.keep).count() as u64;
        preview.keep += kept;
        preview.drop += copies.len() as u64 - kept;
        preview.groups.push(PreviewGroup {
            vm,
            target: name_of(world, target).await?,
            copies,
        });
    }
    Ok(preview)
}

async fn name_of(world: &World, target: TargetId) -> Result<shared::Name, Status> {
    let found = db::targets::known(&world.db, &target.to_string()).await?;
    Ok(found.target.name)
}

/// The machines that are named or have a label; one that is gone is known by the copies that name it.
async fn machines(world: &World, vms: &[String], label: Option<&str>) -> Result<Vec<VmId>, Status> {
    let mut found = Vec::new();
    for reference in vms {
        let id = db::vms::find(&world.db, reference).await?.map(|vm| vm.id);
        let id = id.or_else(|| reference.parse().ok());
        found.push(id.ok_or_else(|| Status::invalid("vms", format_args!("there is no VM {reference}")))?);
    }
    if let Some((key, value)) = label.and_then(|label| label.split_once('=')) {
        for id in db::vms::ids(&world.db).await? {
            let vm = db::vms::by_id(&world.db, id).await?;
            let has = vm.is_some_and(|vm| vm.labels.get(key).is_some_and(|v| v == value));
            found.extend(has.then_some(id));
        }
    }
    Ok(found)
}

/// A page of copy runs, each with the tasks of machines that somebody sees. The policy may be named.
pub async fn runs(world: &World, query: &ListQuery, sees: &Sees) -> Result<Page<CopyRun>, Status> {
    let mut query = query.clone();
    if let Some(filter) = &mut query.filter {
        let mut words = Vec::new();
        for word in filter.split_whitespace() {
            let named = match word.strip_prefix("policy=") {
                Some(reference) => {
                    let found = world
                        .db
                        .reading(async |conn| db::policies::get(conn, reference).await);
                    found.await?.map(|stored| format!("policy={}", stored.policy.id))
                }
                None => None,
            };
            words.push(named.unwrap_or_else(|| word.to_owned()));
        }
        *filter = words.join(" ");
    }
    let listing = Listing::parse(&query, db::copy_runs::FIELDS, "time desc")?;
    let mut page = db::copy_runs::list(&world.db, &listing).await?;
    let mut items = Vec::new();
    for run in std::mem::take(&mut page.items) {
        items.push(with_tasks(world, run, sees).await?);
    }
    Ok(page.with(items))
}

/// The copy run with this id, with the tasks of machines that somebody sees.
pub async fn run(world: &World, reference: &str, sees: &Sees) -> Result<CopyRun, Status> {
    let found = match reference.parse::<RunId>() {
        Ok(id) => db::copy_runs::by_id(&world.db, id).await?,
        Err(_) => None,
    };
    let run = found.ok_or_else(|| Status::not_found("copy run", reference))?;
    with_tasks(world, run, sees).await
}

async fn with_tasks(world: &World, run: Run, sees: &Sees) -> Result<CopyRun, Status> {
    let jobs = db::jobs::of_run(&world.db, run.id).await?;
    let tasks = jobs.iter().filter_map(CopyTask::of);
    let tasks: Vec<_> = tasks.filter(|task| sees.has(task.vm)).collect();
    let empty = match run.filled {
        true => TaskStatus::Success,
        false => TaskStatus::Accepted,
    };
    // More tasks are to come: however those are that are there, it is not over.
    let status = match CopyRun::status_of(&tasks, empty) {
        status if status.is_over() && !run.filled => TaskStatus::Running,
        status => status,
    };
    Ok(CopyRun {
        id: run.id,
        policy: run.policy,
        policy_name: run.policy_name,
        time: run.time,
        status,
        stats: tasks.iter().map(|task| &task.stats).sum(),
        tasks,
        created_by: run.created_by,
        create_time: run.create_time,
    })
}
