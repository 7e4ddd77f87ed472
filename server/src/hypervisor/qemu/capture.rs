//! Capturing a running machine. It is sent as by an ordinary live migration, and this program takes what it sends: the memory
//! goes to a file, the rest to another. In the pause at the end the disks are switched over, then the source goes on.
//!
//! The pause does not grow with the guest's memory: pages travel while the guest runs.

use super::block_jobs;
use super::flush;
use super::fork::{OP, allow, memory_file, remove, until};
use super::guardian::{self, Guardian, Leash};
use super::monitor::Seen;
use super::qmp::{self, Qmp, failed};
use super::stream::{self, StreamError, Target};
use super::{Inner, Machine};
use crate::hypervisor::{Captured, DiskSwitch, HvError, MachineSpec, Point};
use qapi::qmp as wire;
use qapi::qmp::{MigrationCapability, MigrationStatus};
use rustix::fs::FallocateFlags;
use shared::VmId;
use shared::place::Accelerator;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
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
                // Its disks had been switched over when the host was too slow the last time.
                (Err(HvError::MomentLost(vm)), _) if again > 0 => break (Err(slowly(vm)), guardian),
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
