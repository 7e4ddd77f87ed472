//! The one task per machine that owns its monitor: requests queue to it, and it tells every change of state.

use super::args::AGENT;
use super::process::{Exit, Process};
use super::qmp::{self, Qmp, QmpEvents};
use super::rundir::RunDir;
use crate::hypervisor::{Ended, HvError, MachineEvent, RunState};
use futures::StreamExt;
use futures::future::BoxFuture;
use qapi::qmp::{BlockErrorAction, Event, MigrationStatus};
use shared::VmId;
use shared::vm::PauseReason;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How many requests may queue.
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(Arc<Qmp>) -> BoxFuture<'static, ()> + Send>;

/// The way to a machine's monitor.
#[derive(Debug)]
pub struct Monitor {
    jobs: mpsc::Sender<Job>,
    pub seen: Arc<Seen>,
    _task: AbortOnDropHandle<()>,
}

/// What is seen of a machine.
#[derive(Debug)]
pub struct Seen {
    vm: VmId,
    pub state: watch::Sender<RunState>,
    /// Whether the guest agent has opened its port.
    pub agent: watch::Sender<bool>,
    /// Whether its power is being taken away.
    pub killed: AtomicBool,
    /// How it ended.
    pub ended: Mutex<Option<Ended>>,
    /// Why it will stand still in a moment.
    reason: Mutex<Option<PauseReason>>,
    /// Counts how often the guest has changed the address or the filter of a NIC.
    pub addresses: watch::Sender<u64>,
    /// Counts the devices that the guest has let go of.
    pub unplugged: watch::Sender<u64>,
    /// Counts the changes of the jobs on its disks.
    pub block_jobs: watch::Sender<u64>,
    /// How far its migration is.
    pub migration: watch::Sender<Option<MigrationStatus>>,
    /// Of a fork: when it stood still and when it went on, by QEMU's clock, in microseconds. Nobody is told of that pause.
    fork: Mutex<Option<(u64, u64)>>,
    /// Who is told of its changes.
    events: Mutex<broadcast::Sender<MachineEvent>>,
}

impl Monitor {
    /// Watches a machine whose monitor has just been connected to.
    pub async fn start(
        vm: VmId,
        dir: RunDir,
        process: Process,
        (qmp, events): (Qmp, QmpEvents),
        told: broadcast::Sender<MachineEvent>,
    ) -> Result<Self, HvError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let seen = Arc::new(Seen {
            vm,
            state: watch::Sender::new(RunState::Stopped),
            agent: watch::Sender::new(false),
            killed: AtomicBool::new(false),
            ended: Mutex::default(),
            reason: Mutex::default(),
            addresses: watch::Sender::new(0),
            unplugged: watch::Sender::new(0),
            block_jobs: watch::Sender::new(0),
            migration: watch::Sender::new(None),
            fork: Mutex::default(),
            events: Mutex::new(told),
        });
        let task = run(dir, process, Arc::new(qmp), events, queue, seen.clone());
        let monitor = Self {
            jobs,
            seen: seen.clone(),
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        };
        monitor
            .ask("look at", move |qmp| async move { look(&qmp, &seen).await })
            .await?;
        Ok(monitor)
    }

    /// Queues `f`. It runs to its end, whether or not somebody still waits for it.
    pub async fn ask<T, F, Fut>(&self, op: &'static str, f: F) -> Result<T, HvError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Qmp>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, HvError>> + Send + 'static,
    {
        let vm = self.seen.vm;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |qmp| {
            Box::pin(async move {
                // Nobody may be waiting any more.
                let _ = reply.send(f(qmp).await);
            })
        });
        let answered = async {
            self.jobs
                .send(job)
                .await
                .map_err(|_| HvError::NotRunning { op, vm })?;
            answer.await.map_err(|_| HvError::NotRunning { op, vm })?
        };
        match tokio::time::timeout(ANSWER, answered).await {
            // What ends in the middle of an answer is not running.
            Ok(Err(HvError::Lost { .. })) if *self.seen.state.borrow() == RunState::Stopped => {
                Err(HvError::NotRunning { op, vm })
            }
            Ok(answer) => answer,
            Err(_) => Err(HvError::TimedOut {
                op,
                vm,
                seconds: ANSWER.as_secs(),
            }),
        }
    }
}

async fn run(
    dir: RunDir,
    process: Process,
    mut qmp: Arc<Qmp>,
    mut events: QmpEvents,
    mut queue: mpsc::Receiver<Job>,
    seen: Arc<Seen>,
) {
    let exit = 'ended: loop {
        // Until the connection is lost.
        let mut job: Option<BoxFuture<'static, ()>> = None;
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => seen.event(event),
                    _ => break,
                },
                () = async { if let Some(job) = &mut job { job.await } }, if job.is_some() => job = None,
                Some(next) = queue.recv(), if job.is_none() => job = Some(next(qmp.clone())),
                exit = process.ended() => {
                    // What QEMU said last is still to be read.
                    while let Some(Ok(event)) = events.next().await {
                        seen.event(event);
                    }
                    break 'ended exit;
                }
            }
        }
        drop(events);
        if let Some(job) = job {
            // Its answers will not come, nor what it waits to be told: it fails now.
            seen.migration.send_replace(Some(MigrationStatus::failed));
            job.await;
        }
        let socket = dir.monitor();
        tokio::select! {
            exit = process.ended() => break exit,
            again = qmp::connect(&socket) => match again {
                Ok((service, stream)) => {
                    (qmp, events) = (Arc::new(service), stream);
                    let (seen, qmp) = (seen.clone(), qmp.clone());
                    // Events were missed. A failure shows as the next lost connection.
                    tokio::spawn(async move { look(&qmp, &seen).await });
                }
                // It closed its monitor: it is about to end.
                Err(_) => break process.ended().await,
            },
        }
    };
    seen.end(exit, &dir);
}

