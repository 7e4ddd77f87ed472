//! Whose turn it is: first come first served for each machine, round robin between machines, within limits.
//! Pure: no I/O, no clock.

use crate::db::locks::LockMode;
use shared::{JobId, VmId};
use std::collections::{HashMap, VecDeque};

/// A job that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The job.
    pub job: JobId,
    /// The machine it is about; none for jobs that make one from nothing.
    pub vm: Option<VmId>,
    /// How it must hold that machine.
    pub mode: LockMode,
}

/// How many may run at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// On this host.
    pub per_host: usize,
    /// For one machine.
    pub per_vm: usize,
}

/// The queue, and what runs and is held.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    waiting: HashMap<Option<VmId>, VecDeque<Entry>>,
    /// Machines with somebody waiting; the first has waited longest since its last turn.
    turns: VecDeque<Option<VmId>>,
    running: HashMap<JobId, Option<VmId>>,
    held: HashMap<VmId, Vec<(JobId, LockMode)>>,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            running: HashMap::new(),
            held: HashMap::new(),
        }
    }

    /// Lets a job wait its turn.
    pub fn push(&mut self, entry: Entry) {
        let line = self.waiting.entry(entry.vm).or_default();
        if line.is_empty() {
            self.turns.push_back(entry.vm);
        }
        line.push_back(entry);
    }

    /// Notes that a job holds a machine: one that it has just made, or from before a restart.
    pub fn hold(&mut self, vm: VmId, job: JobId, mode: LockMode) {
        let held = self.held.entry(vm).or_default();
        if !held.iter().any(|(j, _)| *j == job) {
            held.push((job, mode));
        }
    }

    /// Has a job hold one more machine, if nobody is in the way; answers whether it does.
    pub fn try_hold(&mut self, vm: VmId, job: JobId, mode: LockMode) -> bool {
        let vm_entry = Entry {
            job,
            vm: Some(vm),
            mode,
        };
        let free = self.is_free(&vm_entry);
        if free {
            self.hold(vm, job, mode);
        }
        free
    }

    /// A job goes on sharing what it held to change it.
    pub fn share(&mut self, vm: VmId, job: JobId) {
        for (holder, mode) in self.held.get_mut(&vm).into_iter().flatten() {
            if *holder == job {
                *mode = LockMode::Shared;
            }
        }
    }

    fn held_as(&self, vm: Option<VmId>, job: JobId) -> Option<LockMode> {
        let mut held = self.held.get(&vm?)?.iter();
        held.find(|(holder, _)| *holder == job).map(|(_, mode)| *mode)
    }

    fn is_free(&self, entry: &Entry) -> bool {
        let Some(vm) = entry.vm else { return true };
        let mut others = self
            .held
            .get(&vm)
            .into_iter()
            .flatten()
            .filter(|(job, _)| *job != entry.job);
        others.all(|(_, mode)| entry.mode.beside(*mode))
    }

    /// The job whose turn it is, if one may run now; it holds its machine from here.
    /// The first in a machine's line is never overtaken by the ones behind it.
    pub fn take_next(&mut self) -> Option<Entry> {
        if self.running.len() >= self.limits.per_host {
            return None;
        }
        for at in 0..self.turns.len() {
            let vm = self.turns[at];
            let mut first = self.waiting.get(&vm).and_then(VecDeque::front)?.clone();
            // One that goes on after a restart waits for no more than it holds: what it changed it may share by now.
            first.mode = self.held_as(vm, first.job).unwrap_or(first.mode);
            let busy = self.running.values().filter(|v| **v == vm).count();
            if !self.is_free(&first) || (vm.is_some() && busy >= self.limits.per_vm) {
                continue;
            }
            self.turns.remove(at);
            self.take(&first, vm);
            return Some(first);
        }
        None
    }

    fn take(&mut self, entry: &Entry, vm: Option<VmId>) {
        if let Some(line) = self.waiting.get_mut(&vm) {
            line.pop_front();
            if line.is_empty() {
                self.waiting.remove(&vm);
            } else {
                self.turns.push_back(vm);
            }
        }
        self.running.insert(entry.job, vm);
        if let Some(vm) = vm {
            self.hold(vm, entry.job, entry.mode);
        }
    }

    /// Takes a job that still waits out of the line; answers whether it was there.
    pub fn remove(&mut self, job: JobId) -> bool {
        let Some((&vm, line)) = self
            .waiting
            .iter_mut()
            .find(|(_, line)| line.iter().any(|e| e.job == job))
        else {
            return false;
        };
        line.retain(|e| e.job != job);
        if line.is_empty() {
            self.waiting.remove(&vm);
            self.turns.retain(|t| *t != vm);
        }
        true
    }

    /// A job has ended: what it held is free.
    pub fn done(&mut self, job: JobId) {
        self.running.remove(&job);
        self.held.retain(|_, held| {
            held.retain(|(j, _)| *j != job);
            !held.is_empty()
        });
    }

    /// A job that runs stands still: another may run meanwhile. It keeps what it holds.
    pub fn step_aside(&mut self, job: JobId) {
        self.running.remove(&job);
    }

    /// A job that stood still goes on, however many run.
    pub fn step_in(&mut self, job: JobId, vm: Option<VmId>) {
        self.running.insert(job, vm);
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use uuid::Uuid;

    fn vm(n: u128) -> Option<VmId> {
        Some(VmId(Uuid::from_u128(n)))
    }

    fn entry(job: u128, vm: Option<VmId>, mode: LockMode) -> Entry {
        Entry {
            job: JobId(Uuid::from_u128(job)),
            vm,
            mode,
        }
    }

    fn queue(per_host: usize, per_vm: usize) -> Queue {
        Queue::new(Limits { per_host, per_vm })
    }

    #[test]
    fn machines_take_turns() {
        let mut q = queue(1, 1);
        for n in 0..3 {
            q.push(entry(n, vm(1), LockMode::Shared));
        }
        q.push(entry(10, vm(2), LockMode::Shared));
        let mut order = Vec::new();
        while let Some(e) = q.take_next() {
            order.push(e.job.0.as_u128());
            q.done(e.job);
        }
        assert_eq!(
            order,
            [0, 10, 1, 2],
            "the second machine does not wait for all of the first's"
        );
    }

    #[test]
    fn an_exclusive_job_waits_for_those_that_share_and_is_not_overtaken() {
        let mut q = queue(9, 9);
        q.push(entry(1, vm(1), LockMode::Shared));
        q.push(entry(2, vm(1), LockMode::Exclusive));
        q.push(entry(3, vm(1), LockMode::Shared));
        let first = q.take_next().unwrap();
        assert_eq!(q.take_next(), None);
        q.done(first.job);
        let second = q.take_next().unwrap();
        assert_eq!(second.job.0.as_u128(), 2);
        assert_eq!(q.take_next(), None);
        q.done(second.job);
        assert_eq!(q.take_next().unwrap().job.0.as_u128(), 3);
    }

    #[test]
    fn a_machine_is_changed_beside_those_that_share_and_by_one_at_a_time() {
        let mut q = queue(9, 9);
        q.push(entry(1, vm(1), LockMode::Shared));
        q.push(entry(2, vm(1), LockMode::Changing));
        q.push(entry(3, vm(1), LockMode::Changing));
        q.push(entry(4, vm(1), LockMode::Exclusive));
        let shares = q.take_next().unwrap();
        let changes = q.take_next().unwrap();
        assert_eq!(changes.job.0.as_u128(), 2);
        assert_eq!(q.take_next(), None, "one is at work on it");
        q.share(vm(1).unwrap(), changes.job);
        assert_eq!(
            q.take_next().unwrap().job.0.as_u128(),
            3,
            "it only reads from here on"
        );
        for n in [3, 2] {
            q.done(JobId(Uuid::from_u128(n)));
            assert_eq!(q.take_next(), None, "somebody still needs it");
        }
        q.done(shares.job);
        assert_eq!(q.take_next().unwrap().job.0.as_u128(), 4);
    }

    #[test]
    fn after_a_restart_one_that_shares_what_it_changed_goes_on_beside_one_that_changes_it() {
        let mut q = queue(9, 9);
        let (shares, changes) = (
            entry(1, vm(1), LockMode::Changing),
            entry(2, vm(1), LockMode::Changing),
        );
        q.hold(vm(1).unwrap(), shares.job, LockMode::Shared);
        q.hold(vm(1).unwrap(), changes.job, LockMode::Changing);
        q.push(shares.clone());
        q.push(changes.clone());
        assert_eq!(q.take_next().unwrap().job, shares.job);
        assert_eq!(q.take_next().unwrap().job, changes.job);
    }

    #[test]
    fn a_machine_in_the_making_is_held_by_its_maker() {
        let mut q = queue(9, 9);
        q.push(entry(1, None, LockMode::Exclusive));
        let maker = q.take_next().unwrap();
        q.hold(vm(5).unwrap(), maker.job, LockMode::Exclusive);
        q.push(entry(2, vm(5), LockMode::Exclusive));
        assert_eq!(q.take_next(), None);
        q.done(maker.job);
        assert!(q.take_next().is_some());
    }

    proptest! {
        #[test]
        fn every_job_has_its_turn_and_no_lock_or_limit_is_broken(
            jobs in prop::collection::vec((0u128..4, 0usize..3), 1..40),
            ends in prop::collection::vec(0usize..8, 0..40),
        ) {
            let mut q = queue(5, 3);
            let mut all = HashMap::new();
            for (n, (machine, mode)) in jobs.iter().enumerate() {
                let mode = [LockMode::Shared, LockMode::Changing, LockMode::Exclusive][*mode];
                let e = entry(n as u128, vm(*machine).filter(|_| *machine > 0), mode);
                all.insert(e.job, e.clone());
                q.push(e);
            }
            let mut running: Vec<JobId> = Vec::new();
            let mut seen = HashSet::new();
            let mut ends = ends.into_iter();
            loop {
                while let Some(e) = q.take_next() {
                    prop_assert!(seen.insert(e.job), "no job runs twice");
                    running.push(e.job);
                    prop_assert!(running.len() <= 5);
                    for machine in 1..4 {
                        let here: Vec<_> = running.iter().map(|j| &all[j]).filter(|e| e.vm == vm(machine)).collect();
                        prop_assert!(here.len() <= 3);
                        let of = |mode| here.iter().filter(|e| e.mode == mode).count();
                        prop_assert!(of(LockMode::Changing) <= 1);
                        prop_assert!(here.len() <= 1 || of(LockMode::Exclusive) == 0);
                    }
                }
                if running.is_empty() {
                    break;
                }
                let ended = running.remove(ends.next().unwrap_or(0) % running.len());
                q.done(ended);
            }
            prop_assert_eq!(seen.len(), all.len());
        }
    }
}
