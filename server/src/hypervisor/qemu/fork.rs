//! Forks of a machine that was captured: each maps the memory privately, and loads the rest.

use super::args;
use super::monitor::Seen;
use super::qmp::{self, Qmp, failed};
use super::rundir::RunDir;
use super::{Inner, Machine, Origin};
use crate::hypervisor::{HvError, MachineSpec, Point, RunState};
use qapi::qmp as wire;
use qapi::qmp::{MigrationCapability, MigrationStatus};
use shared::VmId;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tokio::time::timeout;

pub(super) const OP: &str = "fork";

/// The file of a memory, as long as that. Whoever comes first makes it: what takes the memory, or a fork that waits for it.
pub(super) fn memory_file(path: &Path, memory_mib: u32) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.set_len(u64::from(memory_mib) << 20)?;
    Ok(file)
}

impl Inner {
    /// Starts the process of a fork. It loads its point if that is whole, and stands still.
    pub(super) async fn await_point(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        self.waiting(spec, point).await.map(drop)
    }

    async fn waiting(&self, spec: &MachineSpec, point: &Point) -> Result<Arc<Machine>, HvError> {
        let slot = self.slot(spec.id);
        let mut held = slot.lock().await;
        let machine = match self.find(&mut held, spec.id).await? {
            Some(machine) => machine,
            None => {
                if !point.state.exists() {
                    // Mapped as it is now, and seen as it will be: what is mapped privately and never written shows the file.
                    memory_file(&point.memory, spec.memory_mib)
                        .map_err(HvError::io("make", &point.memory))?;
                }
                let dir = RunDir::new(&self.run, spec.id);
                // Nobody is told of it before it runs.
                let told = broadcast::Sender::new(16);
                let machine = self.launch(spec, &dir, Origin::Fork(point), told).await?;
                held.insert(machine).clone()
            }
        };
        let stands = async {
            asked(&machine, spec).await?;
            match point.state.exists() {
                true => load(&machine, point).await,
                false => Ok(()),
            }
        };
        if let Err(e) = stands.await {
            machine.monitor.seen.killed.store(true, Ordering::Relaxed);
            let ended = machine.process.kill().await;
            ended.map_err(HvError::io("end the process of", machine.dir.path()))?;
            return Err(match (e, machine.dir.last_words()) {
                (e, log) if log.is_empty() => e,
                // The connection is lost because it has ended; it says why.
                (_, log) => HvError::Start { vm: spec.id, log },
            });
        }
        Ok(machine)
    }

    /// Has a process wait for a fork that nobody has asked for.
    pub(super) async fn keep_ready(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let slot = self.slot(spec.id);
        let mut held = slot.lock().await;
        if self.find(&mut held, spec.id).await?.is_some() {
            return Ok(());
        }
        let dir = RunDir::new(&self.run, spec.id);
        let told = broadcast::Sender::new(16);
        let machine = self.launch(spec, &dir, Origin::Unasked(point), told).await?;
        let vm = spec.id;
        // Its own are not there yet.
        let nodes = args::nodes(spec)?
            .into_iter()
            .filter(|node| node.frozen)
            .collect();
        let ask = move |q: Arc<Qmp>| async move { qmp::add_nodes(&q, vm, nodes).await };
        held.insert(machine).monitor.ask(OP, ask).await
    }

    /// Ends processes that nobody has asked for; see [`Self::keep_ready`].
    pub(super) async fn end_unasked(&self, known: &HashSet<VmId>) -> Result<(), HvError> {
        let failed = |e| HvError::io("read", &self.run)(e);
        for entry in std::fs::read_dir(&self.run).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(vm) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !known.contains(&vm) && RunDir::new(&self.run, vm).unasked().exists() {
                self.kill(vm).await?;
                self.forget(vm).await?;
            }
        }
        Ok(())
    }

    /// Starts a machine where the point stands still.
    pub(super) async fn fork(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        if !point.state.exists() {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            return Err(HvError::io("open", &point.state)(missing));
        }
        let machine = self.waiting(spec, point).await?;
        begin(&machine, point).await?;
        machine.monitor.seen.tell(self.events.clone());
        // The agent had its port open already: nothing tells of that. Nobody has to wait for it.
        tokio::spawn(async move {
            let (vm, seen) = (machine.vm, machine.monitor.seen.clone());
            let look = move |q: Arc<Qmp>| async move {
                let (_, agent) = qmp::state(&q, vm).await?;
                seen.agent.send_replace(agent);
                Ok(())
            };
            if let Err(e) = machine.monitor.ask(OP, look).await {
                tracing::debug!(%vm, error = %e, "look at a fork");
            }
        });
        Ok(())
    }

    /// Waits for a capture that is under way, and removes the files of its point.
    pub(super) async fn drop_point(&self, point: &Point) -> Result<(), HvError> {
        let id = VmId(point.id);
        let slot = self.slot(id);
        let _held = slot.lock().await;
        for path in [&point.state, &crate::disks::part(&point.state), &point.memory] {
            remove(path)?;
        }
        self.machines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&id);
        Ok(())
    }
}

