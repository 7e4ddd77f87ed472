//! A hypervisor that runs nothing and answers at once: for tests, load, and failures on demand.
//!
//! A machine runs if its log is there, so machines survive the server. Calls stay on the thread: handing the little
//! there is to write to another would take longer.

mod ports;

use super::*;
use crate::disks::take_up;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

const SCREEN: &[u8] = include_bytes!("screen.png");
/// The line that a simulated guest boots with.
const KERNEL: &str = "[    0.000000] Linux version 0.0.0-sim";
/// How many events a slow listener may be behind.
const EVENTS: usize = 4096;

/// Machines that are simulated.
pub struct Sim {
    run: PathBuf,
    machines: Mutex<HashMap<VmId, Machine>>,
    gates: watch::Sender<Gates>,
    lingering: Mutex<HashSet<VmId>>,
    events: broadcast::Sender<MachineEvent>,
}

#[derive(Clone, Copy)]
struct Machine {
    state: RunState,
    power_on: Instant,
}

#[derive(Debug, Default)]
struct Gates {
    waiting: BTreeSet<(String, String)>,
    released: BTreeSet<String>,
}

impl Sim {
    /// A simulator that keeps its machines under `run`.
    pub fn new(run: &Path) -> Result<Self, HvError> {
        fs::create_dir_all(run).map_err(HvError::io("make", run))?;
        Ok(Self {
            run: run.to_owned(),
            machines: Mutex::default(),
            gates: watch::Sender::default(),
            lingering: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    /// Lets a `wait-at-…` go on, now and whenever it waits again.
    pub fn release(&self, name: &str) {
        self.gates.send_modify(|g| {
            g.released.insert(name.to_owned());
        });
    }

    /// The names that wait now, each with the step it waits at.
    pub fn waiting(&self) -> Vec<(String, String)> {
        self.gates.borrow().waiting.iter().cloned().collect()
    }

    /// Returns when `name` waits at some step.
    pub async fn until_waiting(&self, name: &str) {
        let mut gates = self.gates.subscribe();
        // The sender is ours: it cannot be gone.
        let _ = gates.wait_for(|g| g.waiting.iter().any(|(n, _)| n == name)).await;
    }

    /// Ends a machine as one that crashes.
    pub fn crash(&self, vm: VmId) -> Result<(), HvError> {
        self.end(vm, Ended::Crashed("made to crash".into()))
    }

    /// Has a guest take its time to shut down, from when it is asked until it is let go on by [`shut`](Self::shut).
    pub fn linger(&self, vm: VmId) {
        self.lingering().insert(vm);
    }

    /// Has a guest that lingers shut down.
    pub fn shut(&self, vm: VmId) -> Result<(), HvError> {
        self.lingering().remove(&vm);
        self.end(vm, Ended::GuestShutDown)
    }

    fn lingering(&self) -> MutexGuard<'_, HashSet<VmId>> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paused(&self, vm: VmId) -> PathBuf {
        self.run.join(format!("{vm}.paused"))
    }

    fn now(&self, vm: VmId) -> Machine {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        *machines.entry(vm).or_insert_with(|| {
            let state = match (self.serial_log(vm).exists(), self.paused(vm).exists()) {
                (false, _) => RunState::Stopped,
                (true, true) => RunState::Paused(PauseReason::User),
                (true, false) => RunState::Running,
            };
            Machine {
                state,
                power_on: Instant::now(),
            }
        })
    }

    fn set(&self, vm: VmId, state: RunState, ended: Option<Ended>) {
        let power_on = Instant::now();
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = machines.entry(vm).or_insert(Machine {
            state: RunState::Stopped,
            power_on,
        });
        if machine.state == state {
            return;
        }
        if machine.state == RunState::Stopped {
            machine.power_on = power_on;
        }
        machine.state = state;
        // Nobody may be listening.
        let _ = self.events.send(MachineEvent { vm, state, ended });
    }

    fn running(&self, op: &'static str, vm: VmId) -> Result<Machine, HvError> {
        match self.now(vm) {
            Machine {
                state: RunState::Stopped,
                ..
            } => Err(HvError::NotRunning { op, vm }),
            machine => Ok(machine),
        }
    }

    fn end(&self, vm: VmId, how: Ended) -> Result<(), HvError> {
        for path in [self.paused(vm), self.serial_log(vm)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(HvError::io("remove", &path)(e)),
                _ => {}
            }
        }
        self.set(vm, RunState::Stopped, Some(how));
        Ok(())
    }
}

/// Whether `name` asks for something at `step`: `fail-at-copy` and `fail-at-copy-7` do, at the step `copy`.
fn asks(name: &str, what: &str, step: &str) -> bool {
    let rest = name.strip_prefix(what).and_then(|rest| rest.strip_prefix(step));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Takes a name off the list of those that wait, however the waiting ends.
struct Waiting<'a>(&'a watch::Sender<Gates>, (String, String));

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|g| {
            g.waiting.remove(&self.1);
        });
    }
}

