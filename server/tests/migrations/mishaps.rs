//! What may go wrong in the middle: a target that is away, machines that crash or are gone, disks that change, clocks that jump.

use super::*;
use crate::support::migrating::{is_as_its_snapshot, numbers};
use crate::support::quiet;
use async_trait::async_trait;
use server::hypervisor::sim::Sim;
use server::jobs::Hook;
use server::jobs::step::{Cx, StepError};
use shared::edit::{EditVm, GrowDisk};
use shared::job::JobKind;
use shared::migrate::MigratingVm;
use shared::vm::{BlankDisk, NewDisk};
use shared::{JobId, VmId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

const HOUR: i64 = 3600 * 1_000_000;

/// Stops a job before a step, once it is set, until it is let go on: well, or with a failure.
struct Stop {
    at: (JobKind, &'static str),
    set: AtomicBool,
    there: Semaphore,
    on: Semaphore,
    fails: AtomicBool,
}

impl Stop {
    fn before(kind: JobKind, step: &'static str) -> Arc<Self> {
        Arc::new(Self {
            at: (kind, step),
            set: AtomicBool::new(false),
            there: Semaphore::new(0),
            on: Semaphore::new(0),
            fails: AtomicBool::new(false),
        })
    }

    fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
    }

    async fn reached(&self) {
        let there = tokio::time::timeout(PATIENCE, self.there.acquire()).await;
        there.expect("the step was never reached").unwrap().forget();
    }

    fn go_on(&self) {
        self.on.add_permits(1);
    }

    fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
        self.go_on();
    }
}

#[async_trait]
impl Hook for Stop {
    async fn before(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        if (cx.job().kind, step) != self.at || !self.set.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        self.there.add_permits(1);
        self.on.acquire().await.unwrap().forget();
        match self.fails.load(Ordering::SeqCst) {
            true => Err(StepError::new(Code::Aborted, "made to fail")),
            false => Ok(()),
        }
    }
}

async fn engine_that_stops(dir: &Path, clock: &Clock, stop: &Arc<Stop>) -> Jobs {
    engine_of(dir, Machines::Simulated, Some(stop.clone()), |world| {
        world.clock = clock.clone()
    })
    .await
}

fn noon() -> Clock {
    Clock::stopped(at("2030-01-01T12:00:00Z"))
}

fn sim(jobs: &Jobs) -> &Sim {
    jobs.world().hypervisor.as_sim().unwrap()
}

async fn over(jobs: &Jobs, job: JobId, state: JobState) -> Job {
    let job = ended(jobs, job).await;
    assert_eq!(job.state, state, "{job:#?}");
    job
}

async fn power(jobs: &Jobs, vm: VmId, action: PowerAction) {
    let job = jobs.power(vm, action, by()).await.unwrap();
    over(jobs, job.id, JobState::Succeeded).await;
}

/// Waits until a machine is in this state, by what the database tells.
async fn becomes(jobs: &Jobs, name: &str, state: VmState) {
    let mut changes = jobs.world().db.subscribe();
    let wait = async {
        while state_of(jobs, name).await != state {
            drop(changes.recv().await);
        }
    };
    let done = tokio::time::timeout(PATIENCE, wait).await;
    assert!(done.is_ok(), "{name} is {}", state_of(jobs, name).await);
}

/// The next cycle begins now; answers its job.
async fn cycle(jobs: &Jobs) -> JobId {
    jobs.cycle_now("moved").await.unwrap();
    when(jobs, |vm| vm.current_cycle.is_some())
        .await
        .current_cycle
        .unwrap()
}

/// The cycle that is at work is over, and so many there have been; answers the migration then.
async fn rests(jobs: &Jobs, cycles: u64) -> MigratingVm {
    when(jobs, |vm| vm.current_cycle.is_none() && vm.cycles == cycles).await
}

fn away(jobs: &Jobs, is: bool) {
    let here = jobs.world().data_dir.join("vault.vault");
    let there = jobs.world().data_dir.join("elsewhere");
    let (from, to) = if is { (&here, &there) } else { (&there, &here) };
    std::fs::rename(from, to).unwrap();
}

