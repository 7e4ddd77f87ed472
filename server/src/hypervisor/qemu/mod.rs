//! QEMU, directly: one `qemu-system-x86_64` process per machine, driven over QMP.

mod agent;
mod args;
mod block_jobs;
mod boot;
mod capture;
mod firmware;
mod flush;
mod fork;
mod guardian;
mod identity;
mod machine;
mod memory;
mod monitor;
mod nics;
pub(crate) mod process;
mod qmp;
mod refit;
mod rundir;
mod stream;
mod switch;
mod tap;

pub use args::{MACHINE, SANDBOX};
pub use firmware::Efi;
pub use guardian::{Guardian, LIMIT as STANDS_STILL_AT_MOST, watch as guard};
pub use rundir::check as check_run_dir;
pub use switch::serve as switch;

use super::*;
use args::Origin;
use machine::Machine;
use monitor::Monitor;
use process::Process;
use rundir::RunDir;
use std::collections::HashMap;
use std::future::Future;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use tokio::sync::{Mutex, Notify, OnceCell, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// The program.
pub const BINARY: &str = "qemu-system-x86_64";
/// How long QEMU may take until it answers.
const CONNECT: Duration = Duration::from_secs(30);
/// How often logs are cut, and full storages looked at.
const TIDY: Duration = Duration::from_secs(2);
/// How many events a slow listener may be behind.
const EVENTS: usize = 1024;

/// Machines of QEMU on this host. They go on when this is dropped.
pub struct Qemu {
    inner: Arc<Inner>,
    _tidy: AbortOnDropHandle<()>,
}

/// One machine, or none; held while it is started, adopted or ended.
type Slot = Mutex<Option<Arc<Machine>>>;

struct Inner {
    binary: PathBuf,
    /// This program, for the guardians of forks.
    program: PathBuf,
    run: PathBuf,
    accelerator: Accelerator,
    version: OnceCell<String>,
    machines: StdMutex<HashMap<VmId, Arc<Slot>>>,
    events: broadcast::Sender<MachineEvent>,
    hurry: Notify,
}

/// KVM where the processor has it and `/dev/kvm` opens; some machines have a `/dev/kvm` with which guests hang.
pub fn accelerator() -> Accelerator {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = flags
        .lines()
        .filter(|l| l.starts_with("flags"))
        .any(|l| l.split_whitespace().any(|f| f == "vmx" || f == "svm"));
    let opens = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    };
    if has && opens() {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    }
}

impl Qemu {
    /// QEMU with its run directories under `run`; `forced` overrides [`accelerator`]; `program` is offshoot itself.
    pub fn new(run: &Path, forced: Option<Accelerator>, program: &Path) -> Result<Self, HvError> {
        let run = std::path::absolute(run).map_err(HvError::io("resolve", run))?;
        rundir::check(&run)?;
        std::fs::create_dir_all(&run).map_err(HvError::io("make", &run))?;
        let inner = Arc::new(Inner {
            binary: BINARY.into(),
            program: program.to_owned(),
            run,
            accelerator: forced.unwrap_or_else(accelerator),
            version: OnceCell::new(),
            machines: StdMutex::default(),
            events: broadcast::Sender::new(EVENTS),
            hurry: Notify::new(),
        });
        let tidy = tokio::spawn(tidy(inner.clone()));
        Ok(Self {
            inner,
            _tidy: AbortOnDropHandle::new(tidy),
        })
    }

    async fn running(&self, op: &'static str, vm: VmId) -> Result<Arc<Machine>, HvError> {
        let slot = self.inner.slot(vm);
        let mut held = slot.lock().await;
        self.inner
            .find(&mut held, vm)
            .await?
            .ok_or(HvError::NotRunning { op, vm })
    }
}