#[async_trait]
impl Hypervisor for Sim {
    fn accelerator(&self) -> Accelerator {
        Accelerator::Sim
    }

    async fn version(&self) -> Result<String, HvError> {
        Ok("sim".into())
    }

    async fn start(&self, spec: &MachineSpec) -> Result<(), HvError> {
        if self.now(spec.id).state == RunState::Stopped {
            let log = self.serial_log(spec.id);
            let text = format!("{KERNEL}\n{} login: \n", spec.name);
            fs::write(&log, text).map_err(HvError::io("write", &log))?;
            self.set(spec.id, RunState::Running, None);
        }
        Ok(())
    }

    async fn adopt(&self, vm: VmId) -> Result<RunState, HvError> {
        Ok(self.now(vm).state)
    }

    async fn state(&self, vm: VmId) -> RunState {
        self.now(vm).state
    }

    async fn control(&self, vm: VmId, what: Control) -> Result<(), HvError> {
        self.running("control", vm)?;
        let paused = self.paused(vm);
        match what {
            Control::ShutDown if self.lingering().contains(&vm) => {}
            Control::ShutDown => return self.end(vm, Ended::GuestShutDown),
            Control::Reset => {}
            Control::Pause => {
                fs::write(&paused, "").map_err(HvError::io("write", &paused))?;
                self.set(vm, RunState::Paused(PauseReason::User), None);
            }
            Control::Resume => {
                let _ = fs::remove_file(&paused);
                self.set(vm, RunState::Running, None);
            }
        }
        Ok(())
    }

    async fn kill(&self, vm: VmId) -> Result<(), HvError> {
        if self.now(vm).state == RunState::Stopped {
            Ok(())
        } else {
            self.end(vm, Ended::Killed)
        }
    }

    async fn freeze_disks(&self, vm: VmId, _switch: &[DiskSwitch]) -> Result<Frozen, HvError> {
        self.running("freeze the disks of", vm)?;
        Ok(Frozen { micros: 1 })
    }

    async fn merge_layers(
        &self,
        vm: VmId,
        merge: &LayerMerge,
        _progress: Progress<'_>,
    ) -> Result<(), HvError> {
        self.running("merge the layers of", vm)?;
        let into = &merge.into.path;
        let between = merge.between.iter();
        let between = between.map(|layer| (*layer, into.with_file_name(format!("{layer}.qcow2"))));
        take_up(into, between).map_err(HvError::io("merge layers into", into))
    }

    async fn capture(
        &self,
        source: &MachineSpec,
        _switch: &[DiskSwitch],
        point: &Point,
    ) -> Result<Captured, HvError> {
        self.running("fork", source.id)?;
        if point.state.exists() {
            return Ok(Captured::default());
        }
        for file in [&point.memory, &point.state] {
            fs::write(file, "").map_err(HvError::io("write", file))?;
        }
        Ok(Captured {
            pause_micros: 1,
            ..Captured::default()
        })
    }

    async fn await_point(&self, _spec: &MachineSpec, _point: &Point) -> Result<(), HvError> {
        Ok(())
    }

    async fn keep_ready(&self, _spec: &MachineSpec, _point: &Point) -> Result<(), HvError> {
        Ok(())
    }

    async fn end_unasked(&self, _known: &HashSet<VmId>) -> Result<(), HvError> {
        Ok(())
    }