/// Looks how the machine is now.
async fn look(qmp: &Qmp, seen: &Seen) -> Result<(), HvError> {
    let (state, agent) = qmp::state(qmp, seen.vm).await?;
    seen.set(state, None);
    seen.agent.send_replace(agent);
    Ok(())
}

impl Seen {
    fn event(&self, event: Event) {
        let reason = || self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::BLOCK_IO_ERROR { data, .. } if data.action == BlockErrorAction::stop => {
                let full = data.nospace == Some(true);
                *reason() = Some(if full {
                    PauseReason::NoSpace
                } else {
                    PauseReason::IoError
                });
            }
            Event::GUEST_PANICKED { .. } => *reason() = Some(PauseReason::GuestPanicked),
            Event::MIGRATION { data, .. } => {
                self.migration.send_replace(Some(data.status));
            }
            Event::STOP { timestamp, .. } if self.forks(|f| f.0 = micros(timestamp)) => {}
            Event::RESUME { timestamp, .. } if self.forks(|f| f.1 = micros(timestamp)) => {}
            Event::STOP { .. } => {
                let why = reason().take().unwrap_or(PauseReason::User);
                self.set(RunState::Paused(why), None);
            }
            Event::RESUME { .. } => self.set(RunState::Running, None),
            Event::SHUTDOWN { data, .. } => {
                let how = if data.guest {
                    Ended::GuestShutDown
                } else {
                    Ended::Killed
                };
                *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
            }
            Event::JOB_STATUS_CHANGE { .. } => self.block_jobs.send_modify(|n| *n += 1),
            Event::NIC_RX_FILTER_CHANGED { .. } => self.addresses.send_modify(|n| *n += 1),
            // A device is told twice: as itself, with its id, and as its bus's.
            Event::DEVICE_DELETED { data, .. } if data.device.is_some() => {
                self.unplugged.send_modify(|n| *n += 1);
            }
            Event::VSERPORT_CHANGE { data, .. } if data.id == AGENT => {
                self.agent.send_replace(data.open);
            }
            _ => {}
        }
    }

    pub fn vm(&self) -> VmId {
        self.vm
    }

    fn forks(&self, note: impl FnOnce(&mut (u64, u64))) -> bool {
        let mut fork = self.fork.lock().unwrap_or_else(PoisonError::into_inner);
        fork.as_mut().map(note).is_some()
    }

    /// From here on it may stand still for a fork.
    pub fn freezing(&self) {
        self.migration.send_replace(None);
        *self.fork.lock().unwrap_or_else(PoisonError::into_inner) = Some((0, 0));
    }

    /// How long it stands still for a fork already, which goes wrong by as much as the host's clock is set meanwhile.
    pub fn stands_still_for(&self) -> Duration {
        let fork = *self.fork.lock().unwrap_or_else(PoisonError::into_inner);
        let since = fork
            .filter(|(stop, _)| *stop > 0)
            .map(|(stop, _)| Duration::from_micros(stop));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// It goes on; how long it stood still, in microseconds, where it did.
    pub fn thawed(&self) -> Option<u64> {
        let fork = self.fork.lock().unwrap_or_else(PoisonError::into_inner).take();
        fork.and_then(|(stop, resume)| resume.checked_sub(stop).filter(|_| stop > 0))
    }

    fn end(&self, exit: Exit, dir: &RunDir) {
        let how = {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let how = if self.killed.load(Ordering::Relaxed) {
                Ended::Killed
            } else {
                ended.take().unwrap_or_else(|| {
                    let how = match exit {
                        Exit::Code(code) => format!("QEMU ended with exit code {code}"),
                        Exit::Signal(signal) => format!("QEMU was ended by signal {signal}"),
                        Exit::Unknown => "QEMU ended".into(),
                    };
                    let log = dir.last_words();
                    Ended::Crashed(if log.is_empty() {
                        how
                    } else {
                        format!("{how}: {log}")
                    })
                })
            };
            ended.insert(how).clone()
        };
        self.agent.send_replace(false);
        self.set(RunState::Stopped, Some(how));
    }

    fn set(&self, state: RunState, ended: Option<Ended>) {
        if self.state.send_replace(state) != state {
            self.say(state, ended);
        }
    }

    fn say(&self, state: RunState, ended: Option<Ended>) {
        let vm = self.vm;
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody may be listening.
        let _ = events.send(MachineEvent { vm, state, ended });
    }

    /// From here on these are told of it; first, how it is now.
    pub fn tell(&self, events: broadcast::Sender<MachineEvent>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
        let state = *self.state.borrow();
        self.say(state, None);
    }
}

/// Microseconds of QEMU's clock; the crate keeps the fields to itself.
fn micros(at: qapi::Timestamp) -> u64 {
    let fields = serde_json::to_value(at).unwrap_or_default();
    let field = |name: &str| fields[name].as_u64().unwrap_or_default();
    field("seconds") * 1_000_000 + field("microseconds")
}
