//! Machines that are carried over, on a clock that is set by hand: cycles, back-off, pauses, test clones, cutover, the end.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "migrations/groups.rs"]
mod groups;
#[path = "migrations/mishaps.rs"]
mod mishaps;
#[path = "migrations/storm.rs"]
mod storm;
mod support;

use server::db;
use server::inventory::migrations as inventory;
use server::jobs::Jobs;
use server::jobs::clock::Clock;
use server::jobs::world::Machines;
use shared::api::ListQuery;
use shared::job::{Job, JobState, step};
use shared::migrate::views::{CutoverJob, MigrationClone, MoveState, MoveStepName, ReplicationCycle};
use shared::migrate::{
    CloneVerdict, CreateCutover, CreateMigrationClone, CyclePolicy, CycleState, FinalizeMigration,
    JudgeClone, MigratingState, TargetDefaults,
};
use shared::vm::{PowerAction, VmState};
use shared::{Code, Timestamp};
use std::path::Path;
use support::migrating::{self, carry, is, synced, when};
use support::{PATIENCE, by, clean_up, create, dir, ended, engine_of, until, vm_id};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn engine(dir: &Path, clock: &Clock) -> Jobs {
    engine_of(dir, Machines::Simulated, None, |world| {
        world.clock = clock.clone()
    })
    .await
}

async fn machine(jobs: &Jobs, name: &str) {
    let made = jobs.create_vm(create(name, true), by()).await.unwrap();
    ended(jobs, made.id).await;
}

/// A machine that is carried over as `moved`.
async fn carried(jobs: &Jobs, vm: &str) {
    machine(jobs, vm).await;
    migrating::carried(jobs, vm, CyclePolicy::default()).await;
}

async fn cycles(jobs: &Jobs) -> Vec<ReplicationCycle> {
    let all = inventory::cycles(jobs.world(), "moved", &ListQuery::default()).await;
    let mut cycles = all.unwrap().items;
    cycles.reverse();
    cycles
}

