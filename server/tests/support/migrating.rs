//! Machines that are carried over.

use super::{PATIENCE, target};
use server::inventory::migrations as inventory;
use server::jobs::Jobs;
use shared::migrate::{
    CreateMigratingVm, CreateSource, CyclePolicy, LocalSource, MigratingState, MigratingVm, TargetDefaults,
};

pub fn carry(name: &str, vm: &str) -> CreateMigratingVm {
    CreateMigratingVm {
        name: name.parse().unwrap(),
        source: "here".into(),
        source_vm: vm.into(),
        target: "vault".into(),
        target_defaults: TargetDefaults::default(),
        policy: CyclePolicy::default(),
        group: None,
    }
}

/// A machine that is carried over as `moved`, from a source called `here` to a target called `vault`.
pub async fn carried(jobs: &Jobs, vm: &str, policy: CyclePolicy) {
    target(jobs, "vault").await;
    let source = CreateSource {
        name: "here".parse().unwrap(),
        local: Some(LocalSource {}),
        disks: None,
        libvirt: None,
    };
    jobs.create_source(source).await.unwrap();
    let request = CreateMigratingVm {
        policy,
        ..carry("moved", vm)
    };
    jobs.create_migrating_vm(request).await.unwrap();
    when(jobs, |vm| vm.state == MigratingState::Ready).await;
}

pub async fn is(jobs: &Jobs) -> MigratingVm {
    inventory::migrating_vm(jobs.world(), "moved").await.unwrap()
}

/// Waits until the migration is as wanted.
pub async fn when(jobs: &Jobs, wanted: impl Fn(&MigratingVm) -> bool) -> MigratingVm {
    let mut changes = jobs.world().db.subscribe();
    let wait = async {
        loop {
            let vm = is(jobs).await;
            if wanted(&vm) {
                return vm;
            }
            // Lagging behind is no loss: it is read again.
            drop(changes.recv().await);
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(vm) => vm,
        Err(_) => panic!("it is not as wanted: {:#?}", is(jobs).await),
    }
}

/// The first cycle is done.
pub async fn synced(jobs: &Jobs) -> MigratingVm {
    jobs.start_migration("moved").await.unwrap();
    when(jobs, |vm| {
        vm.state == MigratingState::Active && vm.current_cycle.is_none()
    })
    .await
}
