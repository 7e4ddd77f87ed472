//! The serial lines of machines, live, for any number of viewers.
//!
//! QEMU serves one client at a serial port, and its guest waits for one that does not read. So nobody looks through that:
//! what a guest says is read from its log, which QEMU writes whether or not anybody looks, each viewer as far as it has come. What
//! was said before and what is said now are one file: nothing is missed in between, nothing comes twice, and a viewer
//! that is slow holds nobody up. The port is only typed into, and is taken when somebody types.

use crate::hypervisor::{HvError, Hypervisor, MachineEvent, Port, RunState};
use axum::body::Bytes;
use futures::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use shared::VmId;
use shared::console::Note;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// How much a viewer is told at once, in bytes.
const PIECE: usize = 16 << 10;
/// A viewer that is further behind than this goes on near the end, in bytes.
const BEHIND: u64 = 1 << 20;
/// How much of what was said before a viewer can have at most, in bytes: it is not behind from the start.
const BEFORE: u64 = BEHIND / 2;
/// How near, in bytes.
const NEAR: u64 = 64 << 10;
/// How many messages may wait to be typed; then those who type wait.
const TYPED: usize = 16;
/// How long the guest may take to read what was typed when nobody looks any more.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The serial lines that somebody looks at.
pub struct Consoles {
    hypervisor: Arc<dyn Hypervisor>,
    lines: Mutex<HashMap<VmId, Weak<Line>>>,
    /// Those who look, at screens too: the server waits for them when it stops.
    pub viewers: TaskTracker,
}

impl Consoles {
    /// Of the machines of this host.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self {
            hypervisor,
            lines: Mutex::default(),
            viewers: TaskTracker::new(),
        }
    }

    /// The serial line of a machine that runs.
    pub async fn line(&self, vm: VmId) -> Result<Arc<Line>, HvError> {
        let mut lines = self.lines.lock().await;
        lines.retain(|_, line| line.upgrade().is_some_and(|line| line.is_live()));
        if let Some(line) = lines.get(&vm).and_then(Weak::upgrade) {
            return Ok(line);
        }
        // Listened to before it is asked: what ends in between is heard.
        let events = self.hypervisor.events();
        if self.hypervisor.state(vm).await == RunState::Stopped {
            let op = "watch";
            return Err(HvError::NotRunning { op, vm });
        }
        let line = Arc::new(Line::open(vm, self.hypervisor.clone(), events)?);
        lines.insert(vm, Arc::downgrade(&line));
        Ok(line)
    }
}

/// A machine's serial line, from its opening to the end of the machine, or until nobody looks.
pub struct Line {
    log: File,
    /// What is typed.
    pub input: mpsc::Sender<Bytes>,
    /// Told when the log has grown; closed when the machine has ended.
    grown: watch::Receiver<()>,
}

impl Line {
    fn open(
        vm: VmId,
        hypervisor: Arc<dyn Hypervisor>,
        events: broadcast::Receiver<MachineEvent>,
    ) -> Result<Self, HvError> {
        let path = hypervisor.serial_log(vm);
        let (log, writes) = follow(&path).map_err(HvError::io("follow", &path))?;
        let (input, typed) = mpsc::channel(TYPED);
        let (grows, grown) = watch::channel(());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped(vm, hypervisor.as_ref(), events) => {}
                () = notice(writes, grows) => {}
                done = type_in(vm, hypervisor.as_ref(), typed) => {
                    if let Err(e) = done {
                        tracing::warn!(%vm, error = %crate::db::chain(&e), "the serial port takes nothing");
                    }
                }
            }
        });
        Ok(Self { log, input, grown })
    }

    fn is_live(&self) -> bool {
        self.grown.has_changed().is_ok()
    }

    /// A viewer that begins so many bytes before the end, as far as there are, and 512 KiB at most.
    pub fn view(&self, last: u64) -> io::Result<View<'_>> {
        let len = self.log.metadata()?.len();
        let backlog = last.min(len).min(BEFORE);
        Ok(View {
            log: &self.log,
            grown: self.grown.clone(),
            at: len - backlog,
            first: Some(Note::Backlog(backlog)),
        })
    }
}