pub(super) async fn allow(q: &Qmp, vm: VmId, all: &[MigrationCapability]) -> Result<(), HvError> {
    let allowed = all.iter().map(|&capability| wire::MigrationCapabilityStatus {
        capability,
        state: true,
    });
    let set = wire::migrate_set_capabilities {
        capabilities: allowed.collect(),
    };
    q.execute(set).await.map_err(failed(OP, vm)).map(drop)
}

/// Waits until a migration is that far; an error when it ends before.
pub(super) async fn until(seen: &Seen, vm: VmId, wanted: &[MigrationStatus]) -> Result<(), HvError> {
    let over = [
        MigrationStatus::completed,
        MigrationStatus::failed,
        MigrationStatus::cancelled,
    ];
    let mut status = seen.migration.subscribe();
    let there = status.wait_for(|s| s.is_some_and(|s| wanted.contains(&s) || over.contains(&s)));
    match timeout(super::CONNECT, there).await {
        Ok(Ok(s)) if s.is_some_and(|s| wanted.contains(&s)) => Ok(()),
        Ok(Ok(s)) => Err(HvError::Refused {
            op: OP,
            vm,
            why: format!("its migration has ended as {:?}", *s),
        }),
        _ => Err(HvError::TimedOut {
            op: OP,
            vm,
            seconds: super::CONNECT.as_secs(),
        }),
    }
}

/// Has a process that waited for nobody's fork wait for this one.
async fn asked(machine: &Machine, spec: &MachineSpec) -> Result<(), HvError> {
    let (vm, mark, told) = (machine.vm, machine.dir.unasked(), machine.dir.told());
    if !mark.exists() {
        return Ok(());
    }
    std::fs::write(&told, args::told(spec)?).map_err(HvError::io("write", &told))?;
    let nodes = args::nodes(spec)?;
    let ask = move |q: Arc<Qmp>| async move {
        qmp::add_nodes(&q, vm, nodes).await?;
        qmp::make_machine(&q, vm).await
    };
    machine.monitor.ask(OP, ask).await?;
    remove(&mark)
}

/// Has a fork load its state. One that has done so is left as it is.
async fn load(machine: &Machine, point: &Point) -> Result<(), HvError> {
    let vm = machine.vm;
    let seen = machine.monitor.seen.clone();
    let (socket, state) = (machine.dir.path().join("in"), point.state.clone());
    let ask = move |q: Arc<Qmp>| async move {
        let now = q.execute(wire::query_status {}).await;
        if now.map_err(failed(OP, vm))?.status != wire::RunState::inmigrate {
            return Ok(());
        }
        allow(&q, vm, &[MigrationCapability::events]).await?;
        let load = wire::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(format!("unix:{}", socket.display())),
        };
        q.execute(load).await.map_err(failed(OP, vm))?;
        let sent = async {
            let bytes = tokio::fs::read(&state).await?;
            let mut stream = UnixStream::connect(&socket).await?;
            stream.write_all(&bytes).await
        };
        sent.await.map_err(HvError::io("load", &state))?;
        until(&seen, vm, &[MigrationStatus::completed]).await?;
        Ok(())
    };
    machine.monitor.ask(OP, ask).await
}

/// Lets a fork that has loaded its state run, and waits until it does.
async fn begin(machine: &Machine, point: &Point) -> Result<(), HvError> {
    // An earlier try had it run.
    if *machine.monitor.seen.state.borrow() == RunState::Running {
        return Ok(());
    }
    let vm = machine.vm;
    let old = point.user_networks;
    let ask = move |q: Arc<Qmp>| async move {
        for n in 0..old {
            qmp::remove_netdev(&q, vm, args::old_network(n)).await?;
        }
        let running = q.execute(wire::cont {}).await.map_err(failed(OP, vm));
        running.map(drop)
    };
    machine.monitor.ask(OP, ask).await?;
    let mut state = machine.monitor.seen.state.subscribe();
    let there = state.wait_for(|s| matches!(s, RunState::Running | RunState::Stopped));
    match timeout(super::CONNECT, there).await {
        Ok(Ok(s)) if *s == RunState::Running => Ok(()),
        Ok(_) => Err(HvError::Start {
            vm,
            log: machine.dir.last_words(),
        }),
        Err(_) => Err(HvError::TimedOut {
            op: OP,
            vm,
            seconds: super::CONNECT.as_secs(),
        }),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), HvError> {
    let gone = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match gone {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(HvError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
