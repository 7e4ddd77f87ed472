//! A connection to a libvirt, and what its machines are told by it.

use crate::error::{Error, Result};
use crate::hold::Hold;
use crate::machine::{self, Machine};
use crate::raw::{self, Event, Events};
use crate::uri::Uri;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt_sys as sys;

/// The first libvirt that tells what has changed without being asked to be experimental.
const OLDEST: u32 = 7_002_000;
/// After how many seconds of silence the other side is asked whether it is there, and how often it may not answer.
const KEEPALIVE: (i32, u32) = (5, 6);

/// A connection to a libvirt.
#[derive(Clone)]
pub struct Connection {
    pub(crate) connect: Arc<Connect>,
    pub(crate) uri: Uri,
}

/// A machine that was found, with what it is called where something fails.
pub(crate) struct Found {
    pub(crate) domain: Domain,
    pub(crate) name: String,
}

impl Found {
    pub(crate) fn call<T>(
        &self,
        op: &'static str,
        call: impl FnOnce(&Domain) -> std::result::Result<T, virt::error::Error>,
    ) -> Result<T> {
        call(&self.domain).map_err(|source| Error::Call {
            op,
            domain: self.name.clone(),
            source,
        })
    }

    pub(crate) fn state(&self) -> Result<sys::virDomainState> {
        self.call("look at the state", |d| d.get_state().map(|(state, _)| state))
    }

    pub(crate) fn is_active(&self) -> Result<bool> {
        let state = self.state()?;
        Ok(!matches!(
            state,
            sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED
        ))
    }

    /// What it is, without the sizes of its disks.
    pub(crate) fn machine(&self) -> Result<Machine> {
        let active = self.is_active()?;
        let xml = self.call("read the description", |d| d.get_xml_desc(0))?;
        machine::read(&xml, active).map_err(|why| self.refused(why))
    }

    pub(crate) fn refused(&self, why: impl Into<String>) -> Error {
        Error::Refused {
            domain: self.name.clone(),
            why: why.into(),
        }
    }

    /// What it is. What cannot be carried over says why.
    fn look(&self) -> Result<Machine> {
        let mut machine = self.machine()?;
        for disk in &mut machine.disks {
            match self.domain.get_block_info(&disk.target, 0) {
                Ok(info) => disk.bytes = info.capacity,
                Err(e) => {
                    let why = format!("its disk {} cannot be looked at: {}", disk.target, e.message());
                    machine.refusal.get_or_insert(why);
                }
            }
        }
        if !self.call("look whether it stays", Domain::is_persistent)? {
            let why = "it is transient: libvirt forgets it when it stops; define it first (virsh define)";
            machine.refusal.get_or_insert_with(|| why.to_owned());
        }
        Ok(machine)
    }
}

/// Tells when something becomes of a machine.
pub struct Watch {
    connection: Connection,
    events: Events,
    changed: UnboundedReceiver<()>,
}

