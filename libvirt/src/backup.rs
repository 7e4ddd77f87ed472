//! How a backup is begun and ended.

use crate::connection::{Connection, Found};
use crate::error::{Error, Result};
use crate::hold::Hold;
use crate::machine::{Disk, Machine, escaped};
use crate::moment::{Backup, BackupDisk, Quiesced, Since, Wanted};
use crate::nbd::{self, Export};
use crate::raw::{self, Event, Events};
use crate::reach::{Place, Reach, Way};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use vault::Source;
use virt::error::ErrorNumber;
use virt_sys as sys;

/// What is ours begins with it.
const OURS: &str = "offshoot.";
/// How long a backup that is ended may take for it.
const ENDING: Duration = Duration::from_secs(60);
/// Where what a machine overwrites goes while it is read, for disks that lie in no file.
const SCRATCH: &str = "/var/lib/libvirt/images";
/// How many characters of its name libvirt puts into the name of a machine's directory.
const SHORT: usize = 20;

/// A machine that is started without its processors, and is turned off when this is over.
struct Awake {
    found: Found,
    on: bool,
}

impl Awake {
    /// Starts a machine that is off. It goes with the connection: nobody finds it standing around.
    fn new(found: Found) -> Result<Self> {
        let asleep = !found.is_active()?;
        if asleep {
            if found.call("look for a saved state", |d| d.has_managed_save(0))? {
                return Err(found.refused(
                    "its memory is saved, and its disks are no use without: start it, or remove that (virsh managedsave-remove)",
                ));
            }
            let flags = sys::VIR_DOMAIN_START_PAUSED | sys::VIR_DOMAIN_START_AUTODESTROY;
            found.call("start without processors", |d| d.create_with_flags(flags))?;
        }
        Ok(Self { found, on: asleep })
    }

    fn end(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.on) {
            return Ok(());
        }
        match self.found.state()? {
            sys::VIR_DOMAIN_PAUSED => self
                .found
                .call("turn off what was started to be read", |d| d.destroy()),
            // Somebody has resumed it: that machine is in use.
            sys::VIR_DOMAIN_RUNNING => Err(Error::Started(self.found.name.clone())),
            _ => Ok(()),
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            tracing::warn!(error = %e, "a machine that was started to be read");
        }
    }
}

/// What has to be ended.
pub(crate) struct Work {
    connection: Connection,
    // Before what holds it.
    awake: Awake,
    _hold: Hold,
    /// What the names of its exports begin with.
    prefix: String,
    checkpoint: Option<String>,
    _reach: Option<Reach>,
}

impl Work {
    pub(crate) fn end(&mut self) -> Result<()> {
        self.end_job()?;
        self.awake.end()
    }

    /// Another may have ended it, and begun its own.
    fn end_job(&self) -> Result<()> {
        let found = &self.awake.found;
        match at_work(found)?.is_some_and(|xml| is_of(&xml, &self.prefix)) {
            true => end_job(&self.connection, found),
            false => Ok(()),
        }
    }

    pub(crate) fn leave(mut self) {
        self.awake.on = false;
    }

    /// Ends it, and forgets the moment: what has changed is told since the one before.
    pub(crate) fn undo(&mut self) {
        let ended = self.end_job();
        if let Some(checkpoint) = &self.checkpoint
            && let Err(e) = raw::delete_checkpoint(&self.awake.found.domain, checkpoint, false)
            && e.code() != ErrorNumber::NoDomainCheckpoint
        {
            tracing::warn!(error = %e, checkpoint, "remove a checkpoint");
        }
        if let Err(e) = ended.and_then(|()| self.awake.end()) {
            tracing::warn!(error = %e, "end a backup");
        }
    }
}

/// Whether a backup is at work on a machine, and what it is.
fn at_work(found: &Found) -> Result<Option<String>> {
    match raw::backup_xml(&found.domain) {
        Ok(xml) => Ok(Some(xml)),
        Err(e)
            if matches!(
                e.code(),
                ErrorNumber::NoDomainBackup | ErrorNumber::OperationInvalid
            ) =>
        {
            Ok(None)
        }
        Err(source) => found.call("look for backups", |_| Err(source)),
    }
}