async fn state_of(jobs: &Jobs, name: &str) -> VmState {
    let vm = db::vms::find(&jobs.world().db, name).await.unwrap();
    vm.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn cycles_run_one_after_the_other_with_a_rest_between_them() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    let has = inventory::inventory(jobs.world(), "here").await.unwrap();
    assert_eq!(
        (has.vms.len(), has.vms[0].migrating_vm),
        (1, Some(is(&jobs).await.id))
    );
    let twice = jobs.create_migrating_vm(carry("again", "web")).await.unwrap_err();
    assert_eq!(twice.code, Code::AlreadyExists, "{twice}");
    let early = jobs
        .cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap_err();
    assert!(
        early.message.contains("nothing of moved is uploaded yet"),
        "{early}"
    );

    let first = synced(&jobs).await;
    assert_eq!((first.cycles, first.failures, first.error.clone()), (1, 0, None));
    assert_eq!(first.next_time, Some(at("2030-01-01T01:00:00Z")));
    assert!(first.last_sync_time.is_some() && first.last_copy.is_some());
    let again = jobs.start_migration("moved").await.unwrap_err();
    assert!(again.message.contains("started already"), "{again}");

    clock.set(at("2030-01-01T01:00:00Z"));
    when(&jobs, |vm| vm.cycles == 2 && vm.current_cycle.is_none()).await;
    jobs.cycle_now("moved").await.unwrap();
    let third = when(&jobs, |vm| vm.cycles == 3 && vm.current_cycle.is_none()).await;
    let all = cycles(&jobs).await;
    let numbers: Vec<_> = all.iter().map(|c| (c.number, c.state)).collect();
    assert_eq!(numbers, [1, 2, 3].map(|n| (n, CycleState::Succeeded)));
    assert_eq!(all[2].copy, third.last_copy);
    assert_eq!(all[0].steps.len(), 3);
    // Two uploads are kept, and the target is somebody's.
    let kept = db::retention::uploads(&jobs.world().db, third.id).await.unwrap();
    assert_eq!(kept.len(), 2);
    let refused = shared::Status::from(jobs.world().copies.detach("vault").await.unwrap_err());
    assert!(refused.message.contains("migration moved"), "{refused}");
    let refused = jobs.delete_source("here").await.unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_that_fails_is_tried_again_by_back_off_and_takes_nothing_away() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    // What copies of it come to fails.
    carried(&jobs, "fail-at-copying").await;
    jobs.start_migration("moved").await.unwrap();
    let failed = when(&jobs, |vm| vm.failures == 1).await;
    assert_eq!(failed.state, MigratingState::FirstSync);
    assert!(failed.error.is_some() && failed.last_copy.is_none());
    assert_eq!(failed.next_time, Some(at("2030-01-01T00:00:30Z")));
    clock.set(at("2030-01-01T00:00:30Z"));
    let failed = when(&jobs, |vm| vm.failures == 2).await;
    assert_eq!(failed.next_time, Some(at("2030-01-01T00:01:30Z")));
    assert_eq!(cycles(&jobs).await.len(), 2);
    jobs.pause_migration("moved").await.unwrap();
    clock.set(at("2030-01-01T09:00:00Z"));
    let refused = jobs.cycle_now("moved").await.unwrap_err();
    assert!(refused.message.contains("paused"), "{refused}");
    assert_eq!(is(&jobs).await.cycles, 2);
    jobs.delete_migrating_vm("moved").await.unwrap();
    jobs.delete_source("here").await.unwrap();
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_the_cycle_at_work_and_a_restart_goes_on() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "wait-at-copying").await;
    jobs.start_migration("moved").await.unwrap();
    let at_work = when(&jobs, |vm| vm.current_cycle.is_some())
        .await
        .current_cycle
        .unwrap();
    until(&jobs, at_work, |job| {
        job.current_step().is_some_and(|s| s.name == step::COPYING)
    })
    .await;
    jobs.pause_migration("moved").await.unwrap();
    assert_eq!(ended(&jobs, at_work).await.state, JobState::Cancelled);
    let paused = when(&jobs, |vm| vm.current_cycle.is_none()).await;
    assert_eq!((paused.state, paused.next_time), (MigratingState::Paused, None));
    jobs.resume_migration("moved").await.unwrap();
    let at_work = when(&jobs, |vm| vm.current_cycle.is_some())
        .await
        .current_cycle
        .unwrap();
    until(&jobs, at_work, |job| {
        job.current_step().is_some_and(|s| s.name == step::COPYING)
    })
    .await;
    jobs.stop().await;
    drop(jobs);

    let jobs = engine(dir.path(), &clock).await;
    let sim = jobs.world().hypervisor.as_sim().unwrap();
    sim.until_waiting("wait-at-copying").await;
    sim.release("wait-at-copying");
    let done = when(&jobs, |vm| vm.state == MigratingState::Active).await;
    assert_eq!((done.cycles, done.current_cycle), (2, None));
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_clone_runs_beside_its_source_and_a_person_says_what_it_is_worth() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let request = CreateMigrationClone {
        target: TargetDefaults {
            name: Some("trial".parse().unwrap()),
            cpus: Some(2),
            ..TargetDefaults::default()
        },
        keep_hours: Some(2),
        ..CreateMigrationClone::default()
    };
    let job = jobs.migration_clone("moved", request, by()).await.unwrap();
    let done = ended(&jobs, job.id).await;
    assert_eq!(done.state, JobState::Succeeded, "{done:#?}");
    let trial = db::vms::find(&jobs.world().db, "trial").await.unwrap().unwrap();
    assert_eq!((trial.state, trial.cpus), (VmState::Running, 2));
    assert!(
        trial
            .network_interfaces
            .iter()
            .all(|nic| nic.network.as_str() == "isolated"),
        "{trial:#?}"
    );
    assert_eq!(state_of(&jobs, "web").await, VmState::Running);
    let judge = JudgeClone {
        verdict: CloneVerdict::Passed,
        note: "the shop sells".into(),
    };
    jobs.judge_clone("moved", &job.id.to_string(), judge, by())
        .await
        .unwrap();
    let clones = inventory::clones(jobs.world(), "moved", &ListQuery::default()).await;
    let clones: Vec<MigrationClone> = clones.unwrap().items;
    assert_eq!(clones.len(), 1);
    assert_eq!(clones[0].judged.verdict, Some(CloneVerdict::Passed));
    assert_eq!(clones[0].state, MoveState::Succeeded);
    assert!(clones[0].remove_time.is_some());
    clean_up(&jobs).await;
}