impl Watch {
    /// Waits until something has become of the machine, since it is watched or was last waited for.
    pub async fn changed(&mut self) {
        self.changed.recv().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.events.end(&self.connection.connect);
    }
}

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// It is not reached, or is none whose machines could be read.
    pub fn open(uri: &Uri) -> Result<Self> {
        let failed = |source| Error::Open {
            uri: Box::new(uri.clone()),
            source,
        };
        raw::events().map_err(failed)?;
        let connect = Connect::open(Some(&uri.asked())).map_err(failed)?;
        let kind = connect.get_type().map_err(failed)?;
        if kind != "QEMU" {
            let uri = Box::new(uri.clone());
            return Err(Error::NotQemu { uri, kind });
        }
        let version = connect.get_lib_version().map_err(failed)?;
        if version < OLDEST {
            return Err(Error::Old {
                uri: Box::new(uri.clone()),
                found: format!("{}.{}", version / 1_000_000, version / 1000 % 1000),
            });
        }
        connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1).map_err(failed)?;
        Ok(Self {
            connect: Arc::new(connect),
            uri: uri.clone(),
        })
    }

    pub(crate) fn found(&self, uuid: &str) -> Result<Found> {
        let gone = || Error::Gone(uuid.to_owned());
        let id: uuid::Uuid = uuid.parse().map_err(|_| gone())?;
        match Domain::lookup_by_uuid(&self.connect, id) {
            Ok(domain) => {
                let name = domain.get_name().unwrap_or_else(|_| uuid.to_owned());
                Ok(Found { domain, name })
            }
            Err(e) if e.code() == ErrorNumber::NoDomain => Err(gone()),
            Err(source) => Err(Error::Call {
                op: "look for the machine",
                domain: uuid.to_owned(),
                source,
            }),
        }
    }

    /// All machines, by name.
    ///
    /// # Errors
    ///
    /// They cannot be listed. One that is removed meanwhile is left out.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let all = self.connect.list_all_domains(0).map_err(|source| Error::Call {
            op: "list the machines",
            domain: self.uri.to_string(),
            source,
        })?;
        let mut machines = Vec::new();
        for domain in all {
            let name = domain.get_name().unwrap_or_default();
            match (Found { domain, name }).look() {
                Ok(machine) => machines.push(machine),
                Err(Error::Call { source, .. }) if source.code() == ErrorNumber::NoDomain => {}
                Err(e) => return Err(e),
            }
        }
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    /// The machine with this UUID.
    ///
    /// # Errors
    ///
    /// It is gone, or cannot be asked.
    pub fn machine(&self, uuid: &str) -> Result<Machine> {
        self.found(uuid)?.look()
    }

    /// Whether a machine runs, or stands still with its memory.
    ///
    /// # Errors
    ///
    /// It is gone, or cannot be asked.
    pub fn is_active(&self, uuid: &str) -> Result<bool> {
        self.found(uuid)?.is_active()
    }

    /// Begins to watch what becomes of a machine.
    ///
    /// # Errors
    ///
    /// It is gone, or cannot be asked.
    pub fn watch(&self, uuid: &str) -> Result<Watch> {
        let found = self.found(uuid)?;
        let (wake, changed) = unbounded_channel();
        // Nobody may be waiting any more.
        let wake = Box::new(move || wake.send(()).unwrap_or_default());
        let events = found.call("wait for events", |domain| {
            Events::new(&self.connect, domain, Event::Lifecycle, wake)
        })?;
        Ok(Watch {
            connection: self.clone(),
            events,
            changed,
        })
    }

    /// Asks a machine to shut down, by its agent or by the power button; whether it does is told by [`Self::watch`]. Answers
    /// whether somebody there may have heard it.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn shut_down(&self, uuid: &str) -> Result<bool> {
        let found = self.found(uuid)?;
        if found.state()? != sys::VIR_DOMAIN_RUNNING {
            return Ok(false);
        }
        found.call("shut down", Domain::shutdown).map(|_| true)
    }

    /// Turns a machine off at once.
    ///
    /// # Errors
    ///
    /// It does not go.
    pub fn power_off(&self, uuid: &str) -> Result<()> {
        let found = self.found(uuid)?;
        match found.domain.destroy() {
            Ok(()) => Ok(()),
            Err(_) if !found.is_active()? => Ok(()),
            Err(source) => found.call("turn off", |_| Err(source)),
        }
    }

    /// Starts a machine that is off; one that is being read is waited for.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(&self, uuid: &str) -> Result<()> {
        let _hold = Hold::new(uuid)?;
        let found = self.found(uuid)?;
        match found.is_active()? {
            true => Ok(()),
            false => found.call("start", Domain::create).map(drop),
        }
    }

    /// Keeps a machine from being started with its host.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn no_autostart(&self, uuid: &str) -> Result<()> {
        let found = self.found(uuid)?;
        found
            .call("turn autostart off", |domain| domain.set_autostart(false))
            .map(drop)
    }
}
