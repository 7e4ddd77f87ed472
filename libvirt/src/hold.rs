//! Who works on a machine: one at a time of this process.

use crate::error::{Error, Result};
use std::collections::HashSet;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one waits for another: longer than it takes to end a backup.
const PATIENCE: Duration = Duration::from_secs(90);

static HELD: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
static FREE: Condvar = Condvar::new();

fn held() -> MutexGuard<'static, HashSet<String>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine, held until this is dropped: what is started to be read is not taken for one that runs.
pub(crate) struct Hold(String);

impl Hold {
    pub(crate) fn new(uuid: &str) -> Result<Self> {
        let uuid = uuid.to_ascii_lowercase();
        let waited = FREE.wait_timeout_while(held(), PATIENCE, |held| held.contains(&uuid));
        let (mut held, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && held.contains(&uuid) {
            return Err(Error::Busy(uuid));
        }
        held.insert(uuid.clone());
        Ok(Self(uuid))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        held().remove(&self.0);
        FREE.notify_all();
    }
}