/// Ends the backup that is at work, if there is one, and waits until it is over.
fn end_job(connection: &Connection, found: &Found) -> Result<()> {
    let (wake, over) = channel();
    let wake = Box::new(move || wake.send(()).unwrap_or_default());
    let events = found.call("wait for events", |domain| {
        Events::new(&connection.connect, domain, Event::JobOver, wake)
    })?;
    let ended = (|| {
        if at_work(found)?.is_none() {
            return Ok(());
        }
        if let Err(source) = raw::abort_job(&found.domain)
            && at_work(found)?.is_some()
        {
            return found.call("end the backup", |_| Err(source));
        }
        let until = Instant::now() + ENDING;
        while at_work(found)?.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if over.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                return Err(Error::Busy(found.name.clone()));
            }
        }
        Ok(())
    })();
    events.end(&connection.connect);
    ended
}

fn prefix(key: &str) -> String {
    format!("{OURS}{key}.")
}

/// Whether a backup that is at work is one whose names begin like this.
fn is_of(xml: &str, prefix: &str) -> bool {
    xml.contains(&format!("exportname='{prefix}"))
}

/// What libvirt is asked for.
struct Plan<'a> {
    found: &'a Found,
    machine: &'a Machine,
    /// The moment's name, which those of all that is shown begin with.
    checkpoint: String,
    /// Where to listen: at the first that is free.
    places: Vec<Place>,
    /// In the names of what is made: that of an earlier try may be there still.
    tag: String,
}

impl Plan<'_> {
    fn export(&self, disk: &Disk) -> String {
        format!("{}.{}", self.checkpoint, disk.target)
    }

    fn bitmap(&self) -> String {
        format!("{}.changed", self.checkpoint)
    }

    fn backup(&self, place: &Place, since: Option<&Since>) -> String {
        let mut disks = String::new();
        for disk in &self.machine.disks {
            let since = since.filter(|since| disk.keeps_bitmaps() && since.targets.contains(&disk.target));
            let mode = match since {
                Some(since) => format!(
                    "backupmode='incremental' incremental='{}' exportbitmap='{}'",
                    escaped(&since.checkpoint),
                    escaped(&self.bitmap())
                ),
                None => "backupmode='full'".to_owned(),
            };
            let beside = disk.source.as_deref().filter(|_| disk.is_file);
            let dir = beside
                .and_then(|file| file.rsplit_once('/'))
                .map_or(SCRATCH, |(dir, _)| dir);
            let scratch = format!("{dir}/offshoot-{}-{}.scratch", self.tag, disk.target);
            disks.push_str(&format!(
                "<disk name='{}' type='file' backup='yes' exportname='{}' {mode}><scratch file='{}'/></disk>",
                escaped(&disk.target),
                escaped(&self.export(disk)),
                escaped(&scratch),
            ));
        }
        format!(
            "<domainbackup mode='pull'>{}<disks>{disks}</disks></domainbackup>",
            place.xml()
        )
    }

    /// Nothing where no disk can remember what changes.
    fn moment(&self) -> Option<String> {
        let mut disks = String::new();
        for disk in self.machine.disks.iter().filter(|disk| disk.keeps_bitmaps()) {
            disks.push_str(&format!(
                "<disk name='{}' checkpoint='bitmap'/>",
                escaped(&disk.target)
            ));
        }
        (!disks.is_empty()).then(|| {
            format!(
                "<domaincheckpoint><name>{}</name><disks>{disks}</disks></domaincheckpoint>",
                escaped(&self.checkpoint)
            )
        })
    }

    /// Answers where QEMU listens; nothing where all places are taken.
    fn begin(&self, since: Option<&Since>) -> std::result::Result<Option<Place>, virt::error::Error> {
        let moment = self.moment();
        let mut tries = self.places.iter().map(|place| {
            let backup = self.backup(place, since);
            raw::backup(&self.found.domain, &backup, moment.as_deref()).map(|()| place.clone())
        });
        let done = tries.find(|tried| !tried.as_ref().is_err_and(is_taken));
        done.transpose()
    }

    fn disks(&self, reach: &Reach, since: Option<&Since>) -> io::Result<Vec<BackupDisk>> {
        let mut all = Vec::new();
        for disk in &self.machine.disks {
            let export = self.export(disk);
            let source = Export::open(reach.dial(), &export)?;
            let told = since.filter(|since| disk.keeps_bitmaps() && since.targets.contains(&disk.target));
            let changed = told.map(|_| nbd::changed(&reach.dial(), &export, &self.bitmap()));
            all.push(BackupDisk {
                disk: Disk {
                    bytes: source.bytes(),
                    ..disk.clone()
                },
                source: Arc::new(source),
                changed: changed.transpose()?,
            });
        }
        Ok(all)
    }
}

