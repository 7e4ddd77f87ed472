//! Machines that are carried over.

use super::{PATIENCE, target};
use server::db;
use server::inventory::migrations as inventory;
use server::jobs::Jobs;
use shared::migrate::{
    CreateMigratingVm, CreateSource, CyclePolicy, LocalSource, MigratingState, MigratingVm, TargetDefaults,
};
use shared::{CopyId, MigratingVmId};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vault::CancellationToken;

pub fn carry(name: &str, vm: &str) -> CreateMigratingVm {
    CreateMigratingVm {
        name: name.parse().unwrap(),
        source: "here".into(),
        source_vm: vm.into(),
        target: "vault".into(),
        target_defaults: TargetDefaults::default(),
        policy: CyclePolicy::default(),
        group: None,
        wave: 1,
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
    within(jobs, PATIENCE, wanted).await
}

/// As [`when`], for what may take so long.
pub async fn within(jobs: &Jobs, patience: Duration, wanted: impl Fn(&MigratingVm) -> bool) -> MigratingVm {
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
    match tokio::time::timeout(patience, wait).await {
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

/// What of a disk is in a vault, by where it begins.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<u64, Vec<u8>>>);

impl vault::Sink for Kept {
    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap().insert(offset, bytes.to_vec());
        Ok(())
    }
}

/// Brings the first disk of a copy to a raw file.
pub async fn brought(jobs: &Jobs, id: CopyId, file: &Path) {
    let world = jobs.world();
    let copy = db::copies::by_id(&world.db, id).await.unwrap().unwrap();
    let opened = world.copies.open(copy.target).await.unwrap();
    let there = opened.vault.copy(id.0).await.unwrap();
    let kept = Arc::new(Kept::default());
    let reader = opened.vault.reader().await.unwrap();
    let cancel = CancellationToken::new();
    let restored = reader.restore(&there.disks[0], kept.clone(), &|_| (), &cancel);
    restored.await.unwrap();
    let disk = std::fs::File::create(file).unwrap();
    disk.set_len(there.disks[0].bytes).unwrap();
    for (at, bytes) in kept.0.lock().unwrap().iter() {
        disk.write_all_at(bytes, *at).unwrap();
    }
}

/// What was uploaded has every disk of its snapshot, byte for byte, and nothing else; answers how big they are.
pub async fn is_as_its_snapshot(jobs: &Jobs, id: CopyId) -> Vec<u64> {
    let world = jobs.world();
    let copy = db::copies::by_id(&world.db, id).await.unwrap().unwrap();
    let opened = world.copies.open(copy.target).await.unwrap();
    let there = opened.vault.copy(id.0).await.unwrap();
    let reader = opened.vault.reader().await.unwrap();
    let disks = db::snapshots::disks_of(&world.db, copy.snapshot).await.unwrap();
    assert_eq!(there.disks.len(), disks.len(), "{there:#?}");
    for disk in &disks {
        let chain = db::layers::chain_of(&world.db, disk.layer).await.unwrap();
        let files: Vec<_> = chain.iter().map(|layer| world.layer_file(layer.id)).collect();
        let frozen = world.disks.frozen(&files, None).await.unwrap().source;
        let name = server::copies::about::disk_name(disk.number);
        let uploaded = there.disks.iter().find(|d| d.name == name).unwrap();
        assert_eq!(uploaded.bytes, frozen.bytes());
        let kept = Arc::new(Kept::default());
        reader
            .restore(uploaded, kept.clone(), &|_| (), &CancellationToken::new())
            .await
            .unwrap();
        let kept = kept.0.lock().unwrap();
        for (at, bytes) in kept.iter() {
            let mut has = vec![0; bytes.len()];
            frozen.read(*at, &mut has).unwrap();
            assert!(*bytes == has, "{} at {at} of {name} of {id}", bytes.len());
        }
        let mut at = 0;
        let mut written = 0;
        while let Some(range) = frozen.data(at, frozen.bytes()).unwrap() {
            let mut has = vec![0; (range.end - range.start) as usize];
            frozen.read(range.start, &mut has).unwrap();
            for (n, byte) in has.iter().enumerate().filter(|(_, byte)| **byte != 0) {
                let place = range.start + n as u64;
                let under = kept.range(..=place).next_back();
                let there = under.is_some_and(|(at, bytes)| place < at + bytes.len() as u64);
                assert!(there, "{byte} at {place} of {name} of {id} was not uploaded");
                written += 1;
            }
            at = range.end;
        }
        assert!(written > 0, "{name} of {id} has nothing at all");
    }
    disks.iter().map(|disk| disk.virtual_bytes).collect()
}

/// The numbers of its cycles, in order, whatever became of them.
pub async fn numbers(jobs: &Jobs, vm: MigratingVmId) -> Vec<u64> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT json_extract(spec, '$.copySnapshot.migration.number') FROM jobs WHERE migration = $1 AND kind = 'COPY_SNAPSHOT'
         ORDER BY 1",
    )
    .bind(vm.to_string())
    .fetch_all(jobs.world().db.read())
    .await
    .unwrap();
    rows.into_iter().map(|n| n as u64).collect()
}