async fn cut_over(jobs: &Jobs) -> Job {
    jobs.cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_ends_with_the_machine_there_and_its_source_off() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let job = cut_over(&jobs).await;
    let two = jobs
        .cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap_err();
    assert_eq!(two.code, Code::FailedPrecondition);
    let done = ended(&jobs, job.id).await;
    assert_eq!(done.state, JobState::Succeeded, "{done:#?}");
    let over = is(&jobs).await;
    assert_eq!((over.state, over.cycles), (MigratingState::Cutover, 2));
    assert_eq!(over.target_vm, Some(vm_id(&jobs, "moved").await));
    assert_eq!(state_of(&jobs, "web").await, VmState::Stopped);
    assert_eq!(state_of(&jobs, "moved").await, VmState::Running);
    let shown = CutoverJob::of(&done).unwrap();
    // Its uploads are not adapted: it is of this server.
    assert_eq!(shown.steps.len(), MoveStepName::ALL.len() - 1);
    assert!(shown.downtime_millis.is_some());

    let end = jobs
        .finalize_migration("moved", FinalizeMigration::default(), by())
        .await
        .unwrap();
    let ended_ = ended(&jobs, end.id).await;
    assert_eq!(ended_.state, JobState::Succeeded, "{ended_:#?}");
    assert_eq!(is(&jobs).await.state, MigratingState::Finalized);
    let left = db::retention::uploads(&jobs.world().db, over.id).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(state_of(&jobs, "moved").await, VmState::Running);
    // It may be carried over once more.
    jobs.create_migrating_vm(carry("again", "web")).await.unwrap();
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_is_cancelled_or_fails_brings_the_source_back_up() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    for gate in ["wait", "fail"] {
        let request = CreateCutover {
            target: TargetDefaults {
                name: Some(format!("{gate}-at-instantiating").parse().unwrap()),
                ..TargetDefaults::default()
            },
            ..CreateCutover::default()
        };
        let job = jobs.cut_over("moved", request, by()).await.unwrap();
        if gate == "wait" {
            until(&jobs, job.id, |job| {
                job.current_step().is_some_and(|s| s.name == step::INSTANTIATING)
            })
            .await;
            assert_eq!(state_of(&jobs, "web").await, VmState::Stopped);
            jobs.cancel(job.id).await.unwrap();
        }
        let over = ended(&jobs, job.id).await;
        let state = if gate == "wait" {
            JobState::Cancelled
        } else {
            JobState::Failed
        };
        assert_eq!(over.state, state, "{over:#?}");
        let back = is(&jobs).await;
        assert_eq!(back.state, MigratingState::Active);
        assert_eq!(state_of(&jobs, "web").await, VmState::Running);
        let made = db::vms::find(&jobs.world().db, &format!("{gate}-at-instantiating"))
            .await
            .unwrap();
        assert_eq!(made, None);
        when(&jobs, |vm| vm.current_cycle.is_none()).await;
    }
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_gone_is_an_error_and_what_expires_stands_still_until_it_is_extended() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    let mut other = carry("brief", "other");
    machine(&jobs, "other").await;
    other.policy.expire_days = Some(1);
    jobs.create_migrating_vm(other).await.unwrap();
    let power = jobs
        .power(vm_id(&jobs, "web").await, PowerAction::PowerOff, by())
        .await
        .unwrap();
    ended(&jobs, power.id).await;
    let gone = jobs.delete_vm(vm_id(&jobs, "web").await, by()).await.unwrap();
    ended(&jobs, gone.id).await;
    jobs.check_migration("moved").await.unwrap();
    let lost = when(&jobs, |vm| vm.state == MigratingState::Error).await;
    assert!(lost.error.unwrap().message.contains("is not at here any more"));

    let brief = async |jobs: &Jobs| inventory::migrating_vm(jobs.world(), "brief").await.unwrap();
    assert_eq!(brief(&jobs).await.expire_time, Some(at("2030-01-02T00:00:00Z")));
    let mut changes = jobs.world().db.subscribe();
    clock.set(at("2030-01-02T00:00:00Z"));
    while brief(&jobs).await.state != MigratingState::Expired {
        drop(tokio::time::timeout(PATIENCE, changes.recv()).await.unwrap());
    }
    let refused = jobs.start_migration("brief").await.unwrap_err();
    assert!(refused.message.contains("extend it first"), "{refused}");
    jobs.extend_migration("brief").await.unwrap();
    let more = brief(&jobs).await;
    assert_eq!(
        (more.state, more.expire_time),
        (MigratingState::Ready, Some(at("2030-01-03T00:00:00Z")))
    );
    clean_up(&jobs).await;
}
