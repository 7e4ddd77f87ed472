//! Random sequences of what can be done to machines and their snapshots, on real chains and real QEMUs: each disk and each
//! snapshot always reads as a model in memory says.

use crate::support::counting::{QEMU, long_run, succeeded};
use crate::support::{self, by, clean_up, engine};
use crate::{blank, chain, cloned, deleted, monitor, powered, reverted, taken, tool};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use server::db;
use server::hypervisor::RunState;
use server::jobs::Jobs;
use shared::VmId;
use shared::snapshot::{RevertSnapshot, Snapshot};
use shared::vm::PowerAction;
use std::path::Path;

/// Mebibytes that are looked at.
const BLOCKS: usize = 6;
/// Most machines at once.
const MACHINES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Write(usize, usize, u8),
    Snapshot(usize),
    /// With memory, if it runs.
    SnapshotMemory(usize),
    DeleteSnapshot(usize, usize),
    Revert(usize, usize, bool),
    Clone(usize, usize),
    Delete(usize),
    Stop(usize),
    Start(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (m, n) = (0..MACHINES, 0..8usize);
    prop_oneof![
        6 => (m.clone(), 0..BLOCKS, 1..=250u8).prop_map(|(m, at, byte)| Op::Write(m, at, byte)),
        4 => m.clone().prop_map(Op::Snapshot),
        1 => m.clone().prop_map(Op::SnapshotMemory),
        3 => (m.clone(), n.clone()).prop_map(|(m, n)| Op::DeleteSnapshot(m, n)),
        2 => (m.clone(), n.clone(), any::<bool>()).prop_map(|(m, n, keep)| Op::Revert(m, n, keep)),
        2 => (m.clone(), n).prop_map(|(m, n)| Op::Clone(m, n)),
        1 => m.clone().prop_map(Op::Delete),
        2 => m.clone().prop_map(Op::Stop),
        2 => m.prop_map(Op::Start),
    ]
}

type Data = [u8; BLOCKS];

struct Machine {
    id: VmId,
    data: Data,
    snapshots: Vec<(Snapshot, Data)>,
}

struct Model<'a> {
    jobs: &'a Jobs,
    dir: &'a Path,
    machines: Vec<Machine>,
    made: usize,
}

