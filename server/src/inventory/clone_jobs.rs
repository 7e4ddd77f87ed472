//! A clone job in the seed's own names.

use crate::db;
use crate::jobs::World;
use shared::clone::{Bytes, CloneJobExtra, CloneJobView};
use shared::feed::Noun;
use shared::job::{Job, JobSpec, ResourceRole, StepState, step};
use shared::seed::CloneJobName;
use shared::seed::clone_job::{
    AdaptingOsStep, CloneJob, CloneStep, InstantiatingMigratedVmStep, Parts, PreparingVmDisksStep, Step,
    TargetVmDetails,
};
use shared::seed::target::{ComputeEngineDisksTargetDetails, ComputeEngineTargetDetails};
use shared::{Code, Status};

/// The seed's view of a clone job.
pub async fn view(world: &World, job: &Job) -> Result<CloneJobView, Status> {
    let JobSpec::CloneVm(spec) = &*job.spec else {
        return Err(Status::new(
            Code::Internal,
            format!("job {} is no clone job", job.id),
        ));
    };
    let internal = |e: &dyn std::error::Error| Status::new(Code::Internal, db::chain(e));
    let host = db::places::hosts(&world.db).await?.into_iter().next();
    let location = host.map_or_else(|| "local".to_owned(), |h| h.name.to_string());
    let vm = spec.vm.to_string();
    let last = match &spec.request.clone_job_id {
        Some(alias) => alias.to_string(),
        None => job.id.to_string(),
    };
    let name = CloneJobName::new(["offshoot", &location, "local", &vm, &last]).map_err(|e| internal(&e))?;
    let ended = job.state.is_final();
    let seed = CloneJob::from_parts(Parts {
        name,
        create_time: job.create_time,
        state: job.seed_states().clone_job,
        state_time: job.state_time,
        error: job.error.clone().filter(|_| ended),
        steps: steps(job),
        target: target(job),
    })
    .map_err(|e| internal(&e))?;
    let bytes = job.steps.iter().find_map(|s| {
        let (done, total) = (s.done_bytes?, s.total_bytes?);
        Some(Bytes { done, total })
    });
    let taken = job
        .resource(ResourceRole::Product, Noun::Snapshot)
        .and_then(|r| r.id.parse().ok());
    Ok(CloneJobView {
        job: seed,
        offshoot: CloneJobExtra {
            id: job.id,
            state: job.state,
            mode: spec.request.mode,
            snapshot: spec.snapshot.or(taken),
            target: product(job).cloned(),
            bytes,
            proof: job.outcome.proof.clone(),
            log: format!("/api/v1/jobs/{}/log", job.id),
        },
    })
}

fn product(job: &Job) -> Option<&shared::job::Resource> {
    [Noun::Vm, Noun::Image]
        .into_iter()
        .find_map(|noun| job.resource(ResourceRole::Product, noun))
}

/// The steps that have begun and that the seed knows.
fn steps(job: &Job) -> Vec<CloneStep> {
    job.steps
        .iter()
        .filter(|s| !matches!(s.state, StepState::Waiting | StepState::Skipped))
        .filter_map(|s| {
            let kind = match s.name.as_str() {
                step::ADAPTING_OS => Step::AdaptingOs(AdaptingOsStep {}),
                step::PREPARING_VM_DISKS => Step::PreparingVmDisks(PreparingVmDisksStep {}),
                step::INSTANTIATING => Step::InstantiatingMigratedVm(InstantiatingMigratedVmStep {}),
                _ => return None,
            };
            Some(CloneStep {
                start_time: s.start_time,
                end_time: s.end_time,
                step: Some(kind),
            })
        })
        .collect()
}

fn target(job: &Job) -> TargetVmDetails {
    let request = match &*job.spec {
        JobSpec::CloneVm(spec) => Some(&spec.request),
        _ => None,
    };
    if request.is_some_and(|r| r.disks_only.is_some()) {
        return TargetVmDetails::ComputeEngineDisksTargetDetails(ComputeEngineDisksTargetDetails::default());
    }
    let target = request.and_then(|r| r.target.as_ref());
    let asked = target.and_then(|t| t.name.as_ref()).map(ToString::to_string);
    // A job that was cancelled before it minted has no product: then what was asked.
    let name = product(job).map(|r| r.name.to_string()).or(asked);
    let labels = target.and_then(|t| t.labels.clone()).unwrap_or_default();
    TargetVmDetails::ComputeEngineTargetDetails(Box::new(ComputeEngineTargetDetails {
        vm_name: name.unwrap_or_default(),
        labels: labels.into_iter().collect(),
        ..Default::default()
    }))
}
