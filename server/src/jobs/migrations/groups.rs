//! What people ask of groups.

use crate::db;
use crate::jobs::{By, Jobs};
use shared::job::{Job, JobSpec};
use shared::migrate::groups::{CutOverGroup, GroupAction, GroupResults, GroupVerb, MemberResult};
use shared::migrate::{CreateMigrationClone, FinalizeMigration, GroupCutoverSpec, GroupMember, MigratingVm};
use shared::{JobId, Status};

impl Jobs {
    /// The machines of a group, or of one of its waves, by wave and name.
    async fn members(&self, group: &str, wave: Option<u32>) -> Result<Vec<MigratingVm>, Status> {
        let all = self
            .world()
            .db
            .reading(async |conn| db::migrations::in_group(conn, Some(group)).await);
        let mut all = all.await?;
        if all.is_empty() {
            return Err(Status::not_found("group", group));
        }
        all.retain(|vm| wave.is_none_or(|wave| vm.wave == wave));
        if let (Some(wave), true) = (wave, all.is_empty()) {
            return Err(Status::invalid(
                "wave",
                format_args!("{group} has no wave {wave}"),
            ));
        }
        all.sort_by(|a, b| (a.wave, &a.name).cmp(&(b.wave, &b.name)));
        Ok(all)
    }

    /// Asks something of all machines of a group, or of one of its waves: of each it is done, or refused with the reason.
    pub async fn act_on_group(
        &self,
        group: &str,
        action: GroupAction,
        by: By,
    ) -> Result<GroupResults, Status> {
        let mut results = Vec::new();
        for vm in self.members(group, action.wave).await? {
            let done = self.act_on(&vm, &action, by.clone()).await;
            let (job, error) = match done {
                Ok(job) => (job, None),
                Err(why) => (None, Some(why)),
            };
            results.push(MemberResult {
                migrating_vm: vm.id,
                name: vm.name,
                job,
                error,
            });
        }
        Ok(GroupResults { results })
    }

    async fn act_on(&self, vm: &MigratingVm, action: &GroupAction, by: By) -> Result<Option<JobId>, Status> {
        let id = vm.id.to_string();
        match action.verb {
            GroupVerb::Start => self.start_migration(&id).await?,
            GroupVerb::Pause => self.pause_migration(&id).await?,
            GroupVerb::Resume => self.resume_migration(&id).await?,
            GroupVerb::Cycle => self.cycle_now(&id).await?,
            GroupVerb::Extend => self.extend_migration(&id).await?,
            GroupVerb::Check => self.check_migration(&id).await?,
            GroupVerb::Adapt => return Ok(Some(self.adapt_migration(&id, by).await?.id)),
            GroupVerb::Clone => {
                let request = CreateMigrationClone {
                    keep_hours: action.keep_hours,
                    ..CreateMigrationClone::default()
                };
                return Ok(Some(self.migration_clone(&id, request, by).await?.id));
            }
            GroupVerb::Finalize => {
                let request = FinalizeMigration {
                    keep_copies: action.keep_copies,
                };
                return Ok(Some(self.finalize_migration(&id, request, by).await?.id));
            }
        };
        Ok(None)
    }

    /// Cuts a group over, or one of its waves.
    pub async fn cut_over_group(&self, group: &str, request: CutOverGroup, by: By) -> Result<Job, Status> {
        let most = u64::from(shared::can::limit::BOOT_TIMEOUT_SECONDS);
        let seconds = u64::from(request.power_off_after_seconds);
        shared::can::limit::within("powerOffAfterSeconds", seconds, 1, most, "seconds")?;
        let members = self.members(group, request.wave).await?;
        let members: Vec<_> = members
            .into_iter()
            .filter(|vm| !vm.state.has_moved())
            .map(|vm| GroupMember {
                migrating_vm: vm.id,
                name: vm.name,
                wave: vm.wave,
            })
            .collect();
        if members.is_empty() {
            let message = format!("all machines of {group} run where they were to go already");
            return Err(Status::precondition(message));
        }
        let spec = GroupCutoverSpec {
            group: group
                .parse()
                .map_err(|e: shared::NameError| Status::invalid("group", e))?,
            members,
            power_off_after_seconds: request.power_off_after_seconds,
        };
        self.submit(JobSpec::CutOverGroup(spec), None, None, by).await
    }
}
