//! Forking a running machine. A receiving process takes an ordinary live migration into a memory file; in the pause at its
//! end the disks are switched over, then the source goes on. What was received is never run: its devices' state is
//! saved, and forks map its memory privately and load that state.
//!
//! The pause does not grow with the guest's memory: pages travel while the guest runs.

use super::args;
use super::guardian::Guardian;
use super::monitor::{Monitor, Seen};
use super::qmp::{self, Qmp, failed};
use super::rundir::RunDir;
use super::{Inner, Machine, Origin};
use crate::hypervisor::{Captured, DiskSwitch, HvError, MachineSpec, Point, RunState};
use qapi::qmp as wire;
use qapi::qmp::{MigrationCapability, MigrationStatus};
use shared::VmId;
use shared::place::Accelerator;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::time::timeout;

/// How long the guest may stand still for its last pages, in milliseconds, as QEMU estimates it.
const DOWNTIME: u64 = 3;
/// Under TCG what is written is looked for once only, when the guest stands still. QEMU may lose a page otherwise: a
/// processor's thread that the host interrupts between two steps of a store (`notdirty_write`, or the filling of its TLB)
/// undoes the mark that the search has made meanwhile, and what it stores from then on is not noticed until the next search.
const DOWNTIME_TCG: u64 = 0;
/// A guest that stood still for longer than this wrote faster than its memory travels, in microseconds.
const LONG_MICROS: u64 = 100_000;
/// How long a guest may write its memory faster than it can be sent.
const PATIENCE: Duration = Duration::from_secs(4);
/// What a guest that does so is stopped for at most, in milliseconds: its guardian would not wait much longer.
const LONG_DOWNTIME: u64 = 250;
/// How long it may go on writing too much even for that.
const LAST_PATIENCE: Duration = Duration::from_millis(800);
/// How long QEMU may take for what it does by itself.
const SOON: Duration = Duration::from_secs(10);
/// The source stands still while its answer is waited for: asked again after this.
const AGAIN: Duration = Duration::from_micros(200);

const OP: &str = "fork";

impl Inner {
    /// Captures the machine as it is in one moment. A point that is whole is left as it is.
    pub(super) async fn capture(
        &self,
        source: &MachineSpec,
        switch: &[DiskSwitch],
        point: &Point,
    ) -> Result<Captured, HvError> {
        // Whoever drops the point waits for this.
        let mut held = self.slot(VmId(point.id)).lock_owned().await;
        if point.state.exists() {
            return Ok(Captured::default());
        }
        let vm = source.id;
        let machine = {
            let slot = self.slot(vm);
            let mut held = slot.lock().await;
            let found = self.find(&mut held, vm).await?;
            found.ok_or(HvError::NotRunning { op: OP, vm })?
        };
        let watch = machine.dir.watch();
        let guarded = Guardian::start(&self.program, &watch, vm);
        let receive = async {
            match held.take() {
                Some(ready) => Ok(ready),
                None => self.receive(source, point).await,
            }
        };
        let (receiver, guardian) = tokio::join!(receive, guarded);
        let receiver = receiver?;
        let (guardian, captured) = match guardian {
            Ok(guardian) => {
                let captured = self.captured(&machine, &receiver, switch, point).await;
                (Some(guardian), captured)
            }
            // Without one nothing is begun.
            Err(e) => (None, Err(e)),
        };
        let captured = captured.map_err(|e| match e {
            // The source only knows that it went wrong; the other end says why.
            HvError::Refused { op, vm, why } => HvError::Refused {
                op,
                vm,
                why: match receiver.dir.last_words() {
                    words if words.is_empty() => why,
                    words => format!("{why}: {words}"),
                },
            },
            e => e,
        });
        // Nobody has to wait until both have ended but who drops the point.
        tokio::spawn(async move {
            if let Some(guardian) = guardian {
                guardian.dismiss().await;
            }
            // Its memory stays in the file, and it has no disks to write back to.
            let ended = receiver.process.end().await;
            let ended = ended.map_err(HvError::io("end the process of", receiver.dir.path()));
            if let Err(e) = ended.and_then(|_| remove(receiver.dir.path())) {
                tracing::warn!(error = %e, "end what took a machine's memory");
            }
            drop(held);
        });
        captured
    }

