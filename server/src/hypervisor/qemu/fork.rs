//! Forking a running machine. It is sent as by an ordinary live migration, and this program takes what it sends: the memory
//! goes to a file, the rest to another. In the pause at the end the disks are switched over, then the source goes on.
//! Forks map the memory privately and load the rest.
//!
//! The pause does not grow with the guest's memory: pages travel while the guest runs.

use super::args;
use super::block_jobs;
use super::flush;
use super::guardian::{self, Guardian, Leash};
use super::monitor::Seen;
use super::qmp::{self, Qmp, failed};
use super::rundir::RunDir;
use super::stream::{self, StreamError, Target};
use super::{Inner, Machine, Origin};
use crate::hypervisor::{Captured, DiskSwitch, HvError, MachineSpec, Point, RunState};
use qapi::qmp as wire;
use qapi::qmp::{MigrationCapability, MigrationStatus};
use rustix::fs::FallocateFlags;
use shared::VmId;
use shared::place::Accelerator;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the guest may stand still for its last pages, in milliseconds, as QEMU estimates it.
const DOWNTIME: u64 = 3;
/// Under TCG what is written is looked for once only, when the guest stands still. One fork of some thirty hung on a lock
/// that nobody held, as if a store had been missed; none has since. Our reading of QEMU, not proven: a processor's thread
/// that is interrupted within a store (`notdirty_write`, or the filling of its TLB) undoes the mark that a search has made
/// meanwhile, and what it stores from then on is not noticed until the next search.
const DOWNTIME_TCG: u64 = 0;
/// A guest that stood still for longer than this wrote faster than its memory travels, in microseconds.
const LONG_MICROS: u64 = 100_000;
/// How long a guest may write its memory faster than it can be sent.
const PATIENCE: Duration = Duration::from_secs(4);
/// What a guest that does so is stopped for at most, in milliseconds: its guardian would not wait much longer.
const LONG_DOWNTIME: u64 = 250;
/// How long it may go on writing too much even for that.
const LAST_PATIENCE: Duration = Duration::from_millis(800);
/// A host that was too slow is given so long before each further try: most are for a moment only, as when its disks have much
/// to write.
const ANEW: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];
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
        let held = self.slot(VmId(point.id)).lock_owned().await;
        if point.state.exists() {
            return Ok(Captured::default());
        }
        let mut again = 0;
        let (captured, guardian) = loop {
            let (captured, guardian) = self.try_to_capture(source, switch, point).await?;
            match (captured, ANEW.get(again)) {
                (Err(HvError::TooSlow { .. }), Some(wait)) => {
                    tracing::info!(vm = %source.id, "the host was too slow for a fork, which is tried again");
                    guardian.dismiss().await;
                    tokio::time::sleep(*wait).await;
                    again += 1;
                }
                (captured, _) => break (captured.map(|c| Captured { again, ..c }), guardian),
            }
        };
        // Nobody has to wait until it has ended but who drops the point.
        tokio::spawn(async move {
            guardian.dismiss().await;
            drop(held);
        });
        captured
    }

    async fn try_to_capture(
        &self,
        source: &MachineSpec,
        switch: &[DiskSwitch],
        point: &Point,
    ) -> Result<(Result<Captured, HvError>, Guardian), HvError> {
        let vm = source.id;
        let machine = {
            let slot = self.slot(vm);
            let mut held = slot.lock().await;
            let found = self.find(&mut held, vm).await?;
            found.ok_or(HvError::NotRunning { op: OP, vm })?
        };
        let downtime = match self.accelerator {
            Accelerator::Tcg => DOWNTIME_TCG,
            Accelerator::Kvm | Accelerator::Sim => DOWNTIME,
        };
        let all = switch.to_vec();
        let prepare = move |q: Arc<Qmp>| async move { prepare(&q, vm, &all, downtime).await };
        let watch = machine.dir.watch();
        let (guardian, todo, ()) = tokio::join!(
            Guardian::start(&self.program, &watch, vm),
            machine.monitor.ask(OP, prepare),
            flush::before_freezing(switch)
        );
        // Without one nothing is begun.
        let guardian = guardian?;
        let captured = match todo {
            Ok(todo) => captured(&machine, todo, source, point, guardian.leash()).await,
            Err(e) => Err(e),
        };
        Ok((captured, guardian))
    }
}