    async fn drop_point(&self, point: &Point) -> Result<(), HvError> {
        for file in [&point.memory, &point.state] {
            match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(HvError::io("remove", file)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    async fn settle(&self, spec: &MachineSpec, _beside: usize) -> Result<Identity, HvError> {
        self.running("give an identity to", spec.id)?;
        Ok(Identity::Hook)
    }

    fn has_bridge(&self, _bridge: &str) -> bool {
        true
    }

    async fn connect(&self, spec: &MachineSpec) -> Result<(), HvError> {
        self.running("connect", spec.id).map(drop)
    }

    async fn refit(&self, spec: &MachineSpec) -> Result<Unfit, HvError> {
        self.running("change the devices of", spec.id)?;
        Ok(Unfit::default())
    }

    async fn grow(&self, vm: VmId, _layer: LayerId, _virtual_bytes: u64) -> Result<(), HvError> {
        self.running("grow a disk of", vm).map(drop)
    }

    async fn shut_down_by_agent(&self, vm: VmId) -> Result<(), HvError> {
        self.running("shut down", vm)?;
        Err(HvError::NoAgent(vm))
    }

    async fn memory(&self, vm: VmId, _memory_mib: u32) -> Result<MemoryUse, HvError> {
        self.running("look at the memory of", vm)?;
        Ok(MemoryUse::default())
    }

    async fn fork(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        fs::metadata(&point.state).map_err(HvError::io("open", &point.state))?;
        self.start(spec).await
    }

    async fn quiesce(&self, vm: VmId) -> Result<u32, HvError> {
        self.running("quiesce", vm)?;
        Ok(1)
    }

    async fn unquiesce(&self, _vm: VmId) -> Result<(), HvError> {
        Ok(())
    }

    async fn screen(&self, vm: VmId) -> Result<Vec<u8>, HvError> {
        self.running("take the screen of", vm)?;
        Ok(SCREEN.to_vec())
    }

    async fn dial(&self, vm: VmId, port: Port) -> Result<UnixStream, HvError> {
        let op = "connect to";
        self.running(op, vm)?;
        let (ours, theirs) = UnixStream::pair().map_err(|source| HvError::Lost { op, vm, source })?;
        let events = self.events.subscribe();
        match port {
            Port::Screen => ports::serve(vm, events, ports::screen(ours)),
            Port::Serial => ports::serve(vm, events, ports::serial(ours, self.serial_log(vm))),
        }
        Ok(theirs)
    }

    fn serial_log(&self, vm: VmId) -> PathBuf {
        self.run.join(format!("{vm}.log"))
    }

    async fn watch_boot(&self, vm: VmId, expect: &BootExpectation, say: Say<'_>) -> Result<Proof, BootError> {
        let machine = match self.running("watch", vm) {
            Ok(machine) => machine,
            Err(_) => return Err(BootError::Ended(String::new())),
        };
        say(&format!("the kernel has started: {KERNEL}"));
        let boot_millis = u64::try_from(machine.power_on.elapsed().as_millis()).ok();
        let Some(pattern) = &expect.pattern else {
            return Ok(Proof {
                strength: ProofStrength::Agent,
                boot_millis,
                matched: None,
            });
        };
        let log = self.serial_log(vm);
        let text = fs::read_to_string(&log).map_err(|e| BootError::Watch(HvError::io("read", &log)(e)))?;
        match text.lines().find(|line| pattern.is_match(line)) {
            Some(line) => {
                let matched = Some(line.to_owned());
                Ok(Proof {
                    strength: ProofStrength::Serial,
                    boot_millis,
                    matched,
                })
            }
            // Nothing more will come.
            None => Err(BootError::Timeout {
                seconds: expect.timeout.as_secs(),
                last: format!(
                    "the serial port last said {:?}",
                    text.lines().last().unwrap_or_default()
                ),
            }),
        }
    }

    fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.events.subscribe()
    }

    async fn forget(&self, vm: VmId) -> Result<(), HvError> {
        if self.now(vm).state != RunState::Stopped {
            return Err(HvError::StillRunning { op: "forget", vm });
        }
        self.machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&vm);
        Ok(())
    }

    async fn gate(&self, names: &[&str], step: &str) -> Result<(), HvError> {
        if let Some(name) = names.iter().find(|n| asks(n, "fail-at-", step)) {
            return Err(HvError::Simulated {
                step: step.into(),
                name: (*name).into(),
            });
        }
        for name in names.iter().filter(|n| asks(n, "wait-at-", step)) {
            let entry = ((*name).to_owned(), step.to_owned());
            let mut gates = self.gates.subscribe();
            self.gates.send_modify(|g| {
                g.waiting.insert(entry.clone());
            });
            let _waiting = Waiting(&self.gates, entry);
            // The sender is ours: it cannot be gone.
            let _ = gates.wait_for(|g| g.released.contains(*name)).await;
        }
        Ok(())
    }

    fn as_sim(&self) -> Option<&Sim> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
