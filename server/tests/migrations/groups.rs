//! Groups: one action for many, and waves.

use super::*;
use shared::migrate::MigratingVm;
use shared::migrate::groups::{CutOverGroup, GroupAction, GroupResults, GroupVerb};
use shared::migrate::{CreateMigratingVm, CreateSource, LocalSource, PatchMigratingVm};

/// Machines that are carried over, each by a migration that says its wave.
async fn group(jobs: &Jobs, all: &[(&str, &str, u32)]) {
    support::target(jobs, "vault").await;
    let source = CreateSource {
        name: "here".parse().unwrap(),
        local: Some(LocalSource {}),
        disks: None,
        libvirt: None,
    };
    jobs.create_source(source).await.unwrap();
    for (migration, vm, wave) in all {
        machine(jobs, vm).await;
        let request = CreateMigratingVm {
            group: Some("shop".parse().unwrap()),
            wave: *wave,
            ..carry(migration, vm)
        };
        jobs.create_migrating_vm(request).await.unwrap();
        one(jobs, migration, |vm| vm.state == MigratingState::Ready).await;
    }
}

/// Waits until a migration is as wanted.
async fn one(jobs: &Jobs, name: &str, wanted: impl Fn(&MigratingVm) -> bool) -> MigratingVm {
    let mut changes = jobs.world().db.subscribe();
    let wait = async {
        loop {
            let vm = inventory::migrating_vm(jobs.world(), name).await.unwrap();
            if wanted(&vm) {
                return vm;
            }
            drop(changes.recv().await);
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

async fn act(jobs: &Jobs, verb: GroupVerb, wave: Option<u32>) -> GroupResults {
    let action = GroupAction {
        verb,
        wave,
        keep_hours: None,
        keep_copies: false,
    };
    jobs.act_on_group("shop", action, by()).await.unwrap()
}

async fn cut_over(jobs: &Jobs, wave: Option<u32>) -> Job {
    let request = CutOverGroup {
        wave,
        ..CutOverGroup::default()
    };
    let job = jobs.cut_over_group("shop", request, by()).await.unwrap();
    ended(jobs, job.id).await
}

fn refusals(results: &GroupResults) -> Vec<(String, bool)> {
    let one = |r: &shared::migrate::groups::MemberResult| (r.name.to_string(), r.error.is_some());
    results.results.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_wave_by_wave_and_a_wave_that_fails_is_the_last() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    let all = [
        ("first", "db", 1),
        ("second", "cache", 1),
        ("fail-at-final-sync", "app", 2),
        ("last", "web", 3),
    ];
    group(&jobs, &all).await;
    let early = jobs
        .cut_over_group("shop", CutOverGroup::default(), by())
        .await
        .unwrap();
    let early = ended(&jobs, early.id).await;
    let why = early.error.unwrap().message;
    assert!(
        why.contains("nothing of first is uploaded yet") && why.contains("of last"),
        "{why}"
    );

    let started = act(&jobs, GroupVerb::Start, None).await;
    assert!(
        refusals(&started).iter().all(|(_, refused)| !refused),
        "{started:?}"
    );
    for (name, ..) in all {
        one(&jobs, name, |vm| {
            vm.last_copy.is_some() && vm.current_cycle.is_none()
        })
        .await;
    }
    let again = act(&jobs, GroupVerb::Start, Some(2)).await;
    assert_eq!(refusals(&again), [("fail-at-final-sync".to_owned(), true)]);
    let clones = act(&jobs, GroupVerb::Clone, Some(1)).await;
    for clone in clones.results {
        let job = ended(&jobs, clone.job.unwrap()).await;
        assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    }

    let failed = cut_over(&jobs, None).await;
    assert_eq!(failed.state, JobState::Failed);
    let why = failed.error.unwrap().message;
    assert!(
        why.starts_with("wave 2: fail-at-final-sync:") && why.contains("not begun: 1."),
        "{why}"
    );
    for (name, vm, state, source) in [
        ("first", "db", MigratingState::Cutover, VmState::Stopped),
        ("second", "cache", MigratingState::Cutover, VmState::Stopped),
        (
            "fail-at-final-sync",
            "app",
            MigratingState::Active,
            VmState::Running,
        ),
        ("last", "web", MigratingState::Active, VmState::Running),
    ] {
        one(&jobs, name, |vm| vm.state == state).await;
        assert_eq!(state_of(&jobs, vm).await, source, "{vm}");
    }
    let shop = inventory::group(jobs.world(), "shop").await.unwrap();
    assert_eq!((shop.migrating_vms, shop.moved), (4, 2));
    assert_eq!(shop.cutover_job, Some(failed.id));
    let waves: Vec<_> = shop.waves.iter().map(|wave| wave.number).collect();
    assert_eq!(waves, [1, 2, 3]);

    // It goes on with those that are left.
    let patch = PatchMigratingVm {
        name: Some("third".parse().unwrap()),
        ..PatchMigratingVm::default()
    };
    jobs.update_migrating_vm("fail-at-final-sync", patch)
        .await
        .unwrap();
    let done = cut_over(&jobs, None).await;
    assert_eq!(done.state, JobState::Succeeded, "{done:#?}");
    let shop = inventory::group(jobs.world(), "shop").await.unwrap();
    assert_eq!(shop.moved, 4);
    let over = jobs
        .cut_over_group("shop", CutOverGroup::default(), by())
        .await
        .unwrap_err();
    assert_eq!(over.code, Code::FailedPrecondition, "{over}");
    for result in act(&jobs, GroupVerb::Finalize, None).await.results {
        let job = ended(&jobs, result.job.unwrap()).await;
        assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    }
    assert_eq!(
        inventory::group(jobs.world(), "none").await.unwrap_err().code,
        Code::NotFound
    );
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_adapted_is_what_machines_are_made_of() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "web").await;
    let policy = CyclePolicy {
        skip_os_adaptation: Some(false),
        ..CyclePolicy::default()
    };
    migrating::carried(&jobs, "web", policy).await;
    synced(&jobs).await;
    let vm = when(&jobs, |vm| vm.adapted.is_some()).await;
    let adapted = vm.adapted.unwrap();
    assert_eq!(Some(adapted.upload), vm.last_copy);
    let copy = db::copies::by_id(&jobs.world().db, adapted.copy)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(copy.adapted_of, Some(adapted.upload));
    let clone = jobs
        .migration_clone("moved", CreateMigrationClone::default(), by())
        .await
        .unwrap();
    let clone = MigrationClone::of(&ended(&jobs, clone.id).await, Default::default()).unwrap();
    assert_eq!((clone.state, clone.copy), (MoveState::Succeeded, adapted.copy));

    // Uploads that go take along what was adapted of them; what the next copy leans on is none of those.
    for n in 2..=4 {
        jobs.cycle_now("moved").await.unwrap();
        when(&jobs, |vm| {
            vm.cycles == n && vm.current_cycle.is_none() && vm.adapted.map(|a| a.upload) == vm.last_copy
        })
        .await;
    }
    support::quiet(&jobs).await;
    let all = cycles(&jobs).await;
    assert!(
        all.iter().skip(1).all(|cycle| cycle.warnings.is_empty()),
        "{all:#?}"
    );
    let kept = db::copies::adapted(&jobs.world().db, copy.target, copy.vm)
        .await
        .unwrap();
    // That of the upload before the last, too, and none of the first: but for the one that a clone may still read.
    assert!(kept.len() <= 3, "{kept:?}");

    let job = jobs
        .cut_over("moved", CreateCutover::default(), by())
        .await
        .unwrap();
    let job = ended(&jobs, job.id).await;
    let over = CutoverJob::of(&job).unwrap();
    assert_eq!(
        (over.state, over.progress_percent),
        (MoveState::Succeeded, Some(100))
    );
    assert!(over.steps.iter().any(|s| s.name == MoveStepName::AdaptingOs));
    let end = is(&jobs).await;
    assert_eq!(end.adapted.map(|a| Some(a.upload)), Some(end.last_copy));
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_job_cannot_set_is_refused_with_where_it_is_set() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T00:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    carried(&jobs, "web").await;
    synced(&jobs).await;
    let request = CreateMigrationClone {
        target: TargetDefaults {
            hostname: Some("other".into()),
            ..TargetDefaults::default()
        },
        ..CreateMigrationClone::default()
    };
    let refused = jobs.migration_clone("moved", request, by()).await.unwrap_err();
    assert_eq!(refused.field(), Some("target.hostname"), "{refused}");
    for hostname in ["-a", "a..b", "", "a_b"] {
        let patch = PatchMigratingVm {
            target_defaults: Some(TargetDefaults {
                hostname: Some(hostname.into()),
                ..TargetDefaults::default()
            }),
            ..PatchMigratingVm::default()
        };
        let refused = jobs.update_migrating_vm("moved", patch).await.unwrap_err();
        assert_eq!(refused.field(), Some("targetDefaults.hostname"), "{refused}");
    }
    // A machine that is told something has a seed disk.
    let request = CreateMigrationClone {
        target: TargetDefaults {
            name: Some("told".parse().unwrap()),
            metadata: [("tier".to_owned(), "gold".to_owned())].into(),
            ..TargetDefaults::default()
        },
        ..CreateMigrationClone::default()
    };
    let clone = jobs.migration_clone("moved", request, by()).await.unwrap();
    let clone = ended(&jobs, clone.id).await;
    assert_eq!(clone.state, JobState::Succeeded, "{clone:#?}");
    let told = vm_id(&jobs, "told").await;
    assert!(jobs.world().seed_file(told).exists());
    clean_up(&jobs).await;
}
