//! What the page of a machine shows, loaded and kept fresh.

use crate::backend::Way;
use crate::components::lineage::DRAWN;
use crate::components::load::{Bodies, Loading, body};
use crate::feed::{Change, Live, apply, newer, on_change};
use crate::words::w;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use shared::api::{
    Call, CopyPage, CopyTaskPage, Family, ForkPointPage, GetFamily, GetImage, GetVm, JobPage, ListCopies,
    ListCopyTasks, ListForkPoints, ListJobs, ListQuery, ListSnapshots, ListTargets, ListVms, MAX_PAGE_SIZE,
    RawCall, SnapshotPage, TargetPage, VmPage,
};
use shared::copy::{Copy, CopyTask};
use shared::feed::Noun;
use shared::fork::ForkPoint;
use shared::job::{Job, JobKind};
use shared::snapshot::Snapshot;
use shared::vm::Vm;
use shared::{Code, Status, VmId};

/// How many of its jobs are shown.
const JOBS: u32 = 8;
/// How many of its copies are shown, and how many of the tasks that make them.
const COPIES: u32 = 100;
const TASKS: u32 = 20;
/// How far back its ancestors are drawn.
const GENERATIONS: usize = 2;

/// Something that a machine comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub name: String,
    pub what: String,
    /// None when it is gone, or has no page.
    pub href: Option<String>,
}

/// A machine with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    pub vm: Vm,
    pub snapshots: Vec<Snapshot>,
    /// The newest of its clones.
    pub clones: Vec<Vm>,
    pub clone_count: u64,
    pub jobs: Vec<Job>,
    /// The oldest first.
    pub origins: Vec<Origin>,
    /// The instants of it that are kept.
    pub points: Vec<ForkPoint>,
    /// What its memory, and that of those it was forked with, costs.
    pub family: Family,
    /// Its copies; none where the person may not see them.
    pub copies: Option<Copies>,
    /// Whether it was deleted while we looked.
    pub gone: bool,
}

/// The copies of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    /// The newest.
    pub all: Vec<Copy>,
    pub count: u64,
    /// The newest tasks that make them.
    pub tasks: Vec<CopyTask>,
    /// Targets by name, and why one cannot be reached; none where the person may not see them.
    pub targets: Option<Vec<(String, Option<String>)>>,
}

impl Copies {
    /// Takes a newer version of a task, or a new one.
    fn take(&mut self, new: CopyTask) {
        match self.tasks.iter_mut().find(|t| t.id == new.id) {
            Some(old) if old.generation <= new.generation => *old = new,
            Some(_) => {}
            None => self.tasks.insert(0, new),
        }
        self.tasks.truncate(TASKS as usize);
    }

    /// Takes a later answer, but never an older version of a task.
    pub fn merge(&mut self, new: Self) {
        let old = std::mem::replace(self, new);
        // One that the answer does not have yet is kept while it is at work.
        let known = |task: &CopyTask| self.tasks.iter().any(|t| t.id == task.id);
        let kept: Vec<_> = old
            .tasks
            .into_iter()
            .rev()
            .filter(|t| known(t) || !t.status.is_over())
            .collect();
        for task in kept {
            self.take(task);
        }
    }
}

impl Data {
    /// A later answer: whole, but never with an older version of anything.
    pub fn merge(&mut self, new: Self) {
        let old = std::mem::replace(self, new);
        newer(&mut self.vm, &old.vm);
        if let (Some(here), Some(before)) = (&mut self.copies, old.copies) {
            let new = std::mem::replace(here, before);
            here.merge(new);
        }
        for snapshot in &old.snapshots {
            for here in &mut self.snapshots {
                newer(here, snapshot);
            }
        }
    }

