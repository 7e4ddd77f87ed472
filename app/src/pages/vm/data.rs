//! What the page of a machine shows, loaded and kept fresh.

use crate::backend::Way;
use crate::components::lineage::DRAWN;
use crate::components::load::{Bodies, Loading, body};
use crate::feed::{Change, Live, apply, newer, on_change};
use crate::words::w;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use shared::api::{
    Call, Family, ForkPointPage, GetFamily, GetImage, GetVm, JobPage, ListForkPoints, ListJobs, ListQuery,
    ListSnapshots, ListVms, MAX_PAGE_SIZE, RawCall, SnapshotPage, VmPage,
};
use shared::feed::Noun;
use shared::fork::ForkPoint;
use shared::job::Job;
use shared::snapshot::Snapshot;
use shared::vm::Vm;
use shared::{Code, Status, VmId};

/// How many of its jobs are shown.
const JOBS: u32 = 8;
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
    /// Whether it was deleted while we looked.
    pub gone: bool,
}

impl Data {
    /// A later answer: whole, but never with an older version of anything.
    pub fn merge(&mut self, new: Self) {
        let old = std::mem::replace(self, new);
        newer(&mut self.vm, &old.vm);
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
        let (snapshots, clones, jobs, made_by, points, family, origins) = futures_util::join!(
            way.send(snapshots.raw()),
            way.send(clones.raw()),
            way.send(jobs(format!("vm={id}")).raw()),
            way.send(jobs(format!("product={id}")).raw()),
            way.send(points),
            way.send(family),
            origins(&way, &vm),
        );
        // Strings and flags always serialise.
        let origins = serde_json::to_string(&origins?).unwrap_or_default();
        Ok(vec![
            answer, snapshots?, clones?, jobs?, made_by?, origins, points?, family?,
        ])
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
