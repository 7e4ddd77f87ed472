//! Policies are made, changed and deleted: they only say what is to be done.

use crate::copies::schedule::{Schedule, Windows};
use crate::db::policies::Stored;
use crate::db::{self, now};
use crate::jobs::Jobs;
use shared::policy::{CreatePolicy, PatchPolicy, Policy, check};
use shared::{Code, PolicyId, Status, TargetId, VmId};
use uuid::Uuid;

impl Jobs {
    /// Makes a policy.
    pub async fn create_policy(&self, request: CreatePolicy) -> Result<PolicyId, Status> {
        let id = PolicyId(Uuid::now_v7());
        let stored = self.checked(id, request, None).await?;
        let db = &self.world().db;
        db.write(move |tx| Box::pin(async move { db::policies::insert(tx, &stored).await }))
            .await?;
        Ok(id)
    }

    /// Changes a policy; answers its id.
    pub async fn update_policy(&self, reference: &str, patch: PatchPolicy) -> Result<PolicyId, Status> {
        let db = &self.world().db;
        let was = db
            .reading(async |conn| db::policies::known(conn, reference).await)
            .await?;
        let request = patch.onto(CreatePolicy::from(&was.policy));
        let mut stored = self.checked(was.policy.id, request, Some(&was)).await?;
        let id = stored.policy.id;
        let written = db.write(move |tx| {
            Box::pin(async move {
                let now = db::policies::known(tx.conn(), &id.to_string()).await?;
                if now.policy.generation != was.policy.generation {
                    let message = format!("policy {} has just been changed: try again", was.policy.name);
                    return Err(Status::new(Code::Aborted, message).into());
                }
                // What would have been due by another schedule, or while it was off, was not.
                let same = now.policy.schedule == stored.policy.schedule && now.policy.enabled;
                if same {
                    stored.last_time = now.last_time;
                }
                db::policies::update(tx, &stored).await
            })
        });
        written.await?;
        // Its windows may be others now.
        self.world().copies.wake();
        Ok(id)
    }

    /// Deletes a policy. The copies that it made stay.
    pub async fn delete_policy(&self, reference: &str) -> Result<(), Status> {
        let reference = reference.to_owned();
        let gone = self.world().db.write(move |tx| {
            Box::pin(async move {
                let id = db::policies::known(tx.conn(), &reference).await?.policy.id;
                db::policies::delete(tx, id).await
            })
        });
        gone.await?;
        self.world().copies.wake();
        Ok(())
    }

    /// Whether there can be such a policy, with its machines and targets by id.
    async fn checked(
        &self,
        id: PolicyId,
        request: CreatePolicy,
        was: Option<&Stored>,
    ) -> Result<Stored, Status> {
        check::policy(&request)?;
        if let Some(schedule) = &request.schedule {
            Schedule::parse(schedule)?;
        }
        Windows::parse(&request.window)?;
        let (vms, targets) = self.named(&request, was).await?;
        let policy = Policy {
            id,
            name: request.name,
            schedule: request.schedule,
            vms,
            label: request.label,
            targets: request.targets,
            retention: request.retention,
            memory: request.memory,
            quiesce: request.quiesce,
            verify: request.verify,
            window: request.window,
            enabled: request.enabled,
            next_time: None,
            create_time: was.map_or_else(now, |was| was.policy.create_time),
            generation: 0,
        };
        Ok(Stored {
            policy,
            targets,
            last_time: self.world().clock.now(),
        })
    }

    /// The ids of what a request names.
    async fn named(
        &self,
        request: &CreatePolicy,
        was: Option<&Stored>,
    ) -> Result<(Vec<VmId>, Vec<TargetId>), Status> {
        let db = &self.world().db;
        let mut vms: Vec<VmId> = Vec::new();
        for reference in &request.vms {
            let found = db::vms::find(db, reference).await?.map(|vm| vm.id);
            // One that is gone may stay named: it is not what is changed.
            let gone = || {
                let id: VmId = reference.parse().ok()?;
                was.is_some_and(|was| was.policy.vms.contains(&id)).then_some(id)
            };
            let id = found.or_else(gone);
            let id = id.ok_or_else(|| Status::invalid("vms", format_args!("there is no VM {reference}")))?;
            if !vms.contains(&id) {
                vms.push(id);
            }
        }
        let mut targets = Vec::new();
        for name in &request.targets {
            let found = db.reading(async |conn| db::targets::get(conn, name.as_str()).await);
            let found = found
                .await?
                .ok_or_else(|| Status::invalid("targets", format_args!("there is no target {name}")))?;
            if !targets.contains(&found.target.id) {
                targets.push(found.target.id);
            }
        }
        Ok((vms, targets))
    }
}
