//! Room on file systems, which copies under way will need.

use super::{DiskError, space};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What is promised of file systems.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    /// By file system: bytes that copies under way have still to write.
    promised: Arc<Mutex<HashMap<u64, u64>>>,
}

impl Room {
    /// Takes `need` bytes out of what is free in `dir`, until the promise is dropped.
    pub(super) fn promise(&self, dir: &Path, need: u64) -> Result<Promise, DiskError> {
        let device = std::fs::metadata(dir)
            .map_err(DiskError::io("look at", dir))?
            .dev();
        let free = space(dir)?.free;
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = promised.entry(device).or_default();
        let free = free.saturating_sub(*taken);
        if need > free {
            return Err(DiskError::NoSpace {
                need,
                free,
                dir: dir.to_owned(),
            });
        }
        *taken += need;
        Ok(Promise {
            all: self.promised.clone(),
            device,
            left: Mutex::new(need),
        })
    }
}

/// Room that a copy under way will need.
pub(super) struct Promise {
    all: Arc<Mutex<HashMap<u64, u64>>>,
    device: u64,
    left: Mutex<u64>,
}

impl Promise {
    /// `bytes` are written now, and no longer counted as free by the file system.
    pub(super) fn keep(&self, bytes: u64) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.min(*left);
        *left -= bytes;
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.device) {
            *taken = taken.saturating_sub(bytes);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.keep(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_is_promised_is_not_promised_again() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::default();
        let most = space(dir.path()).unwrap().free / 4 * 3;
        let first = room.promise(dir.path(), most).unwrap();
        let DiskError::NoSpace { need, free, .. } = room.promise(dir.path(), most).err().unwrap() else {
            panic!("not refused for room")
        };
        assert!(need > free, "{need} {free}");
        first.keep(most);
        room.promise(dir.path(), most).unwrap();
        drop(first);
        assert!(room.promised.lock().unwrap().values().all(|left| *left == 0));
    }
}
