//! What `virt` has no words for: checkpoints, backups, quiescing, and the events of domains.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// Starts what answers keepalives and hands out events, once for the process.
pub(crate) fn events() -> Result<(), Error> {
    static STARTED: OnceLock<Result<(), Error>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        // Else libvirt prints all errors.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl()?;
        std::thread::spawn(|| {
            loop {
                if let Err(e) = virt::event::event_run_default_impl() {
                    tracing::warn!(error = %e, "wait for what libvirt says");
                }
            }
        });
        Ok(())
    });
    started.clone()
}

fn done(result: c_int) -> Result<(), Error> {
    if result < 0 {
        Err(Error::last_error())
    } else {
        Ok(())
    }
}

/// A text of ours, as C has it: none has a zero in it, for they are made of names that libvirt took or XML.
fn c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// A checkpoint of a domain, held.
struct Checkpoint(sys::virDomainCheckpointPtr);

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // SAFETY: it was handed to us, and is given back once.
        unsafe { sys::virDomainCheckpointFree(self.0) };
    }
}

/// The names of a domain's checkpoints, each before those that came after it.
pub(crate) fn checkpoints(domain: &Domain) -> Result<Vec<String>, Error> {
    let mut list = null_mut();
    // SAFETY: the domain is held; the list and what is in it are ours from here on.
    let count = unsafe {
        sys::virDomainListAllCheckpoints(
            domain.as_ptr(),
            &mut list,
            sys::VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL,
        )
    };
    done(count)?;
    let mut names = Vec::new();
    for n in 0..count as usize {
        // SAFETY: the list has `count` checkpoints, each is held for us.
        let checkpoint = Checkpoint(unsafe { *list.add(n) });
        // SAFETY: the name lives as long as its checkpoint.
        let name = unsafe { sys::virDomainCheckpointGetName(checkpoint.0) };
        if !name.is_null() {
            // SAFETY: a text of libvirt's ends with a zero.
            names.push(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
        }
    }
    // SAFETY: libvirt has allocated it for us by malloc.
    unsafe { libc::free(list.cast()) };
    Ok(names)
}

/// Removes a checkpoint; what it remembers goes to the one before. With `only_name` its bitmaps are left alone.
pub(crate) fn delete_checkpoint(domain: &Domain, name: &str, only_name: bool) -> Result<(), Error> {
    let flags = match only_name {
        true => sys::VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY,
        false => 0,
    };
    // SAFETY: the domain is held, the name ends with a zero.
    let found = unsafe { sys::virDomainCheckpointLookupByName(domain.as_ptr(), c(name).as_ptr(), 0) };
    if found.is_null() {
        return Err(Error::last_error());
    }
    let checkpoint = Checkpoint(found);
    // SAFETY: the checkpoint is held.
    done(unsafe { sys::virDomainCheckpointDelete(checkpoint.0, flags) })
}

/// Begins a backup, and makes a checkpoint of its moment.
pub(crate) fn backup(domain: &Domain, xml: &str, checkpoint: Option<&str>) -> Result<(), Error> {
    let (xml, checkpoint) = (c(xml), checkpoint.map(c));
    let checkpoint = checkpoint.as_ref().map_or(null(), |text| text.as_ptr());
    // SAFETY: the domain is held, the texts end with zeros and outlive the call.
    done(unsafe { sys::virDomainBackupBegin(domain.as_ptr(), xml.as_ptr(), checkpoint, 0) })
}

/// What backup is at work on a domain.
pub(crate) fn backup_xml(domain: &Domain) -> Result<String, Error> {
    // SAFETY: the domain is held.
    let text = unsafe { sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0) };
    if text.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: a text of libvirt's ends with a zero.
    let xml = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: libvirt has allocated it for us by malloc.
    unsafe { libc::free(text.cast()) };
    Ok(xml)
}

/// Ends the job that is at work on a domain.
pub(crate) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is held.
    done(unsafe { sys::virDomainAbortJob(domain.as_ptr()) })
}

/// Has the guest's agent freeze its file systems.
pub(crate) fn freeze(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is held; no list means all of them.
    done(unsafe { sys::virDomainFSFreeze(domain.as_ptr(), null_mut(), 0, 0) })
}

/// Has the guest's agent thaw its file systems.
pub(crate) fn thaw(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is held; no list means all of them.
    done(unsafe { sys::virDomainFSThaw(domain.as_ptr(), null_mut(), 0, 0) })
}

/// What is waited for.
pub(crate) enum Event {
    /// A machine starts, stops, or what else becomes of it.
    Lifecycle,
    /// A job of a machine is over.
    JobOver,
}

type Wake = Box<dyn Fn() + Send + Sync>;

unsafe extern "C" fn changed(
    _connect: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    wake: *mut c_void,
) -> c_int {
    // SAFETY: it is what `Events::new` has boxed, and lives until `forget`.
    let wake = unsafe { &*wake.cast::<Wake>() };
    wake();
    0
}

unsafe extern "C" fn over(
    _connect: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    _figures: sys::virTypedParameterPtr,
    _count: c_int,
    wake: *mut c_void,
) {
    // SAFETY: as above.
    let wake = unsafe { &*wake.cast::<Wake>() };
    wake();
}

unsafe extern "C" fn forget(wake: *mut c_void) {
    // SAFETY: it is what `Events::new` has boxed, and libvirt calls this once, when it needs it no more.
    drop(unsafe { Box::from_raw(wake.cast::<Wake>()) });
}

/// Wakes somebody whenever something becomes of a domain, until it is ended.
pub(crate) struct Events {
    number: c_int,
}

impl Events {
    pub(crate) fn new(connect: &Connect, domain: &Domain, event: Event, wake: Wake) -> Result<Self, Error> {
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
        type JobOver = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            sys::virTypedParameterPtr,
            c_int,
            *mut c_void,
        );
        type Any = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        let (id, callback) = match event {
            Event::Lifecycle => (
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                // SAFETY: libvirt calls it as what it is, by the event's id.
                unsafe { std::mem::transmute::<Lifecycle, Any>(changed) },
            ),
            Event::JobOver => (
                sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                // SAFETY: libvirt calls it as what it is, by the event's id.
                unsafe { std::mem::transmute::<JobOver, Any>(over) },
            ),
        };
        let wake = Box::into_raw(Box::new(wake));
        // SAFETY: connection and domain are held, and `wake` lives until libvirt calls `forget`.
        let number = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connect.as_ptr(),
                domain.as_ptr(),
                id as c_int,
                Some(callback),
                wake.cast(),
                Some(forget),
            )
        };
        if number < 0 {
            let error = Error::last_error();
            // SAFETY: what was not taken is ours still.
            drop(unsafe { Box::from_raw(wake) });
            return Err(error);
        }
        Ok(Self { number })
    }

    /// Wakes nobody any more.
    pub(crate) fn end(&self, connect: &Connect) {
        // SAFETY: the connection is held. That it is not known any more does no harm.
        unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), self.number) };
    }
}
