//! Whatever is copied is restored, byte for byte.

use super::support::{Disk, Memory, noise, vault};
use super::{copy, restore};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use vault::Copy;

/// What is done to a set of disks between two copies.
#[derive(Clone, Debug)]
enum Change {
    /// Other bytes: the disk, the place and the length as parts of a thousand, the seed.
    Write(usize, u32, u32, u64),
    /// Zeros.
    Clear(usize, u32, u32),
    /// Another size.
    Resize(usize, usize),
    Add(usize),
    Remove(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..3_usize, 0..1000_u32, 1..300_u32, 0..40_u64).prop_map(|(d, at, n, seed)| Change::Write(d, at, n, seed)),
        2 => (0..3_usize, 0..1000_u32, 1..300_u32).prop_map(|(d, at, n)| Change::Clear(d, at, n)),
        1 => (0..3_usize, 0..3_000_000_usize).prop_map(|(d, size)| Change::Resize(d, size)),
        1 => (0..2_000_000_usize).prop_map(Change::Add),
        1 => (0..3_usize).prop_map(Change::Remove),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// Whether what has changed is told.
    Copy(bool),
    Forget(usize),
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => change().prop_map(Step::Change),
        3 => any::<bool>().prop_map(Step::Copy),
        1 => (0..8_usize).prop_map(Step::Forget),
        1 => Just(Step::Prune),
    ]
}

/// Disks, and what has changed of each since the last copy; `None` where that is not known.
#[derive(Default)]
struct Machine {
    disks: Vec<Vec<u8>>,
    changed: Vec<Option<Vec<Range<u64>>>>,
}

impl Machine {
    fn apply(&mut self, change: Change) {
        let place = |length: usize, at: u32, n: u32| {
            let from = length * at as usize / 1000;
            from..(from + length * n as usize / 1000).min(length)
        };
        match change {
            Change::Write(d, at, n, seed) => {
                let Some(disk) = self.disks.get_mut(d) else { return };
                let range = place(disk.len(), at, n);
                let bytes = noise(seed, range.len());
                disk[range.clone()].copy_from_slice(&bytes);
                self.touched(d, range);
            }
            Change::Clear(d, at, n) => {
                let Some(disk) = self.disks.get_mut(d) else { return };
                let range = place(disk.len(), at, n);
                disk[range.clone()].fill(0);
                self.touched(d, range);
            }
            Change::Resize(d, size) => {
                let Some(disk) = self.disks.get_mut(d) else { return };
                let was = disk.len();
                disk.resize(size, 0);
                if size > was {
                    self.touched(d, was..size);
                }
            }
            Change::Add(size) if self.disks.len() < 3 => {
                self.disks.push(noise(size as u64, size));
                self.changed.push(None);
            }
            Change::Remove(d) if d < self.disks.len() => {
                self.disks.remove(d);
                // Disks are told apart by their numbers here.
                self.changed.truncate(d);
                self.changed.resize(self.disks.len(), None);
            }
            Change::Add(_) | Change::Remove(_) => {}
        }
    }

    fn touched(&mut self, d: usize, range: Range<usize>) {
        if let Some(changed) = &mut self.changed[d] {
            changed.push(range.start as u64..range.end as u64);
        }
    }

    fn now(&self) -> Vec<Disk> {
        self.disks
            .iter()
            .map(|disk| Disk(Arc::new(disk.clone())))
            .collect()
    }

    /// Ascending, apart; all of the disk where it is not known.
    fn ranges(&self) -> Vec<Vec<Range<u64>>> {
        let all = self.changed.iter().zip(&self.disks);
        all.map(|(changed, disk)| {
            let mut ranges = changed.clone().unwrap_or_else(|| vec![0..disk.len() as u64]);
            ranges.sort_by_key(|r| r.start);
            let mut apart: Vec<Range<u64>> = Vec::new();
            for range in ranges {
                match apart.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => apart.push(range),
                }
            }
            apart
        })
        .collect()
    }
}

async fn run(steps: Vec<Step>) {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut machine = Machine::default();
    machine.apply(Change::Add(700_000));
    machine.apply(Change::Add(5_000_000));
    let mut copies: Vec<(Copy, Vec<Disk>)> = Vec::new();
    let mut last: Option<Copy> = None;
    let mut now = 1;
    for step in steps {
        now += 1;
        match step {
            Step::Change(change) => machine.apply(change),
            Step::Copy(told) => {
                let (disks, ranges) = (machine.now(), machine.ranges());
                let parent = last.as_ref().filter(|_| told).map(|copy| (copy, &ranges[..]));
                let made = copy(&vault, &disks, parent).await.unwrap();
                machine.changed = vec![Some(Vec::new()); disks.len()];
                last = Some(made.clone());
                copies.push((made, disks));
            }
            Step::Forget(n) if !copies.is_empty() => {
                let (gone, _) = copies.remove(n % copies.len());
                vault.forget(gone.id).await.unwrap();
            }
            Step::Forget(_) => {}
            Step::Prune => {
                let how = vault::prune::Pruning {
                    stay: std::time::Duration::ZERO,
                    ..vault::prune::Pruning::at(now)
                };
                vault::prune::run(&vault, how).await.unwrap();
            }
        }
        for (copy, disks) in &copies {
            assert!(restore(&vault, copy).await.unwrap() == *disks, "{copy:?}");
        }
    }
    let found = vault::verify::run(&vault, |_| true, &|_, _| (), &vault::CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((found.damaged, found.hurt), (vec![], vec![]));
    assert_eq!(found.copies, copies.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn copies_read_as_they_were_made(steps in prop::collection::vec(step(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_copy_stores_what_is_new_and_reads_what_has_changed() {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut bytes = noise(3, 8 << 20);
    bytes[1 << 20..3 << 20].fill(0);
    let first = copy(&vault, &[Disk(Arc::new(bytes.clone()))], None)
        .await
        .unwrap();
    assert_eq!(first.moved.read, 6 << 20);
    assert_eq!(first.moved.new, 6 << 20);
    bytes[5 << 20] ^= 1;
    let changed = Disk(Arc::new(bytes));
    let ranges = [vec![5 << 20..(5 << 20) + 1]];
    let second = copy(&vault, std::slice::from_ref(&changed), Some((&first, &ranges)))
        .await
        .unwrap();
    assert_eq!(second.moved.read, 64 << 10);
    assert_eq!(second.moved.new, 64 << 10);
    assert_eq!(second.moved.chunks_kept, 127);
    assert!(second.moved.stored < 80 << 10, "{:?}", second.moved);
    let scanned = copy(&vault, std::slice::from_ref(&changed), None).await.unwrap();
    assert_eq!((scanned.moved.read, scanned.moved.new), (6 << 20, 0));
    assert_eq!(scanned.disks[0].tables, second.disks[0].tables);
    // Each is complete: the first may go.
    vault.forget(first.id).await.unwrap();
    assert_eq!(restore(&vault, &second).await.unwrap(), [changed]);
}