/// What a viewer is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// What the guest said.
    Bytes(Vec<u8>),
    /// What is to be known beside it.
    Note(Note),
}

/// A viewer's place in a serial line.
pub struct View<'a> {
    log: &'a File,
    grown: watch::Receiver<()>,
    at: u64,
    first: Option<Note>,
}

impl View<'_> {
    /// The next there is to tell; none when the machine has ended. Its future may be dropped at any time.
    pub async fn next(&mut self) -> io::Result<Option<Said>> {
        loop {
            // Looked for before it is read: what is written in between wakes the next.
            let live = match self.grown.has_changed() {
                Ok(_) => {
                    self.grown.borrow_and_update();
                    true
                }
                Err(_) => false,
            };
            if let Some(said) = self.read()? {
                return Ok(Some(said));
            }
            if !live {
                return Ok(None);
            }
            // Closed, it is read once more.
            let _ = self.grown.changed().await;
        }
    }

    fn read(&mut self) -> io::Result<Option<Said>> {
        if let Some(note) = self.first.take() {
            return Ok(Some(Said::Note(note)));
        }
        let len = self.log.metadata()?.len();
        if len < self.at {
            self.at = 0;
            return Ok(Some(Said::Note(Note::Cut {})));
        }
        if len - self.at > BEHIND {
            let skipped = len - NEAR - self.at;
            self.at = len - NEAR;
            return Ok(Some(Said::Note(Note::Skipped(skipped))));
        }
        let mut piece = vec![0; PIECE.min((len - self.at) as usize)];
        let n = self.log.read_at(&mut piece, self.at)?;
        piece.truncate(n);
        self.at += n as u64;
        Ok((n > 0).then_some(Said::Bytes(piece)))
    }
}

fn follow(path: &Path) -> io::Result<(File, EventStream<[u8; 1024]>)> {
    let inotify = Inotify::init()?;
    inotify.watches().add(path, WatchMask::MODIFY)?;
    Ok((File::open(path)?, inotify.into_event_stream([0; 1024])?))
}

/// Tells that the log has grown, until that cannot be seen any more.
async fn notice(mut writes: EventStream<[u8; 1024]>, grows: watch::Sender<()>) {
    while let Some(Ok(_)) = writes.next().await {
        grows.send_replace(());
    }
}

/// Returns when the machine has ended.
async fn stopped(vm: VmId, hypervisor: &dyn Hypervisor, mut events: broadcast::Receiver<MachineEvent>) {
    loop {
        match events.recv().await {
            Ok(event) if event.vm == vm && event.state == RunState::Stopped => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) if hypervisor.state(vm).await == RunState::Stopped => return,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Types what comes, until nobody looks any more and the guest has it.
async fn type_in(
    vm: VmId,
    hypervisor: &dyn Hypervisor,
    mut typed: mpsc::Receiver<Bytes>,
) -> Result<(), HvError> {
    let Some(first) = typed.recv().await else {
        return Ok(());
    };
    let op = "type to";
    let lost = |source| HvError::Lost { op, vm, source };
    let (mut says, mut takes) = hypervisor.dial(vm, Port::Serial).await?.into_split();
    // It stands in the log as well. Here it is only taken, so that the guest waits for nobody.
    let taken = async { tokio::io::copy(&mut says, &mut tokio::io::sink()).await };
    let given = async {
        let mut next = Some(first);
        while let Some(bytes) = next {
            takes.write_all(&bytes).await?;
            next = typed.recv().await;
        }
        // QEMU closes its end when it has read to this one; what a closed socket still holds it may drop.
        takes.shutdown().await
    };
    tokio::pin!(taken);
    tokio::select! {
        ended = &mut taken => ended.map(drop).map_err(lost),
        given = given => {
            given.map_err(lost)?;
            let _ = timeout(READ_WITHIN, taken).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