    /// Starts the process that will take the machine's memory, so that a capture need not.
    pub(super) async fn ready(&self, source: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let slot = self.slot(VmId(point.id));
        let mut held = slot.lock().await;
        if held.is_none() && !point.state.exists() {
            *held = Some(self.receive(source, point).await?);
        }
        Ok(())
    }

    async fn captured(
        &self,
        machine: &Arc<Machine>,
        receiver: &Machine,
        switch: &[DiskSwitch],
        point: &Point,
    ) -> Result<Captured, HvError> {
        let vm = machine.vm;
        let incoming = receiver.dir.path().join("in");
        let uri = format!("unix:{}", incoming.display());
        let listen = wire::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(uri.clone()),
        };
        let ask = move |q: Arc<Qmp>| async move {
            capabilities(&q, vm, &[(MigrationCapability::events, true)]).await?;
            q.execute(listen).await.map_err(failed(OP, vm))
        };
        receiver.monitor.ask(OP, ask).await?;

        let (seen, switch) = (machine.monitor.seen.clone(), switch.to_vec());
        let downtime = match self.accelerator {
            Accelerator::Tcg => DOWNTIME_TCG,
            Accelerator::Kvm | Accelerator::Sim => DOWNTIME,
        };
        let ask = move |q: Arc<Qmp>| async move {
            let sent = send(&q, &seen, &switch, uri, downtime).await;
            let pause = seen.thawed();
            if sent.is_err() {
                // However it stands: it runs from here on.
                go_on(&q, vm).await;
            }
            let (copied_bytes, forced) = sent?;
            let pause_micros = pause.unwrap_or_default();
            Ok(Captured {
                pause_micros,
                copied_bytes,
                forced: forced || pause_micros > LONG_MICROS,
            })
        };
        let captured = machine.monitor.ask(OP, ask).await?;

        until(&receiver.monitor.seen, vm, &[MigrationStatus::completed]).await?;
        save(&receiver.monitor, &receiver.dir, vm, &point.state).await?;
        Ok(captured)
    }

    /// A process that waits for a machine to come.
    async fn receive(&self, source: &MachineSpec, point: &Point) -> Result<Arc<Machine>, HvError> {
        let id = VmId(point.id);
        let dir = RunDir::new(&self.run, id);
        // An earlier server may have ended in the middle. Forks may wait with the memory's file open: it stays.
        end_receiver(&dir, point).await?;
        remove(&point.state)?;
        // Nobody is told of it: it is no machine of anybody's.
        let told = broadcast::Sender::new(16);
        self.launch(source, &dir, Origin::Receive(point), told).await
    }
}

impl Inner {
    /// Starts the process of a fork; it waits for its point.
    pub(super) async fn await_point(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let slot = self.slot(spec.id);
        let mut held = slot.lock().await;
        if held.is_some() || self.find(&mut held, spec.id).await?.is_some() {
            return Ok(());
        }
        // Mapped as it is now, and seen as it will be: what is mapped privately and never written shows the file.
        let size = u64::from(spec.memory_mib) << 20;
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&point.memory);
        file.and_then(|f| f.set_len(size))
            .map_err(HvError::io("make", &point.memory))?;
        let dir = RunDir::new(&self.run, spec.id);
        // Nobody is told of it before it runs.
        let told = broadcast::Sender::new(16);
        *held = Some(self.launch(spec, &dir, Origin::Fork(point), told).await?);
        Ok(())
    }

    /// Starts a machine where the point stands still.
    pub(super) async fn fork(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let vm = spec.id;
        if !point.state.exists() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(HvError::io("open", &point.state)(missing));
        }
        self.await_point(spec, point).await?;
        let slot = self.slot(vm);
        let mut held = slot.lock().await;
        let machine = self.find(&mut held, vm).await?;
        let machine = machine.ok_or(HvError::NotRunning { op: OP, vm })?;
        let loaded = load(&machine, point).await;
        if loaded.is_err() {
            machine.monitor.seen.killed.store(true, Ordering::Relaxed);
            let ended = machine.process.kill().await;
            ended.map_err(HvError::io("end the process of", machine.dir.path()))?;
        } else {
            machine.monitor.seen.tell(self.events.clone());
        }
        loaded
    }

    /// Ends what is left of a capture, and removes the files of its point.
    pub(super) async fn drop_point(&self, point: &Point) -> Result<(), HvError> {
        let id = VmId(point.id);
        let slot = self.slot(id);
        let mut held = slot.lock().await;
        held.take();
        let dir = RunDir::new(&self.run, id);
        end_receiver(&dir, point).await?;
        for path in [
            dir.path(),
            &point.state,
            &crate::disks::part(&point.state),
            &point.memory,
        ] {
            remove(path)?;
        }
        self.machines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&id);
        Ok(())
    }
}