    fn take(&mut self, change: &Change) {
        let id = self.vm.id;
        if let Change::Gone(Noun::Vm, gone) = change {
            self.gone |= gone.id == self.vm.id();
        }
        if let Some(vm) = Vm::of(change) {
            // What a list or an event leaves out is kept from before.
            let own = self.vm.disks.clone();
            newer(&mut self.vm, vm);
            for (disk, before) in self.vm.disks.iter_mut().zip(own) {
                if disk.layer == before.layer && disk.allocated_bytes.is_none() {
                    disk.allocated_bytes = before.allocated_bytes;
                }
            }
        }
        let clones = self.clones.len() as u64;
        apply(&mut self.clones, change, true, |v| {
            v.lineage.source_vm == Some(id)
        });
        self.clone_count = self.clone_count.saturating_add(self.clones.len() as u64) - clones;
        apply(&mut self.snapshots, change, false, |s| s.vm == id);
        apply(&mut self.jobs, change, true, |j| {
            j.resources.iter().any(|r| r.id == id.to_string())
        });
        self.jobs.truncate(JOBS as usize);
        if let (Change::Job(job), Some(copies)) = (change, &mut self.copies)
            && job.kind == JobKind::CopySnapshot
            && let Some(task) = CopyTask::of(job).filter(|task| task.vm == id)
        {
            copies.take(task);
        }
    }
}

/// Keeps it fresh.
pub fn follow(data: RwSignal<Data>) {
    on_change(move |change| {
        let mut after = data.get_untracked();
        after.take(change);
        if data.with_untracked(|before| *before != after) {
            data.set(after);
        }
    });
}

/// What of it is looked at again and again: the feed tells of neither.
pub fn forks(id: VmId) -> [RawCall; 2] {
    let query = ListQuery {
        filter: Some(format!("vm={id}")),
        ..ListQuery::default()
    };
    let vm = id.to_string();
    [ListForkPoints { query }.raw(), GetFamily { vm }.raw()]
}

/// Its copies, the tasks that make them, and where they may go.
pub fn copies(id: VmId) -> [RawCall; 3] {
    let list = |size, filter: Option<String>| ListQuery {
        page_size: Some(size),
        filter,
        ..ListQuery::default()
    };
    [
        ListCopies {
            query: list(COPIES, Some(format!("vm={id}"))),
        }
        .raw(),
        ListCopyTasks {
            vm: id.to_string(),
            query: list(TASKS, None),
        }
        .raw(),
        ListTargets {
            query: list(MAX_PAGE_SIZE, None),
        }
        .raw(),
    ]
}

/// What a person may not see is left out.
fn seen(answer: crate::backend::Outcome) -> crate::backend::Outcome {
    match answer {
        Err(e) if e.code == Code::PermissionDenied => Ok(String::new()),
        answer => answer,
    }
}

/// Makes calls of which some may be refused.
pub async fn each_seen(calls: Vec<crate::backend::Pending>) -> Result<Bodies, Status> {
    let answers = futures_util::future::join_all(calls).await;
    answers.into_iter().map(seen).collect()
}

/// Reads the copies, of three answers from the `n`th on.
pub fn read_copies(bodies: &Bodies, n: usize) -> Result<Option<Copies>, Status> {
    let there = |n: usize| bodies.get(n).is_some_and(|body| !body.is_empty());
    if !there(n) {
        return Ok(None);
    }
    let page: CopyPage = body(bodies, n)?;
    let targets = if there(n + 2) {
        let page: TargetPage = body(bodies, n + 2)?;
        Some(
            page.targets
                .into_iter()
                .map(|t| (t.name.to_string(), t.away))
                .collect(),
        )
    } else {
        None
    };
    Ok(Some(Copies {
        count: page.total_size.max(page.copies.len() as u64),
        all: page.copies,
        tasks: if there(n + 1) {
            body::<CopyTaskPage>(bodies, n + 1)?.copy_tasks
        } else {
            Vec::new()
        },
        targets,
    }))
}

