//! What stands for a connection where nothing was built that could make one.

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::moment::{Backup, Wanted};
use crate::uri::Uri;

/// Nothing is one. Behind a private field, so that those who use it are not told that their code is dead.
#[derive(Clone, Copy)]
enum Never {}

/// A connection to a libvirt: there is none.
#[derive(Clone)]
pub struct Connection(Never);

/// Tells when something becomes of a machine: there is none.
pub enum Watch {}

/// What has to be ended: there is none.
pub(crate) enum Work {}

impl Work {
    pub(crate) fn end(&mut self) -> Result<()> {
        match *self {}
    }

    pub(crate) fn leave(self) {
        match self {}
    }

    pub(crate) fn undo(&mut self) {
        match *self {}
    }
}

impl Watch {
    /// Waits until something has become of the machine.
    pub async fn changed(&mut self) {
        match *self {}
    }
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// This build has none.
    pub fn open(_uri: &Uri) -> Result<Self> {
        Err(Error::Absent)
    }

    pub fn machines(&self) -> Result<Vec<Machine>> {
        match self.0 {}
    }

    pub fn machine(&self, _uuid: &str) -> Result<Machine> {
        match self.0 {}
    }

    pub fn is_active(&self, _uuid: &str) -> Result<bool> {
        match self.0 {}
    }

    pub fn watch(&self, _uuid: &str) -> Result<Watch> {
        match self.0 {}
    }

    pub fn shut_down(&self, _uuid: &str) -> Result<bool> {
        match self.0 {}
    }

    pub fn power_off(&self, _uuid: &str) -> Result<()> {
        match self.0 {}
    }

    pub fn start(&self, _uuid: &str) -> Result<()> {
        match self.0 {}
    }

    pub fn no_autostart(&self, _uuid: &str) -> Result<()> {
        match self.0 {}
    }

    pub fn back_up(&self, _wanted: &Wanted) -> Result<Backup> {
        match self.0 {}
    }

    pub fn moments(&self, _uuid: &str, _key: &str) -> Result<Vec<String>> {
        match self.0 {}
    }

    pub fn forget(&self, _uuid: &str, _key: &str, _which: impl Fn(&str) -> bool, _wake: bool) -> Result<()> {
        match self.0 {}
    }
}