/// Whether a failure says that somebody listens there already.
fn is_taken(e: &virt::error::Error) -> bool {
    e.message().contains("Address already in use")
}

/// Whether a failure says that what has changed cannot be told, rather than that a backup cannot be made at all now.
fn is_lost(e: &virt::error::Error) -> bool {
    matches!(
        e.code(),
        ErrorNumber::CheckpointInconsistent
            | ErrorNumber::NoDomainCheckpoint
            | ErrorNumber::InvalidDomainCheckpoint
            | ErrorNumber::InvalidArg
            | ErrorNumber::ConfigUnsupported
            | ErrorNumber::OperationUnsupported
            | ErrorNumber::OperationFailed
            | ErrorNumber::InternalError
    )
}

impl Connection {
    /// Begins a backup of a machine. It blocks until its disks can be read: seconds, where the machine has to be started for it.
    ///
    /// What an earlier backup with the same key has left, when the process was killed, is ended first.
    ///
    /// # Errors
    ///
    /// The machine is gone, cannot be read, or is busy with somebody else's backup. Then nothing stays of it.
    pub fn back_up(&self, wanted: &Wanted) -> Result<Backup> {
        let hold = Hold::new(&wanted.uuid)?;
        let found = self.found(&wanted.uuid)?;
        let name = found.name.clone();
        let unread = |source| Error::Read {
            op: "open the disks",
            domain: name.clone(),
            source,
        };
        let way = Way::find(&self.uri).map_err(unread)?;
        let prefix = prefix(&wanted.key);
        if let Some(xml) = at_work(&found)? {
            if !is_of(&xml, &prefix) {
                return Err(Error::Busy(found.name));
            }
            end_job(self, &found)?;
        }
        let off = !found.is_active()?;
        let mut work = Work {
            connection: self.clone(),
            awake: Awake::new(found)?,
            _hold: hold,
            prefix: format!("{prefix}{}.", wanted.number),
            checkpoint: None,
            _reach: None,
        };
        let found = &work.awake.found;
        let machine = found.machine()?;
        if let Some(why) = machine.refusal {
            return Err(found.refused(why));
        }
        let checkpoint = format!("{prefix}{}", wanted.number);
        let names = found.call("list the checkpoints", raw::checkpoints)?;
        if names.contains(&checkpoint) {
            // Of an earlier try.
            found.call("remove a checkpoint", |d| {
                raw::delete_checkpoint(d, &checkpoint, false)
            })?;
        }
        let id = uuid::Uuid::new_v4();
        let tag = id.simple().to_string();
        let plan = Plan {
            machine: &machine,
            checkpoint: checkpoint.clone(),
            places: way.places(self.socket(found, &tag), id.as_u128() as u16),
            tag,
            found,
        };
        let mut since = wanted.since.as_ref();
        let mut lost = None;
        if let Some(before) = since.filter(|since| !names.contains(&since.checkpoint)) {
            lost = Some(format!(
                "libvirt has no checkpoint {} any more",
                before.checkpoint
            ));
            since = None;
        }
        let quiesced = match (wanted.quiesce, off) {
            (_, true) => Quiesced::Off,
            (false, false) => Quiesced::No,
            (true, false) => {
                // Of an earlier try that ended in between; else it says that there is nothing to thaw.
                raw::thaw(&found.domain).ok();
                match raw::freeze(&found.domain) {
                    Ok(()) => Quiesced::Yes,
                    Err(e) => Quiesced::Failed(e.message().to_owned()),
                }
            }
        };
        let mut begun = plan.begin(since);
        if let (Err(e), Some(_)) = (&begun, since)
            && is_lost(e)
        {
            lost = Some(e.message().to_owned());
            since = None;
            begun = plan.begin(None);
        }
        let thawed = match quiesced {
            Quiesced::Yes => found.call("thaw the file systems", raw::thaw),
            _ => Ok(()),
        };
        let place = match begun {
            Ok(Some(place)) => place,
            Ok(None) => return Err(Error::Taken(name)),
            Err(e) if e.code() == ErrorNumber::OperationTimeout => {
                return Err(Error::Busy(name));
            }
            Err(source)
                if source.message().contains("'nbd-server-start'")
                    || source.message().contains("'object-add'") =>
            {
                return Err(Error::Show { domain: name, source });
            }
            Err(source) => return found.call("begin a backup", |_| Err(source)),
        };
        let kept = plan.moment().map(|_| checkpoint);
        let read = thawed.and_then(|()| {
            let read = way.open(place);
            let read = read.and_then(|reach| Ok((plan.disks(&reach, since)?, reach)));
            read.map_err(unread)
        });
        work.checkpoint.clone_from(&kept);
        match read {
            Ok((disks, reach)) => {
                work._reach = Some(reach);
                Ok(Backup {
                    machine,
                    disks,
                    checkpoint: kept,
                    quiesced,
                    lost,
                    work: Some(work),
                })
            }
            Err(e) => {
                work.undo();
                Err(e)
            }
        }
    }