/// Sends the machine, and takes what it sends.
async fn captured(
    machine: &Machine,
    todo: Vec<DiskSwitch>,
    source: &MachineSpec,
    point: &Point,
    leash: Leash,
) -> Result<Captured, HvError> {
    let vm = machine.vm;
    let socket = machine.dir.path().join("out");
    remove(&socket)?;
    let listener = UnixListener::bind(&socket).map_err(HvError::io("listen on", &socket))?;
    let uri = format!("unix:{}", socket.display());
    let given_up = CancellationToken::new();
    let _never_left_waiting = given_up.clone().drop_guard();
    let taken = take(
        listener,
        leash,
        given_up.clone(),
        source.memory_mib,
        point.clone(),
    );
    let taken = tokio::spawn(taken);

    let seen = machine.monitor.seen.clone();
    let ask = move |q: Arc<Qmp>| async move {
        let sent = send(&q, &seen, &todo, uri).await;
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
            again: 0,
        })
    };
    let sent = machine.monitor.ask(OP, ask).await;
    if sent.is_err() {
        given_up.cancel();
    }
    let taken = taken.await.map_err(io::Error::other);
    let part = crate::disks::part(&point.state);
    let taken = taken.map_err(HvError::io("write", &part))?;
    match (sent, taken) {
        (Ok(captured), Ok(())) => {
            let named = tokio::fs::rename(&part, &point.state).await;
            named.map_err(HvError::io("name", &point.state))?;
            Ok(captured)
        }
        // The source only knows that nobody listens any more; this says why.
        (_, Err(StreamError::Write { path, source })) => Err(HvError::io("write", &path)(source)),
        (_, Err(e @ StreamError::Unknown(_))) => Err(HvError::Refused {
            op: OP,
            vm,
            why: e.to_string(),
        }),
        (Err(e), _) => Err(e),
        (Ok(_), Err(StreamError::Read(e))) => Err(HvError::io("read from", &socket)(e)),
    }
}

/// Takes what a machine sends, its memory and the rest, until it ends.
async fn take(
    listener: UnixListener,
    leash: Leash,
    given_up: CancellationToken,
    memory_mib: u32,
    point: Point,
) -> Result<(), StreamError> {
    let stream = tokio::select! {
        accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
        () = given_up.cancelled() => Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let stream = stream.map_err(StreamError::Read)?;
    let taken = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false).map_err(StreamError::Read)?;
        leash.hand(&stream).map_err(StreamError::Read)?;
        let patience = stream.set_read_timeout(Some(super::CONNECT));
        patience.map_err(StreamError::Read)?;
        let part = crate::disks::part(&point.state);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StreamError::Write { path, source }
        };
        let memory = memory_file(&point.memory, memory_mib).and_then(|file| {
            // An earlier try may have ended in the middle.
            let all = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, all, 0, u64::from(memory_mib) << 20)?;
            Ok(file)
        });
        let memory = memory.map_err(failed(&point.memory))?;
        let state = File::create(&part).map_err(failed(&part))?;
        let to = Target {
            memory: (&memory, point.memory),
            state: (&state, part),
        };
        let taken = stream::split(&stream, &to);
        // The guardian has it open as well.
        let _ = stream.shutdown(Shutdown::Both);
        taken
    });
    taken.await.map_err(|e| StreamError::Read(io::Error::other(e)))?
}