/// All is well: the source runs, cycles go on, and each number is there once.
async fn goes_on(jobs: &Jobs, clock: &Clock) {
    let waits =
        |vm: &MigratingVm| vm.current_cycle.is_none() && vm.next_time.is_some_and(|next| next > clock.now());
    let before = when(jobs, waits).await;
    assert_eq!(before.state, MigratingState::Active, "{before:#?}");
    clock.set(clock.now().plus_micros(HOUR));
    let after = when(jobs, |vm| waits(vm) && vm.last_copy != before.last_copy).await;
    assert_eq!((after.failures, after.error.clone()), (0, None));
    is_as_its_snapshot(jobs, after.last_copy.unwrap()).await;
    assert_eq!(numbers(jobs, after.id).await, Vec::from_iter(1..=after.cycles));
    assert_eq!(state_of(jobs, "web").await, VmState::Running);
    quiet(jobs).await;
    support::slate_without_layers(jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_in_the_middle_is_waited_for_and_the_last_upload_stands() {
    for step in [step::COPYING, step::FINALIZING] {
        let (dir, clock) = (dir(), noon());
        let stop = Stop::before(JobKind::CopySnapshot, step);
        let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
        carried(&jobs, "web").await;
        let first = synced(&jobs).await.last_copy.unwrap();
        is_as_its_snapshot(&jobs, first).await;
        stop.set();
        let job = cycle(&jobs).await;
        stop.reached().await;
        away(&jobs, true);
        stop.go_on();
        let waits = until(&jobs, job, |job| job.state == JobState::OnHold).await;
        assert!(
            waits
                .hold_reason
                .as_ref()
                .unwrap()
                .contains("there is no directory"),
            "{waits:#?}"
        );
        let meanwhile = is(&jobs).await;
        assert_eq!(
            (meanwhile.state, meanwhile.failures, meanwhile.last_copy),
            (MigratingState::Active, 0, Some(first))
        );
        // However long that takes, it is one cycle.
        clock.set(clock.now().plus_micros(48 * HOUR));
        away(&jobs, false);
        over(&jobs, job, JobState::Succeeded).await;
        let second = when(&jobs, |vm| vm.last_copy != Some(first)).await;
        assert_eq!(second.cycles, 2);
        // Its snapshot goes now; the upload stays.
        assert!(
            db::migrations::is_upload(&jobs.world().db, first, second.id)
                .await
                .unwrap()
        );
        is_as_its_snapshot(&jobs, second.last_copy.unwrap()).await;
        goes_on(&jobs, &clock).await;
        clean_up(&jobs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashes_in_the_middle_of_a_cycle_is_carried_over_on_when_it_runs_again() {
    for step in [step::TAKING_SNAPSHOT, step::COPYING] {
        let (dir, clock) = (dir(), noon());
        let stop = Stop::before(JobKind::CopySnapshot, step);
        let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
        carried(&jobs, "web").await;
        let first = synced(&jobs).await.last_copy;
        let web = vm_id(&jobs, "web").await;
        stop.set();
        let job = cycle(&jobs).await;
        stop.reached().await;
        sim(&jobs).crash(web).unwrap();
        becomes(&jobs, "web", VmState::Error).await;
        stop.go_on();
        let job = ended(&jobs, job).await;
        let rest = rests(&jobs, 2).await;
        if step == step::COPYING {
            // What is frozen is read to its end.
            assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
            assert_ne!(rest.last_copy, first);
        }
        jobs.cycle_now("moved").await.unwrap();
        let failed = when(&jobs, |vm| vm.failures > 0).await;
        assert!(failed.error.unwrap().message.contains("web"));
        assert_eq!(failed.state, MigratingState::Active);
        is_as_its_snapshot(&jobs, failed.last_copy.unwrap()).await;
        power(&jobs, web, PowerAction::Start).await;
        goes_on(&jobs, &clock).await;
        clean_up(&jobs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_powers_off_by_itself_is_carried_over_on_and_started_again_after_a_cutover_that_is_not_to_be()
 {
    let (dir, clock) = (dir(), noon());
    let stop = Stop::before(JobKind::CopySnapshot, step::TAKING_SNAPSHOT);
    let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let web = vm_id(&jobs, "web").await;
    stop.set();
    let job = cycle(&jobs).await;
    stop.reached().await;
    sim(&jobs).shut(web).unwrap();
    becomes(&jobs, "web", VmState::Stopped).await;
    stop.go_on();
    over(&jobs, job, JobState::Succeeded).await;
    rests(&jobs, 2).await;
    over(&jobs, cycle(&jobs).await, JobState::Succeeded).await;
    let off = rests(&jobs, 3).await;
    is_as_its_snapshot(&jobs, off.last_copy.unwrap()).await;
    power(&jobs, web, PowerAction::Start).await;
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
    drop(jobs);

    let stop = Stop::before(JobKind::CutOver, step::SHUTTING_DOWN_SOURCE);
    let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
    power(&jobs, web, PowerAction::Start).await;
    stop.set();
    let job = cut_over(&jobs).await;
    stop.reached().await;
    sim(&jobs).shut(web).unwrap();
    becomes(&jobs, "web", VmState::Stopped).await;
    jobs.cancel(job.id).await.unwrap();
    over(&jobs, job.id, JobState::Cancelled).await;
    assert_eq!(state_of(&jobs, "web").await, VmState::Running);
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashes_while_it_shuts_down_is_cut_over_all_the_same() {
    let (dir, clock) = (dir(), noon());
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let web = vm_id(&jobs, "web").await;
    sim(&jobs).linger(web);
    let job = cut_over(&jobs).await;
    becomes(&jobs, "web", VmState::Stopping).await;
    sim(&jobs).crash(web).unwrap();
    over(&jobs, job.id, JobState::Succeeded).await;
    assert_eq!(state_of(&jobs, "web").await, VmState::Stopped);
    assert_eq!(state_of(&jobs, "moved").await, VmState::Running);
    let done = is(&jobs).await;
    assert_eq!((done.state, done.cycles), (MigratingState::Cutover, 2));
    is_as_its_snapshot(&jobs, done.last_copy.unwrap()).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashed_is_started_again_when_its_cutover_is_not_to_be() {
    // Before it is asked to shut down, while the last upload runs, and when the new machine is being made.
    for step in [
        step::SHUTTING_DOWN_SOURCE,
        step::FINAL_SYNC,
        step::PREPARING_VM_DISKS,
    ] {
        for cancel in [true, false] {
            let (dir, clock) = (dir(), noon());
            let stop = Stop::before(JobKind::CutOver, step);
            let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
            carried(&jobs, "web").await;
            synced(&jobs).await;
            let web = vm_id(&jobs, "web").await;
            stop.set();
            let crashes_late = step != step::SHUTTING_DOWN_SOURCE;
            sim(&jobs).linger(web);
            let job = cut_over(&jobs).await;
            if crashes_late {
                becomes(&jobs, "web", VmState::Stopping).await;
                sim(&jobs).crash(web).unwrap();
            }
            stop.reached().await;
            if !crashes_late {
                sim(&jobs).crash(web).unwrap();
                becomes(&jobs, "web", VmState::Error).await;
            }
            if cancel {
                jobs.cancel(job.id).await.unwrap();
                over(&jobs, job.id, JobState::Cancelled).await;
            } else {
                stop.fail();
                over(&jobs, job.id, JobState::Failed).await;
            }
            assert_eq!(state_of(&jobs, "web").await, VmState::Running, "{step}");
            goes_on(&jobs, &clock).await;
            clean_up(&jobs).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shuts_down_after_its_cutover_was_cancelled_is_started_again() {
    let (dir, clock) = (dir(), noon());
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let web = vm_id(&jobs, "web").await;
    sim(&jobs).linger(web);
    let job = cut_over(&jobs).await;
    becomes(&jobs, "web", VmState::Stopping).await;
    jobs.cancel(job.id).await.unwrap();
    until(&jobs, job.id, |job| job.state == JobState::Unwinding).await;
    // It has heard its power button.
    becomes(&jobs, "web", VmState::Running).await;
    sim(&jobs).shut(web).unwrap();
    over(&jobs, job.id, JobState::Cancelled).await;
    assert_eq!(state_of(&jobs, "web").await, VmState::Running);
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_is_cancelled_while_its_target_is_away_has_the_source_run_meanwhile() {
    for step in [step::COPYING, step::FINALIZING] {
        let (dir, clock) = (dir(), noon());
        let stop = Stop::before(JobKind::CopySnapshot, step);
        let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
        carried(&jobs, "web").await;
        synced(&jobs).await;
        stop.set();
        let job = cut_over(&jobs).await;
        stop.reached().await;
        assert_eq!(state_of(&jobs, "web").await, VmState::Stopped);
        let sync = is(&jobs).await.current_cycle.unwrap();
        away(&jobs, true);
        stop.go_on();
        until(&jobs, sync, |job| job.state == JobState::OnHold).await;
        jobs.cancel(job.id).await.unwrap();
        over(&jobs, job.id, JobState::Cancelled).await;
        assert_eq!(state_of(&jobs, "web").await, VmState::Running);
        away(&jobs, false);
        // What was past its point of no return comes to its end, and is a cycle like any other.
        ended(&jobs, sync).await;
        goes_on(&jobs, &clock).await;
        clean_up(&jobs).await;
    }
}

/// The job that brings the machine of a cutover, which alone is a restore.
async fn the_restore(jobs: &Jobs) -> JobId {
    let id: String = sqlx::query_scalar("SELECT id FROM jobs WHERE kind = 'RESTORE_COPY'")
        .fetch_one(jobs.world().db.read())
        .await
        .unwrap();
    id.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_fails_when_the_machine_is_there_already_takes_it_away_and_starts_the_source() {
    let (dir, clock) = (dir(), noon());
    let stop = Stop::before(JobKind::CutOver, step::INSTANTIATING);
    let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    stop.set();
    let job = cut_over(&jobs).await;
    stop.reached().await;
    // All of it is home, and it runs.
    over(&jobs, the_restore(&jobs).await, JobState::Succeeded).await;
    assert_eq!(state_of(&jobs, "moved").await, VmState::Running);
    stop.fail();
    over(&jobs, job.id, JobState::Failed).await;
    let made = db::vms::find(&jobs.world().db, "moved").await.unwrap();
    assert_eq!(made, None);
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_of_a_cutover_cannot_be_taken_away_while_its_disks_come_home() {
    let (dir, clock) = (dir(), noon());
    let stop = Stop::before(JobKind::RestoreCopy, step::BRINGING_HOME);
    let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    stop.set();
    let job = cut_over(&jobs).await;
    stop.reached().await;
    over(&jobs, job.id, JobState::Succeeded).await;
    let restore = the_restore(&jobs).await;
    let refused = jobs.cancel(restore).await.unwrap_err().message;
    assert!(refused.contains(&format!("cutover {}", job.id)), "{refused}");
    assert_eq!(state_of(&jobs, "moved").await, VmState::Running);
    stop.go_on();
    over(&jobs, restore, JobState::Succeeded).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_deleted_in_the_middle_ends_no_upload_and_what_was_uploaded_is_there() {
    let (dir, clock) = (dir(), noon());
    let stop = Stop::before(JobKind::CopySnapshot, step::COPYING);
    let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let web = vm_id(&jobs, "web").await;
    stop.set();
    let job = cycle(&jobs).await;
    stop.reached().await;
    power(&jobs, web, PowerAction::PowerOff).await;
    let gone = jobs.delete_vm(web, by()).await.unwrap();
    stop.go_on();
    over(&jobs, job, JobState::Succeeded).await;
    over(&jobs, gone.id, JobState::Succeeded).await;
    let second = rests(&jobs, 2).await.last_copy.unwrap();
    clock.set(clock.now().plus_micros(HOUR));
    let failed = when(&jobs, |vm| vm.failures == 1).await;
    let why = failed.error.unwrap().message;
    assert!(why.contains("web is not at here any more"), "{why}");
    assert_eq!((failed.cycles, failed.last_copy), (2, Some(second)));
    let asked = jobs.cut_over("moved", CreateCutover::default(), by()).await;
    assert!(asked.unwrap_err().message.contains("not at here any more"));
    let clone = jobs.migration_clone("moved", CreateMigrationClone::default(), by());
    over(&jobs, clone.await.unwrap().id, JobState::Succeeded).await;
    jobs.pause_migration("moved").await.unwrap();
    jobs.delete_migrating_vm("moved").await.unwrap();
    quiet(&jobs).await;
    support::slate_without_layers(&jobs).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_come_and_grow_between_cycles_are_in_the_next() {
    let (dir, clock) = (dir(), noon());
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    let first = synced(&jobs).await.last_copy.unwrap();
    assert_eq!(is_as_its_snapshot(&jobs, first).await, [1 << 30, 1 << 30]);
    let web = vm_id(&jobs, "web").await;
    let request = EditVm {
        add_disks: vec![NewDisk::Blank(BlankDisk { size_gib: 3 })],
        grow_disks: vec![GrowDisk { disk: 1, size_gib: 2 }],
        ..EditVm::default()
    };
    let edit = jobs.edit_vm(web, request, by()).await.unwrap();
    over(&jobs, edit.id, JobState::Succeeded).await;
    let job = cycle(&jobs).await;
    over(&jobs, job, JobState::Succeeded).await;
    let second = rests(&jobs, 2).await.last_copy.unwrap();
    let now = [1 << 30, 2 << 30, 3 << 30];
    assert_eq!(is_as_its_snapshot(&jobs, second).await, now);
    let request = CreateMigrationClone {
        target: TargetDefaults {
            name: Some("trial".parse().unwrap()),
            ..TargetDefaults::default()
        },
        ..CreateMigrationClone::default()
    };
    let clone = jobs.migration_clone("moved", request, by()).await.unwrap();
    over(&jobs, clone.id, JobState::Succeeded).await;
    let trial = db::vms::find(&jobs.world().db, "trial").await.unwrap().unwrap();
    let sizes: Vec<_> = trial.disks.iter().map(|disk| disk.virtual_bytes).collect();
    assert_eq!(sizes, now);
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_is_one_cycle_and_what_has_expired_by_then_stands_still() {
    let (dir, clock) = (dir(), noon());
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "web").await;
    let policy = CyclePolicy {
        expire_days: Some(5),
        ..CyclePolicy::default()
    };
    migrating::carried(&jobs, "web", policy).await;
    synced(&jobs).await;
    clock.set(at("2030-01-04T12:00:00Z"));
    let second = rests(&jobs, 2).await;
    assert_eq!(second.next_time, Some(at("2030-01-04T13:00:00Z")));
    quiet(&jobs).await;
    assert_eq!(numbers(&jobs, second.id).await, [1, 2]);
    goes_on(&jobs, &clock).await;
    clock.set(at("2030-01-09T12:00:00Z"));
    let late = when(&jobs, |vm| vm.state == MigratingState::Expired).await;
    // When its cycle would have been is how it goes on when it is extended.
    assert!(
        late.next_time.is_some() && late.current_cycle.is_none(),
        "{late:#?}"
    );
    quiet(&jobs).await;
    // It does not come back by itself where the clock does.
    clock.set(at("2030-01-05T12:00:00Z"));
    jobs.extend_migration("moved").await.unwrap();
    let more = when(&jobs, |vm| {
        vm.current_cycle.is_none() && vm.cycles == late.cycles + 1
    })
    .await;
    assert_eq!(more.expire_time, Some(at("2030-01-10T12:00:00Z")));
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_makes_no_cycle_wait_for_longer_than_the_rest_is() {
    let (dir, clock) = (dir(), noon());
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    let first = synced(&jobs).await;
    assert_eq!(first.next_time, Some(at("2030-01-01T13:00:00Z")));
    clock.set(at("2030-01-01T03:00:00Z"));
    let back = when(&jobs, |vm| vm.next_time == Some(at("2030-01-01T04:00:00Z"))).await;
    assert_eq!(back.cycles, 1);
    clock.set(at("2030-01-01T04:00:00Z"));
    let second = rests(&jobs, 2).await;
    assert_eq!(second.next_time, Some(at("2030-01-01T05:00:00Z")));
    goes_on(&jobs, &clock).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_after_the_clock_was_set_back_is_not_taken_for_old() {
    let (dir, clock) = (dir(), noon());
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    over(&jobs, cycle(&jobs).await, JobState::Succeeded).await;
    let second = rests(&jobs, 2).await;
    // Both were uploaded when the clock was hours ahead.
    let ahead = jobs.world().db.write(|tx| {
        Box::pin(async move {
            let ahead = "UPDATE copies SET snapshot_time = snapshot_time + 36000000000";
            sqlx::query(ahead).execute(tx.conn()).await.unwrap();
            Ok(())
        })
    });
    ahead.await.unwrap();
    for n in 3..6 {
        over(&jobs, cycle(&jobs).await, JobState::Succeeded).await;
        let newest = rests(&jobs, n).await.last_copy.unwrap();
        is_as_its_snapshot(&jobs, newest).await;
        let kept = db::retention::uploads(&jobs.world().db, second.id).await.unwrap();
        assert!(kept.iter().any(|held| held.id == newest), "{kept:#?}");
        assert!(kept.len() <= 3, "{kept:#?}");
    }
    let clone = jobs.migration_clone("moved", CreateMigrationClone::default(), by());
    over(&jobs, clone.await.unwrap().id, JobState::Succeeded).await;
    clean_up(&jobs).await;
}

/// A finalization whose removal of a snapshot failed once asks again.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_could_not_be_removed_at_the_end_is_tried_again() {
    let (dir, clock) = (dir(), noon());
    let stop = Stop::before(JobKind::DeleteSnapshot, step::CHECKING);
    let jobs = engine_that_stops(dir.path(), &clock, &stop).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let job = cut_over(&jobs).await;
    over(&jobs, job.id, JobState::Succeeded).await;
    quiet(&jobs).await;
    stop.set();
    let end = jobs
        .finalize_migration("moved", FinalizeMigration::default(), by())
        .await
        .unwrap();
    stop.reached().await;
    stop.fail();
    over(&jobs, end.id, JobState::Succeeded).await;
    assert_eq!(is(&jobs).await.state, MigratingState::Finalized);
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM copy_snapshots")
        .fetch_one(jobs.world().db.read())
        .await
        .unwrap();
    assert_eq!(left, 0);
    clean_up(&jobs).await;
}
