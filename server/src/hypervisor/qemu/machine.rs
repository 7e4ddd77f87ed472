//! One machine that is watched, and the freezing of its file systems.

use super::agent;
use super::monitor::Monitor;
use super::process::Process;
use super::rundir::RunDir;
use crate::hypervisor::{HvError, MachineSpec};
use shared::VmId;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio_util::task::AbortOnDropHandle;

/// How long file systems may stay frozen, if nobody thaws them.
const FROZEN: Duration = Duration::from_secs(30);

/// Who holds it is the one whom the agent serves.
pub type Channel = tokio::sync::Mutex<()>;

/// A machine that is watched.
pub struct Machine {
    pub vm: VmId,
    pub dir: RunDir,
    pub process: Process,
    pub monitor: Monitor,
    /// The agent's channel serves one at a time.
    pub agent: Arc<Channel>,
    /// Thaws file systems that nobody thawed.
    thaw: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Machine {
    pub fn new(vm: VmId, dir: RunDir, process: Process, monitor: Monitor) -> Self {
        Self {
            vm,
            dir,
            process,
            monitor,
            agent: Arc::default(),
            thaw: Mutex::default(),
        }
    }

    fn set_thaw(&self, task: Option<AbortOnDropHandle<()>>) {
        *self.thaw.lock().unwrap_or_else(PoisonError::into_inner) = task;
    }

    /// Freezes the file systems; returns how many.
    pub async fn freeze(self: Arc<Self>) -> Result<u32, HvError> {
        if !*self.monitor.seen.agent.borrow() {
            return Err(HvError::NoAgent(self.vm));
        }
        let _channel = self.agent.lock().await;
        let frozen = agent::freeze(&self.dir.agent(), self.vm).await?;
        let machine = Arc::downgrade(&self);
        self.set_thaw(Some(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(FROZEN).await;
            if let Some(machine) = machine.upgrade() {
                tracing::warn!(vm = %machine.vm, "file systems were left frozen: thawing them");
                let channel = machine.agent.clone().lock_owned().await;
                thaw_now(machine.dir.clone(), machine.vm, channel).await;
            }
        }))));
        Ok(frozen)
    }

    /// Thaws the file systems.
    pub async fn thaw(&self) -> Result<(), HvError> {
        let _channel = self.agent.lock().await;
        agent::thaw(&self.dir.agent(), self.vm).await?;
        self.set_thaw(None);
        Ok(())
    }

    /// Has the guest agent give the guest another identity, as a hook in it would have.
    pub async fn become_another(&self, spec: &MachineSpec) -> Result<(), HvError> {
        if !*self.monitor.seen.agent.borrow() {
            return Err(HvError::NoAgent(self.vm));
        }
        let _channel = self.agent.lock().await;
        agent::become_another(&self.dir.agent(), spec).await
    }

    /// Has the guest agent shut the guest down.
    pub async fn shut_down(&self) -> Result<(), HvError> {
        if !*self.monitor.seen.agent.borrow() {
            return Err(HvError::NoAgent(self.vm));
        }
        let _channel = self.agent.lock().await;
        agent::shut_down(&self.dir.agent(), self.vm).await
    }

    /// The server before this one may have ended between freezing and thawing.
    pub fn thaw_if_left_frozen(&self) {
        // Taken before anybody else can have it: who freezes from now on does so after this.
        let Ok(channel) = self.agent.clone().try_lock_owned() else {
            return;
        };
        if *self.monitor.seen.agent.borrow() {
            let thaw = thaw_now(self.dir.clone(), self.vm, channel);
            self.set_thaw(Some(AbortOnDropHandle::new(tokio::spawn(thaw))));
        }
    }
}

async fn thaw_now(dir: RunDir, vm: VmId, _channel: OwnedMutexGuard<()>) {
    if let Err(e) = agent::thaw(&dir.agent(), vm).await {
        tracing::warn!(%vm, error = %e, "thaw the file systems of a machine");
    }
}