    /// Where QEMU is to listen: a place that it may write to.
    fn socket(&self, found: &Found, tag: &str) -> String {
        if self.uri.is_session() {
            return format!("/tmp/offshoot-{tag}.sock");
        }
        // The directory that QEMU has there for its monitor.
        let id = found.domain.get_id().unwrap_or_default();
        let short: String = found.name.chars().take(SHORT).collect();
        format!("/var/lib/libvirt/qemu/domain-{id}-{short}/offshoot-{tag}.sock")
    }

    /// The moments that libvirt has kept of a machine for this key, the oldest first.
    ///
    /// # Errors
    ///
    /// The machine is gone, or cannot be asked.
    pub fn moments(&self, uuid: &str, key: &str) -> Result<Vec<String>> {
        let found = self.found(uuid)?;
        let mut names = found.call("list the checkpoints", raw::checkpoints)?;
        names.retain(|name| name.starts_with(&prefix(key)));
        Ok(names)
    }

    /// Forgets moments of this key that `which` says, and ends a backup of this key that is at work. Of a machine that is off only
    /// where `wake` says so: it is started for that, without its processors.
    ///
    /// # Errors
    ///
    /// The machine is gone, or one of them stays.
    pub fn forget(&self, uuid: &str, key: &str, which: impl Fn(&str) -> bool, wake: bool) -> Result<()> {
        let _hold = Hold::new(uuid)?;
        let mut names = self.moments(uuid, key)?;
        names.retain(|name| which(name));
        let found = self.found(uuid)?;
        if at_work(&found)?.is_some_and(|xml| is_of(&xml, &prefix(key))) {
            end_job(self, &found)?;
        }
        if names.is_empty() || (!wake && !found.is_active()?) {
            return Ok(());
        }
        let mut awake = Awake::new(found)?;
        for name in names {
            match raw::delete_checkpoint(&awake.found.domain, &name, false) {
                Ok(()) => {}
                Err(e) if e.code() == ErrorNumber::NoDomainCheckpoint => {}
                // Its bitmaps are lost: only its name is left.
                Err(e) if is_lost(&e) => awake
                    .found
                    .call("remove a checkpoint", |d| raw::delete_checkpoint(d, &name, true))?,
                Err(source) => return awake.found.call("remove a checkpoint", |_| Err(source)),
            }
        }
        awake.end()
    }
}
