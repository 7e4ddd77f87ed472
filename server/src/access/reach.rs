//! Which machines a thing is about: rights on a machine hold for its snapshots, jobs and fork points.

use super::{Access, Caller, Result};
use crate::db;
use shared::access::Privilege;
use shared::access::rights::Reach;
use shared::{JobId, Status, VmId};

/// A thing that belongs to machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A machine itself.
    Vm,
    /// A job: of the machine that it works on, and of the one that it makes.
    Job,
    /// A clone job, also by its own name.
    CloneJob,
    /// A fork point.
    ForkPoint,
    /// A copy.
    Copy,
    /// A copy task, which is a job.
    CopyTask,
}

impl Thing {
    fn noun(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Job => "job",
            Self::CloneJob => "clone job",
            Self::ForkPoint => "fork point",
            Self::Copy => "copy",
            Self::CopyTask => "copy task",
        }
    }
}

impl Access {
    /// The machines that a thing is about; none if there is no such thing.
    async fn machines(&self, thing: Thing, reference: &str) -> Result<Vec<VmId>> {
        Ok(match thing {
            Thing::Vm => db::vms::find(&self.db, reference)
                .await?
                .map(|vm| vm.id)
                .into_iter()
                .collect(),
            Thing::ForkPoint => {
                let found = db::fork_points::find(&self.db, reference).await?;
                found.map(|stored| stored.point.vm).into_iter().collect()
            }
            Thing::Copy => match reference.parse() {
                Ok(id) => {
                    let found = db::copies::by_id(&self.db, id).await?;
                    found.map(|copy| copy.vm).into_iter().collect()
                }
                Err(_) => Vec::new(),
            },
            Thing::Job | Thing::CopyTask => match reference.parse::<JobId>() {
                Ok(id) => db::jobs::machines(&self.db, id).await?,
                Err(_) => Vec::new(),
            },
            Thing::CloneJob => match reference.parse::<JobId>() {
                Ok(id) => db::jobs::machines(&self.db, id).await?,
                Err(_) => match db::jobs::by_clone_job_id(&self.db, reference, None).await? {
                    Some(job) => db::jobs::machines(&self.db, job.id).await?,
                    None => Vec::new(),
                },
            },
        })
    }

    /// Refuses a caller who may not do this with a thing. What the caller may not even see is not there.
    pub async fn admit(
        &self,
        caller: &Caller,
        privilege: Privilege,
        of: Option<(Thing, &str)>,
    ) -> std::result::Result<(), Status> {
        let (Some((thing, reference)), Reach::Machine) = (of, privilege.reach()) else {
            return caller.must(privilege, None);
        };
        if caller.may(privilege) {
            return Ok(());
        }
        let rights = &caller.rights;
        let sees_none = !rights.somewhere(privilege) && !rights.somewhere(Privilege::VmRead);
        if sees_none || caller.may(Privilege::VmRead) && !rights.somewhere(privilege) {
            return caller.must(privilege, None);
        }
        let machines = self.machines(thing, reference).await?;
        let has = |privilege| machines.iter().any(|vm| caller.rights.has(privilege, Some(*vm)));
        if has(privilege) {
            Ok(())
        } else if has(Privilege::VmRead) || caller.may(Privilege::VmRead) {
            caller.must(privilege, None)
        } else {
            Err(Status::not_found(thing.noun(), reference))
        }
    }
}