/// Loads it: the machine first, for the rest is asked for by its id.
pub fn fetch(name: String) -> Loading {
    // The way to the API is the context's that is here now, not after the first await.
    let way = Way::here();
    Box::pin(async move {
        let answer = way.send(GetVm { vm: name }.raw()).await?;
        let vm: Vm = crate::backend::read(&answer)?;
        let list = |page_size, filter: String| ListQuery {
            page_size: Some(page_size),
            filter: Some(filter).filter(|f| !f.is_empty()),
            order_by: None,
            page_token: None,
        };
        let id = vm.id.to_string();
        let snapshots = ListSnapshots {
            vm: id.clone(),
            query: list(MAX_PAGE_SIZE, String::new()),
        };
        let clones = ListVms {
            query: ListQuery {
                order_by: Some("createTime desc".to_owned()),
                ..list(DRAWN as u32, format!("sourceVm={id}"))
            },
        };
        let jobs = |filter| ListJobs {
            query: list(JOBS, filter),
        };
        let [points, family] = forks(vm.id);
        let copies = copies(vm.id).into_iter().map(|call| way.send(call)).collect();
        let (snapshots, clones, jobs, made_by, points, family, origins, copies) = futures_util::join!(
            way.send(snapshots.raw()),
            way.send(clones.raw()),
            way.send(jobs(format!("vm={id}")).raw()),
            way.send(jobs(format!("product={id}")).raw()),
            way.send(points),
            way.send(family),
            origins(&way, &vm),
            each_seen(copies),
        );
        // Strings and flags always serialise.
        let origins = serde_json::to_string(&origins?).unwrap_or_default();
        let own = [
            answer, snapshots?, clones?, jobs?, made_by?, origins, points?, family?,
        ];
        Ok(own.into_iter().chain(copies?).collect())
    })
}

/// Reads what was loaded.
pub fn read(bodies: &Bodies) -> Result<Data, Status> {
    let clones: VmPage = body(bodies, 2)?;
    let mut jobs = body::<JobPage>(bodies, 3)?.jobs;
    jobs.extend(body::<JobPage>(bodies, 4)?.jobs);
    jobs.sort_by_key(|j| std::cmp::Reverse((j.create_time, j.id)));
    jobs.dedup_by_key(|j| j.id);
    jobs.truncate(JOBS as usize);
    Ok(Data {
        vm: body(bodies, 0)?,
        snapshots: body::<SnapshotPage>(bodies, 1)?.snapshots,
        clone_count: clones.total_size.max(clones.vms.len() as u64),
        clones: clones.vms,
        jobs,
        origins: body(bodies, 5)?,
        points: body::<ForkPointPage>(bodies, 6)?.fork_points,
        family: body(bodies, 7)?,
        copies: read_copies(bodies, 8)?,
        gone: false,
    })
}

/// Follows a machine back to where it comes from.
async fn origins(way: &Way, vm: &Vm) -> Result<Vec<Origin>, Status> {
    let mut found = Vec::new();
    let mut lineage = vm.lineage.clone();
    while found.len() < GENERATIONS {
        if let Some(id) = lineage.source_vm {
            let Some(parent) = there(way.call(&GetVm { vm: id.to_string() }).await)? else {
                found.push(Origin {
                    name: w().deleted_machine.to_owned(),
                    what: w().machine.to_lowercase(),
                    href: None,
                });
                break;
            };
            found.push(Origin {
                name: parent.name.to_string(),
                what: w().machine.to_lowercase(),
                href: Some(format!("/vms/{}", parent.name)),
            });
            lineage = parent.lineage;
        } else if let Some(id) = lineage.source_image {
            let image = there(
                way.call(&GetImage {
                    image: id.to_string(),
                })
                .await,
            )?;
            found.push(Origin {
                name: image.map_or_else(|| w().deleted_image.to_owned(), |i| i.name.to_string()),
                what: w().image.to_lowercase(),
                href: None,
            });
            break;
        } else {
            break;
        }
    }
    found.reverse();
    Ok(found)
}

/// None for what is gone.
fn there<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(thing) => Ok(Some(thing)),
        Err(e) if e.code == Code::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