async fn end_receiver(dir: &RunDir, point: &Point) -> Result<(), HvError> {
    let left = super::Process::find(&dir.record(), &point.id.to_string());
    if let Some(process) = left.map_err(HvError::io("read", &dir.record()))? {
        let ended = process.kill().await;
        ended.map_err(HvError::io("end the process of", dir.path()))?;
    }
    Ok(())
}

/// Sends the running machine; returns how many bytes travelled, and whether it had to be stopped for them.
async fn send(
    q: &Qmp,
    seen: &Seen,
    switch: &[DiskSwitch],
    uri: String,
    millis: u64,
) -> Result<(u64, bool), HvError> {
    let vm = seen.vm();
    let todo = qmp::prepare_switch(q, vm, switch).await?;
    if todo.len() < switch.len() {
        // Disks of one moment and memory of another would be no machine's.
        return Err(HvError::MomentLost(vm));
    }
    let on = [
        (MigrationCapability::events, true),
        (MigrationCapability::pause_before_switchover, true),
        // A fork was loaded with it.
        (MigrationCapability::x_ignore_shared, false),
    ];
    capabilities(q, vm, &on).await?;
    downtime(q, vm, millis).await?;
    seen.freezing();
    let send = wire::migrate {
        channels: None,
        detach: None,
        resume: None,
        uri: Some(uri),
    };
    q.execute(send).await.map_err(failed(OP, vm))?;
    let at_switchover = [MigrationStatus::pre_switchover];
    let there = timeout(PATIENCE, until(seen, vm, &at_switchover)).await;
    let forced = there.is_err();
    if let Ok(there) = there {
        there?;
    } else {
        // It writes its memory without end: it has to stand still for what is left.
        downtime(q, vm, LONG_DOWNTIME).await?;
        match timeout(LAST_PATIENCE, until(seen, vm, &at_switchover)).await {
            Ok(there) => there?,
            Err(_) => return Err(HvError::TooBusy(vm)),
        }
    }
    qmp::switch_over(q, vm, &todo).await?;
    let state = MigrationStatus::pre_switchover;
    let go = q.execute(wire::migrate_continue { state }).await;
    go.map_err(failed(OP, vm))?;
    if let Err(e) = until(seen, vm, &[MigrationStatus::completed]).await {
        // Its guardian has let it run: what was left would have taken too long.
        let ended = *seen.migration.borrow();
        return Err(match ended {
            Some(MigrationStatus::cancelled | MigrationStatus::cancelling) => HvError::TooBusy(vm),
            _ => e,
        });
    }
    // There is no event for the moment from which it may go on.
    while let Err(e) = q.execute(wire::cont {}).await.map_err(failed(OP, vm)) {
        if !matches!(&e, HvError::Refused { why, .. } if why.contains("finalized")) {
            return Err(e);
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok((qmp::migrated(q, vm).await?, forced))
}

/// Lets a machine run whose migration has failed.
async fn go_on(q: &Qmp, vm: VmId) {
    let _ = q.execute(wire::migrate_cancel {}).await;
    if let Err(e) = q.execute(wire::cont {}).await {
        tracing::error!(%vm, error = %e, "let a machine go on that could not be forked");
    }
}

async fn downtime(q: &Qmp, vm: VmId, millis: u64) -> Result<(), HvError> {
    let set = qmp::migration_limits(millis);
    q.execute(set).await.map_err(failed(OP, vm)).map(drop)
}

async fn capabilities(q: &Qmp, vm: VmId, all: &[(MigrationCapability, bool)]) -> Result<(), HvError> {
    let capabilities = all
        .iter()
        .map(|&(capability, state)| wire::MigrationCapabilityStatus { capability, state })
        .collect();
    let set = wire::migrate_set_capabilities { capabilities };
    q.execute(set).await.map_err(failed(OP, vm)).map(drop)
}

/// Waits until a migration is that far; an error when it ends before.
async fn until(seen: &Seen, vm: VmId, wanted: &[MigrationStatus]) -> Result<(), HvError> {
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

/// Writes the state of the devices to a file, which stands under its name when it is whole.
async fn save(monitor: &Monitor, dir: &RunDir, vm: VmId, to: &Path) -> Result<(), HvError> {
    let socket = dir.path().join("out");
    let listener = UnixListener::bind(&socket).map_err(HvError::io("listen on", &socket))?;
    let uri = format!("unix:{}", socket.display());
    monitor.seen.migration.send_replace(None);
    let ask = move |q: Arc<Qmp>| async move {
        capabilities(&q, vm, &[(MigrationCapability::x_ignore_shared, true)]).await?;
        let send = wire::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(uri),
        };
        q.execute(send).await.map_err(failed(OP, vm)).map(drop)
    };
    monitor.ask(OP, ask).await?;
    let part = crate::disks::part(to);
    let written = async {
        let (mut stream, _) = listener.accept().await?;
        let mut file = tokio::fs::File::create(&part).await?;
        tokio::io::copy(&mut stream, &mut file).await?;
        file.sync_all().await
    };
    let written = timeout(SOON, written).await.map_err(|_| HvError::TimedOut {
        op: OP,
        vm,
        seconds: SOON.as_secs(),
    })?;
    written.map_err(HvError::io("write", &part))?;
    until(&monitor.seen, vm, &[MigrationStatus::completed]).await?;
    tokio::fs::rename(&part, to)
        .await
        .map_err(HvError::io("name", to))
}

/// Has a fork load its state, and waits until it runs. One that an earlier try has brought further goes on from there.
async fn load(machine: &Machine, point: &Point) -> Result<(), HvError> {
    let vm = machine.vm;
    let seen = machine.monitor.seen.clone();
    let (socket, state) = (machine.dir.path().join("in"), point.state.clone());
    let old = point.user_networks;
    let ask = move |q: Arc<Qmp>| async move {
        let status = q
            .execute(wire::query_status {})
            .await
            .map_err(failed(OP, vm))?
            .status;
        match status {
            wire::RunState::inmigrate => {}
            wire::RunState::paused | wire::RunState::prelaunch | wire::RunState::postmigrate => {
                return q.execute(wire::cont {}).await.map_err(failed(OP, vm)).map(drop);
            }
            _ => return Ok(()),
        }
        let on = [
            (MigrationCapability::events, true),
            (MigrationCapability::x_ignore_shared, true),
        ];
        capabilities(&q, vm, &on).await?;
        let load = wire::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(format!("unix:{}", socket.display())),
        };
        q.execute(load).await.map_err(failed(OP, vm))?;
        let sent = async {
            let mut file = tokio::fs::File::open(&state).await?;
            let mut stream = UnixStream::connect(&socket).await?;
            tokio::io::copy(&mut file, &mut stream).await
        };
        sent.await.map_err(HvError::io("load", &state))?;
        until(&seen, vm, &[MigrationStatus::completed]).await?;
        for n in 0..old {
            let id = args::old_network(n);
            q.execute(wire::netdev_del { id }).await.map_err(failed(OP, vm))?;
        }
        // It stands still as what it was saved from did.
        q.execute(wire::cont {}).await.map_err(failed(OP, vm))?;
        // The agent had its port open already: nothing tells of that.
        let (_, agent) = qmp::state(&q, vm).await?;
        seen.agent.send_replace(agent);
        Ok(())
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

fn remove(path: &Path) -> Result<(), HvError> {
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
