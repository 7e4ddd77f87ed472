//! Cuts a group over, wave by wave: those of a wave at the same time, each by a job of its own. The next wave begins when all
//! of this one run where they were to go; what is there already stays there, whatever becomes of the rest.

use super::child;
use crate::db;
use crate::db::locks::LockMode;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::{By, Jobs, request_of};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::job::{Job, JobSpec, JobState, step};
use shared::migrate::can::{Verb, can};
use shared::migrate::{CreateCutover, GroupCutoverSpec, GroupMember};
use shared::{Code, JobId, MigratingVmId, Status};
use std::collections::BTreeMap;

pub(super) struct CutOverGroup;

/// The cutovers that it has asked for.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Minted {
    cutovers: BTreeMap<MigratingVmId, JobId>,
}

fn spec(cx: &Cx) -> Result<GroupCutoverSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::CutOverGroup(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request to cut a group over",
        )),
    }
}

/// What keeps machines from being cut over, said before any of them is.
async fn check(cx: &Cx) -> Result<(), StepError> {
    let mut refused = Vec::new();
    for member in &spec(cx)?.members {
        let vm = db::migrations::by_id(cx.db(), member.migrating_vm).await?;
        if !vm.state.has_moved()
            && let Err(why) = can(Verb::CutOver, &vm)
        {
            refused.push(why.message);
        }
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Status::precondition(refused.join("; ")).into()),
    }
}

async fn cut_over(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let mut moved = 0;
    let total = spec.members.len() as u32;
    cx.count(moved, total);
    let waves: Vec<_> = spec.members.chunk_by(|a, b| a.wave == b.wave).collect();
    for (n, wave) in waves.iter().enumerate() {
        let (mut cutovers, mut names) = (Vec::new(), BTreeMap::new());
        for member in *wave {
            match asked(cx, &spec, member).await? {
                Some(job) => {
                    names.insert(job, &member.name);
                    cutovers.push(job);
                }
                None => moved += 1,
            }
        }
        cx.count(moved, total);
        let good = |jobs: &[Job]| jobs.iter().filter(|job| job.state == JobState::Succeeded).count() as u32;
        let over = child::all(cx, &cutovers, |over| cx.count(moved + good(over), total)).await?;
        moved += good(&over);
        let failed: Vec<_> = over
            .iter()
            .filter(|job| job.state != JobState::Succeeded)
            .map(|job| format!("{}: {}", names.get(&job.id).map_or("", |n| n.as_str()), why(job)))
            .collect();
        if !failed.is_empty() {
            let number = wave.first().map_or(1, |member| member.wave);
            let rest = match waves.len() - n - 1 {
                0 => String::new(),
                rest => format!(" Waves that were not begun: {rest}."),
            };
            let text = format!(
                "wave {number}: {}.{rest} Those that run where they were to go stay there: mend this, and cut the group over again",
                failed.join("; ")
            );
            return Err(StepError::new(Code::Aborted, text));
        }
    }
    cx.message(format!("{moved} machines run where they were to go"));
    Ok(())
}

fn why(job: &Job) -> String {
    match &job.error {
        Some(error) => error.message.trim_end_matches('.').to_owned(),
        None => format!("its cutover was {}", job.state.word().to_lowercase()),
    }
}

/// The cutover of a machine; none where it runs already where it was to go.
async fn asked(cx: &Cx, spec: &GroupCutoverSpec, member: &GroupMember) -> Result<Option<JobId>, StepError> {
    let mut minted = cx.data::<Minted>()?.unwrap_or_default();
    let id = member.migrating_vm;
    if let Some(job) = minted.cutovers.get(&id) {
        return Ok(Some(*job));
    }
    if db::migrations::by_id(cx.db(), id).await?.state.has_moved() {
        return Ok(None);
    }
    let jobs = Jobs {
        inner: cx.inner.clone(),
    };
    let request = CreateCutover {
        power_off_after_seconds: spec.power_off_after_seconds,
        ..CreateCutover::default()
    };
    let once = Some(request_of([cx.id().0, id.0]));
    let by = By(format!("group {}", spec.group));
    let job = jobs.cut_over_once(&id.to_string(), request, once, by).await?.id;
    minted.cutovers.insert(id, job);
    cx.mint(&minted);
    cx.commit(|_| Box::pin(async { Ok(()) })).await?;
    Ok(Some(job))
}

#[async_trait]
impl Kind for CutOverGroup {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::CHECKING), Plan::always(step::CUTTING_OVER)]
    }

    /// It holds no machine itself: what it asks for does.
    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::CHECKING => check(cx).await,
            _ => cut_over(cx).await,
        }
    }

    /// Cutovers that are not over are cancelled; those that are stay.
    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        if name != step::CUTTING_OVER {
            return Ok(());
        }
        let minted = cx.data::<Minted>()?.unwrap_or_default();
        let cutovers: Vec<_> = minted.cutovers.into_values().collect();
        child::all_cancelled(cx, &cutovers).await?;
        Ok(())
    }
}