impl Model<'_> {
    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }

    async fn runs(&self, at: usize) -> bool {
        self.jobs.world().hypervisor.state(self.machines[at].id).await != RunState::Stopped
    }

    async fn apply(&mut self, op: Op) {
        let count = self.machines.len();
        match op {
            Op::Write(m, block, byte) => {
                let at = m % count;
                let machine = &mut self.machines[at];
                machine.data[block] = byte;
                let (id, command) = (machine.id, format!("write -P {byte} {block}M 1M"));
                if self.runs(at).await {
                    monitor::on_disk(self.dir, id, &command);
                } else {
                    let file = chain(self.jobs, id).await.pop().unwrap();
                    tool(
                        "qemu-io",
                        &["-f", "qcow2", "-c", &command, file.to_str().unwrap()],
                    );
                }
            }
            Op::Snapshot(m) | Op::SnapshotMemory(m) => {
                let at = m % count;
                let memory = matches!(op, Op::SnapshotMemory(_)) && self.runs(at).await;
                let name = self.name("s");
                let machine = &mut self.machines[at];
                let snapshot = taken(self.jobs, machine.id, &name, memory).await;
                machine.snapshots.push((snapshot, machine.data));
            }
            Op::DeleteSnapshot(m, n) => {
                let machine = &mut self.machines[m % count];
                if !machine.snapshots.is_empty() {
                    let n = n % machine.snapshots.len();
                    let (snapshot, _) = machine.snapshots.remove(n);
                    deleted(self.jobs, machine.id, &snapshot).await;
                }
            }
            Op::Revert(m, n, keep_current) => {
                let at = m % count;
                if self.machines[at].snapshots.is_empty() {
                    return;
                }
                let name = keep_current.then(|| self.name("k"));
                let machine = &mut self.machines[at];
                let n = n % machine.snapshots.len();
                let (snapshot, data) = machine.snapshots[n].clone();
                let request = RevertSnapshot {
                    keep_current,
                    name: name.as_ref().map(|name| name.parse().unwrap()),
                    ..RevertSnapshot::default()
                };
                reverted(self.jobs, machine.id, &snapshot, request).await;
                if let Some(name) = name {
                    let kept = crate::found(self.jobs, machine.id, &name).await;
                    machine.snapshots.push((kept, machine.data));
                }
                machine.data = data;
            }
            Op::Clone(m, n) => {
                let at = m % count;
                if count >= MACHINES || self.machines[at].snapshots.is_empty() {
                    return;
                }
                let name = self.name("c");
                let machine = &self.machines[at];
                let (snapshot, data) = &machine.snapshots[n % machine.snapshots.len()];
                let id = cloned(self.jobs, machine.id, snapshot, &name).await;
                let data = *data;
                self.machines.push(Machine {
                    id,
                    data,
                    snapshots: Vec::new(),
                });
            }
            Op::Delete(m) => {
                let at = m % count;
                if count > 1 {
                    self.stop(at).await;
                    let machine = self.machines.remove(at);
                    let job = self.jobs.delete_vm(machine.id, by()).await.unwrap();
                    succeeded(self.jobs, job.id).await;
                }
            }
            Op::Stop(m) => self.stop(m % count).await,
            Op::Start(m) => {
                if !self.runs(m % count).await {
                    powered(self.jobs, self.machines[m % count].id, PowerAction::Start).await;
                }
            }
        }
    }

    async fn stop(&self, at: usize) {
        if self.runs(at).await {
            powered(self.jobs, self.machines[at].id, PowerAction::PowerOff).await;
        }
    }

    async fn check(&self) {
        for (at, machine) in self.machines.iter().enumerate() {
            let files = chain(self.jobs, machine.id).await;
            if self.runs(at).await {
                // What QEMU has in its memory of the tables goes to the file.
                monitor::on_disk(self.dir, machine.id, "flush");
                let now: Vec<_> = files.iter().map(|f| f.to_str().unwrap().to_owned()).collect();
                assert_eq!(
                    monitor::chain(self.dir, machine.id),
                    now,
                    "what QEMU reads through"
                );
            }
            reads(files.last().unwrap(), &machine.data);
            for (snapshot, data) in &machine.snapshots {
                let layers = db::snapshots::layers(&self.jobs.world().db, snapshot.id).await;
                reads(&self.jobs.world().layer_file(layers.unwrap()[0]).path, data);
            }
        }
    }
}

/// A layer shows these bytes, through the backing files that its own header names.
fn reads(file: &Path, data: &Data) {
    let commands: Vec<_> = data
        .iter()
        .enumerate()
        .map(|(at, byte)| format!("read -P {byte} {at}M 1M"))
        .collect();
    let mut arguments = vec!["-U", "-r", "-f", "qcow2"];
    for command in &commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(file.to_str().unwrap());
    let said = tool("qemu-io", &arguments);
    assert!(
        !said.contains("verification failed"),
        "{file:?} is not {data:?}: {said}"
    );
}

async fn case(ops: Vec<Op>) {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    let first = blank(&jobs, "first", false).await;
    let mut model = Model {
        jobs: &jobs,
        dir: dir.path(),
        machines: vec![Machine {
            id: first,
            data: [0; BLOCKS],
            snapshots: Vec::new(),
        }],
        made: 0,
    };
    for op in ops {
        eprintln!("{op:?}");
        model.apply(op).await;
        model.check().await;
    }
    support::slate_without_layers(&jobs).await;
    clean_up(&jobs).await;
}

#[test]
fn every_disk_and_every_snapshot_always_reads_as_a_model_says() {
    let config = Config {
        cases: long_run(64, 4) as u32,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ops = prop::collection::vec(op(), 20..long_run(80, 40));
    let run = TestRunner::new(config).run(&ops, |ops| {
        runtime.block_on(case(ops));
        Ok(())
    });
    run.unwrap();
}