/// Cuts logs and lets guests go on that waited for room.
async fn tidy(inner: Arc<Inner>) {
    loop {
        for machine in inner.known() {
            let dir = machine.dir.clone();
            let cut = tokio::task::spawn_blocking(move || dir.cap_logs()).await;
            if let Ok(Err(e)) = cut {
                tracing::warn!(vm = %machine.vm, error = %e, "cut the logs of a machine");
            }
            if *machine.monitor.seen.state.borrow() == RunState::Paused(PauseReason::NoSpace) {
                let vm = machine.vm;
                let resumed =
                    machine.monitor.ask(
                        "resume",
                        move |q| async move { qmp::resume_with_room(&q, vm).await },
                    );
                match resumed.await {
                    Ok(true) => tracing::info!(%vm, "there is room again: the machine goes on"),
                    Ok(false) => {}
                    Err(e) => tracing::warn!(%vm, error = %e, "resume a machine that waits for room"),
                }
            }
        }
        // Hurried or not.
        let _ = timeout(TIDY, inner.hurry.notified()).await;
    }
}

/// Runs to its end, whether or not the caller still waits: a machine half started belongs to nobody.
async fn whole<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(value) => value,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Inner {
    fn slot(&self, vm: VmId) -> Arc<Slot> {
        self.machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(vm)
            .or_default()
            .clone()
    }

    /// The machines that nobody is at work on.
    fn known(&self) -> Vec<Arc<Machine>> {
        let slots = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .values()
            .filter_map(|s| s.try_lock().ok()?.clone())
            .collect()
    }

    /// The machine, if it has a process: known already, or found by its record.
    async fn find(&self, held: &mut Option<Arc<Machine>>, vm: VmId) -> Result<Option<Arc<Machine>>, HvError> {
        if let Some(machine) = held {
            if *machine.monitor.seen.state.borrow() != RunState::Stopped {
                return Ok(Some(machine.clone()));
            }
            *held = None;
        }
        let dir = RunDir::new(&self.run, vm);
        let found = Process::find(&dir.record(), &vm.to_string());
        let machine = match found.map_err(HvError::io("read", &dir.record()))? {
            Some(process) => self.watch("adopt", vm, dir, process, self.events.clone()).await?,
            None => None,
        };
        let Some(machine) = machine else {
            // It may have ended by itself, or while no server ran.
            tap::remove_all(vm).await;
            return Ok(None);
        };
        machine.thaw_if_left_frozen();
        *held = Some(machine.clone());
        Ok(Some(machine))
    }

    /// Connects to a machine's monitor; none if its process ends first.
    async fn watch(
        &self,
        op: &'static str,
        vm: VmId,
        dir: RunDir,
        process: Process,
        told: broadcast::Sender<MachineEvent>,
    ) -> Result<Option<Arc<Machine>>, HvError> {
        let socket = dir.monitor();
        let connected = async {
            tokio::select! {
                biased;
                Ok(connection) = qmp::connect(&socket) => Some(connection),
                _ = process.ended() => None,
            }
        };
        let timed_out = |_| HvError::TimedOut {
            op,
            vm,
            seconds: CONNECT.as_secs(),
        };
        let Some(connection) = timeout(CONNECT, connected).await.map_err(timed_out)? else {
            return Ok(None);
        };
        let monitor = match Monitor::start(vm, dir.clone(), process.clone(), connection, told).await {
            Err(HvError::NotRunning { .. } | HvError::Lost { .. }) => {
                timeout(CONNECT, process.ended()).await.map_err(timed_out)?;
                return Ok(None);
            }
            monitor => monitor?,
        };
        Ok(Some(Arc::new(Machine::new(vm, dir, process, monitor))))
    }

    async fn start(&self, spec: &MachineSpec) -> Result<(), HvError> {
        let vm = spec.id;
        let slot = self.slot(vm);
        let mut held = slot.lock().await;
        if self.find(&mut held, vm).await?.is_some() {
            return Ok(());
        }
        let dir = RunDir::new(&self.run, vm);
        nics::outside(&self.program, &dir, spec).await?;
        let machine = self.launch(spec, &dir, Origin::PowerOn, self.events.clone());
        let machine = held.insert(machine.await?).clone();
        nics::outside(&self.program, &dir, spec).await?;
        if spec.nics.iter().all(|nic| nic.connected) {
            return Ok(());
        }
        nics::connect(&self.program, &machine, spec).await
    }

    /// Starts a process, and watches it.
    async fn launch(
        &self,
        spec: &MachineSpec,
        dir: &RunDir,
        origin: Origin<'_>,
        told: broadcast::Sender<MachineEvent>,
    ) -> Result<Arc<Machine>, HvError> {
        let vm = spec.id;
        let sockets = dir.prepare(&args::told(spec)?)?;
        let mark = dir.unasked();
        if matches!(origin, Origin::Unasked(_)) {
            std::fs::write(&mark, "").map_err(HvError::io("write", &mark))?;
        }
        let arguments = args::arguments(spec, dir, self.accelerator, &sockets, &origin)?;
        let log_path = dir.qemu_log();
        let log = || {
            std::fs::File::options()
                .append(true)
                .open(&log_path)
                .map_err(HvError::io("open", &log_path))
        };
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?);
        let fds = vec![sockets.monitor, sockets.watch, sockets.serial, sockets.agent];
        let process = Process::spawn(command, fds, &dir.record()).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => HvError::NotInstalled(self.binary.clone()),
            _ => HvError::io("run", &self.binary)(e),
        })?;
        match self.watch("start", vm, dir.clone(), process.clone(), told).await {
            Ok(Some(machine)) => Ok(machine),
            Ok(None) => Err(HvError::Start {
                vm,
                log: dir.last_words(),
            }),
            Err(e) => {
                process
                    .kill()
                    .await
                    .map_err(HvError::io("end the process of", dir.path()))?;
                Err(e)
            }
        }
    }

    async fn kill(&self, vm: VmId) -> Result<(), HvError> {
        let slot = self.slot(vm);
        let mut held = slot.lock().await;
        let dir = RunDir::new(&self.run, vm);
        let failed = HvError::io("end the process of", dir.path());
        if let Some(machine) = held.take() {
            machine.monitor.seen.killed.store(true, Ordering::Relaxed);
            machine.process.kill().await.map_err(failed)?;
            // Everybody has been told before this returns.
            let mut state = machine.monitor.seen.state.subscribe();
            let _ = timeout(CONNECT, state.wait_for(|s| *s == RunState::Stopped)).await;
        } else if let Some(process) =
            Process::find(&dir.record(), &vm.to_string()).map_err(HvError::io("read", &dir.record()))?
        {
            // One that nobody watches is not asked over QMP: it may hang.
            process.kill().await.map_err(failed)?;
            let event = MachineEvent {
                vm,
                state: RunState::Stopped,
                ended: Some(Ended::Killed),
            };
            let _ = self.events.send(event);
        }
        tap::remove_all(vm).await;
        Ok(())
    }

    async fn forget(&self, vm: VmId) -> Result<(), HvError> {
        let slot = self.slot(vm);
        let mut held = slot.lock().await;
        if self.find(&mut held, vm).await?.is_some() {
            return Err(HvError::StillRunning { op: "forget", vm });
        }
        let dir = RunDir::new(&self.run, vm);
        for network in std::fs::read_dir(dir.networks()).into_iter().flatten().flatten() {
            switch::leave(&network.path(), vm, None);
        }
        match std::fs::remove_dir_all(dir.path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(HvError::io("remove", dir.path())(e)),
            _ => {
                self.machines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&vm);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    fn accelerator(&self) -> Accelerator {
        self.inner.accelerator
    }

    async fn version(&self) -> Result<String, HvError> {
        let binary = &self.inner.binary;
        let ask = || async {
            let command = tokio::process::Command::new(binary)
                .arg("--version")
                .kill_on_drop(true)
                .output()
                .await;
            let out = command.map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => HvError::NotInstalled(binary.clone()),
                _ => HvError::io("run", binary)(e),
            })?;
            let text = String::from_utf8_lossy(&out.stdout);
            let version = text
                .split_once("version ")
                .and_then(|(_, rest)| rest.split_whitespace().next());
            let unknown = || io::Error::new(io::ErrorKind::InvalidData, "it does not tell its version");
            version
                .map(str::to_owned)
                .ok_or_else(|| HvError::io("run", binary)(unknown()))
        };
        self.inner.version.get_or_try_init(ask).await.cloned()
    }

    async fn start(&self, spec: &MachineSpec) -> Result<(), HvError> {
        let (inner, spec) = (self.inner.clone(), spec.clone());
        whole(async move { inner.start(&spec).await }).await
    }

    async fn merge_layers(
        &self,
        vm: VmId,
        merge: &LayerMerge,
        progress: Progress<'_>,
    ) -> Result<(), HvError> {
        let machine = self.running("merge the layers of", vm).await?;
        let (merge, (say, mut said)) = (merge.clone(), watch::channel((0, 0)));
        let merged = whole(async move { block_jobs::merge(&machine, &merge, &say).await });
        // It ends when what merges is over.
        let telling = async {
            while said.changed().await.is_ok() {
                let (done, total) = *said.borrow_and_update();
                progress(done, total);
            }
        };
        tokio::join!(merged, telling).0
    }

    async fn capture(
        &self,
        source: &MachineSpec,
        switch: &[DiskSwitch],
        point: &Point,
    ) -> Result<Captured, HvError> {
        let inner = self.inner.clone();
        let (source, switch, point) = (source.clone(), switch.to_vec(), point.clone());
        whole(async move { inner.capture(&source, &switch, &point).await }).await
    }

    async fn fork(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let (inner, spec, point) = (self.inner.clone(), spec.clone(), point.clone());
        whole(async move { inner.fork(&spec, &point).await }).await
    }

    async fn await_point(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let (inner, spec, point) = (self.inner.clone(), spec.clone(), point.clone());
        whole(async move { inner.await_point(&spec, &point).await }).await
    }

    async fn keep_ready(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError> {
        let (inner, spec, point) = (self.inner.clone(), spec.clone(), point.clone());
        whole(async move { inner.keep_ready(&spec, &point).await }).await
    }

    async fn end_unasked(&self, known: &HashSet<VmId>) -> Result<(), HvError> {
        self.inner.end_unasked(known).await
    }

    async fn drop_point(&self, point: &Point) -> Result<(), HvError> {
        let (inner, point) = (self.inner.clone(), point.clone());
        whole(async move { inner.drop_point(&point).await }).await
    }

    async fn settle(&self, spec: &MachineSpec, beside: usize) -> Result<Identity, HvError> {
        let machine = self.running("give an identity to", spec.id).await?;
        let spec = spec.clone();
        whole(async move { identity::settle(&machine, &spec, beside).await }).await
    }

    fn has_bridge(&self, bridge: &str) -> bool {
        tap::is_bridge(bridge)
    }

    async fn connect(&self, spec: &MachineSpec) -> Result<(), HvError> {
        let machine = self.running("connect", spec.id).await?;
        let (spec, inner) = (spec.clone(), self.inner.clone());
        whole(async move { nics::connect(&inner.program, &machine, &spec).await }).await
    }

    async fn refit(&self, spec: &MachineSpec) -> Result<Unfit, HvError> {
        let machine = self.running("change the devices of", spec.id).await?;
        let (spec, inner) = (spec.clone(), self.inner.clone());
        whole(async move { refit::refit(&inner.program, &machine, &spec).await }).await
    }

    async fn grow(&self, vm: VmId, layer: LayerId, virtual_bytes: u64) -> Result<(), HvError> {
        let machine = self.running("grow a disk of", vm).await?;
        let ask = move |q: Arc<qmp::Qmp>| async move { qmp::resize(&q, vm, layer, virtual_bytes).await };
        machine.monitor.ask("grow a disk of", ask).await
    }

    async fn shut_down_by_agent(&self, vm: VmId) -> Result<(), HvError> {
        let machine = self.running("shut down", vm).await?;
        whole(async move { machine.shut_down().await }).await
    }

    async fn memory(&self, vm: VmId, memory_mib: u32) -> Result<MemoryUse, HvError> {
        let machine = self.running("look at the memory of", vm).await?;
        let pid = machine.process.pid();
        let read = tokio::task::spawn_blocking(move || memory::of(pid, memory_mib));
        let read = read.await.map_err(std::io::Error::other);
        read.flatten()
            .map_err(HvError::io("read the memory map of", machine.dir.path()))
    }

    async fn adopt(&self, vm: VmId) -> Result<RunState, HvError> {
        match self.running("adopt", vm).await {
            Ok(machine) => Ok(*machine.monitor.seen.state.borrow()),
            Err(HvError::NotRunning { .. }) => Ok(RunState::Stopped),
            Err(e) => Err(e),
        }
    }

    async fn state(&self, vm: VmId) -> RunState {
        match self.adopt(vm).await {
            Ok(state) => state,
            Err(e) => {
                // It has a process, or it could not hang.
                tracing::warn!(%vm, error = %e, "look at a machine");
                RunState::Running
            }
        }
    }

    async fn control(&self, vm: VmId, what: Control) -> Result<(), HvError> {
        let machine = self.running("control", vm).await?;
        let seen = machine.monitor.seen.clone();
        let ask = move |q: Arc<qmp::Qmp>| async move {
            let now = *seen.state.borrow();
            qmp::control(&q, vm, what, now).await
        };
        machine.monitor.ask("control", ask).await
    }

    async fn kill(&self, vm: VmId) -> Result<(), HvError> {
        let inner = self.inner.clone();
        whole(async move { inner.kill(vm).await }).await
    }

    async fn freeze_disks(&self, vm: VmId, switch: &[DiskSwitch]) -> Result<Frozen, HvError> {
        let machine = self.running("freeze the disks of", vm).await?;
        flush::before_freezing(switch).await;
        let switch = switch.to_vec();
        let ask = move |q: Arc<qmp::Qmp>| async move { qmp::freeze(&q, vm, &switch).await };
        machine.monitor.ask("freeze the disks of", ask).await
    }

    async fn quiesce(&self, vm: VmId) -> Result<u32, HvError> {
        let machine = self.running("quiesce", vm).await?;
        whole(machine.freeze()).await
    }

    async fn unquiesce(&self, vm: VmId) -> Result<(), HvError> {
        let machine = match self.running("thaw", vm).await {
            Ok(machine) => machine,
            // Nothing is frozen in a machine that does not run.
            Err(HvError::NotRunning { .. }) => return Ok(()),
            Err(e) => return Err(e),
        };
        whole(async move { machine.thaw().await }).await
    }

    async fn screen(&self, vm: VmId) -> Result<Vec<u8>, HvError> {
        let machine = self.running("take the screen of", vm).await?;
        let path = machine.dir.screen();
        let ask = move |q: Arc<qmp::Qmp>| async move {
            qmp::screen(&q, vm, &path).await?;
            // The next one writes to the same file.
            tokio::fs::read(&path).await.map_err(HvError::io("read", &path))
        };
        machine.monitor.ask("take the screen of", ask).await
    }

    async fn dial(&self, vm: VmId, port: Port) -> Result<UnixStream, HvError> {
        let op = "connect to";
        let dir = &self.running(op, vm).await?.dir;
        let socket = match port {
            Port::Screen => dir.vnc(),
            Port::Serial => dir.serial(),
        };
        let connected = UnixStream::connect(socket).await;
        connected.map_err(|source| HvError::Lost { op, vm, source })
    }

    fn serial_log(&self, vm: VmId) -> PathBuf {
        RunDir::new(&self.inner.run, vm).serial_log()
    }

    async fn watch_boot(&self, vm: VmId, expect: &BootExpectation, say: Say<'_>) -> Result<Proof, BootError> {
        let machine = match self.running("watch", vm).await {
            Ok(machine) => machine,
            Err(HvError::NotRunning { .. }) => {
                return Err(BootError::Ended(RunDir::new(&self.inner.run, vm).last_words()));
            }
            Err(e) => return Err(BootError::Watch(e)),
        };
        let Machine {
            dir,
            monitor,
            agent,
            process,
            ..
        } = &*machine;
        boot::watch(dir, &monitor.seen, agent, process.power_on, expect, say).await
    }

    fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.inner.events.subscribe()
    }

    async fn hurry(&self) {
        self.inner.hurry.notify_one();
    }

    async fn forget(&self, vm: VmId) -> Result<(), HvError> {
        self.inner.forget(vm).await
    }
}