/// The file of a memory, as long as that. Whoever comes first makes it: what takes the memory, or a fork that waits for it.
fn memory_file(path: &Path, memory_mib: u32) -> io::Result<File> {
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

/// Adds the overlays, and says how to send; returns which disks are to be switched over.
async fn prepare(q: &Qmp, vm: VmId, switch: &[DiskSwitch], millis: u64) -> Result<Vec<DiskSwitch>, HvError> {
    block_jobs::none(q, vm).await?;
    let todo = qmp::prepare_switch(q, vm, switch).await?;
    if todo.len() < switch.len() {
        // Disks of one moment and memory of another would be no machine's.
        return Err(HvError::MomentLost(vm));
    }
    let capabilities = [
        MigrationCapability::events,
        MigrationCapability::pause_before_switchover,
    ];
    allow(q, vm, &capabilities).await?;
    downtime(q, vm, millis).await?;
    Ok(todo)
}

/// Sends the running machine; returns how many bytes travelled, and whether it had to be stopped for them.
async fn send(q: &Qmp, seen: &Seen, todo: &[DiskSwitch], uri: String) -> Result<(u64, bool), HvError> {
    let vm = seen.vm();
    seen.freezing();
    let send = wire::migrate {
        channels: None,
        detach: None,
        resume: None,
        uri: Some(uri),
    };
    q.execute(send).await.map_err(failed(OP, vm))?;
    let slow = |e| too_slow(vm, *seen.migration.borrow(), e);
    let at_switchover = [MigrationStatus::pre_switchover];
    let there = timeout(PATIENCE, until(seen, vm, &at_switchover)).await;
    let forced = there.is_err();
    if let Ok(there) = there {
        there.map_err(slow)?;
    } else {
        // It writes its memory without end: it has to stand still for what is left.
        downtime(q, vm, LONG_DOWNTIME).await?;
        match timeout(LAST_PATIENCE, until(seen, vm, &at_switchover)).await {
            Ok(there) => there.map_err(slow)?,
            Err(_) => return Err(HvError::TooBusy(vm)),
        }
    }
    if seen.stands_still_for() > guardian::LIMIT / 2 {
        // From the switch on it is this moment or none.
        return Err(slowly(vm));
    }
    let stood = Instant::now();
    qmp::switch_over(q, vm, todo).await?;
    let state = MigrationStatus::pre_switchover;
    let go = q.execute(wire::migrate_continue { state }).await;
    go.map_err(failed(OP, vm)).map_err(slow)?;
    if let Err(e) = until(seen, vm, &[MigrationStatus::completed]).await {
        // Its guardian has let it run: what was left would have taken too long.
        let ended = *seen.migration.borrow();
        let late = stood.elapsed() >= guardian::LIMIT / 2;
        return Err(match ended {
            Some(MigrationStatus::cancelled | MigrationStatus::cancelling) => HvError::TooBusy(vm),
            Some(MigrationStatus::failed) if late => HvError::TooBusy(vm),
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

/// Why a fork failed before the last pages were sent: only the guardian cancels, and then only the host can have been slow.
fn too_slow(vm: VmId, ended: Option<MigrationStatus>, e: HvError) -> HvError {
    match ended {
        Some(MigrationStatus::cancelled | MigrationStatus::cancelling) => slowly(vm),
        _ => e,
    }
}

fn slowly(vm: VmId) -> HvError {
    HvError::TooSlow {
        vm,
        millis: guardian::LIMIT.as_millis(),
    }
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

async fn allow(q: &Qmp, vm: VmId, all: &[MigrationCapability]) -> Result<(), HvError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guardian_has_ended_is_said_in_our_words() {
        let vm = VmId(uuid::Uuid::from_u128(1));
        let why = |ended| {
            let refused = HvError::Refused {
                op: OP,
                vm,
                why: "Migration not in expected state: cancelling".to_owned(),
            };
            too_slow(vm, ended, refused).to_string()
        };
        for ended in [MigrationStatus::cancelling, MigrationStatus::cancelled] {
            let said = why(Some(ended));
            assert!(
                said.contains("than the 400 ms") && said.ends_with("try again when it has less to do"),
                "{said}"
            );
        }
        for other in [None, Some(MigrationStatus::failed)] {
            assert!(why(other).ends_with("expected state: cancelling"));
        }
    }
}
