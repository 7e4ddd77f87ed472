//! A data directory has one server.

use super::{Config, ConfigError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};

/// The data directory, held by this process until it is dropped.
#[derive(Debug)]
pub struct DataDirLock(#[allow(dead_code, reason = "held for its lock")] File);

impl DataDirLock {
    /// Makes the directory if it is not there, and takes it for this process alone.
    pub fn take(config: &Config) -> Result<Self, ConfigError> {
        config.make_data_dir()?;
        let path = config.data_dir.join("lock");
        let failed = |source| ConfigError::Lock {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let pid = match file.read_to_string(&mut pid) {
                    Ok(n) if n > 0 => format!(" (pid {})", pid.trim()),
                    _ => String::new(),
                };
                return Err(ConfigError::InUse {
                    path: config.data_dir.clone(),
                    pid,
                });
            }
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::simulated(dir.path().join("data"));
        let first = DataDirLock::take(&config).unwrap();
        let why = DataDirLock::take(&config).unwrap_err().to_string();
        assert!(why.contains(&format!("pid {}", std::process::id())), "{why}");
        drop(first);
        DataDirLock::take(&config).unwrap();
    }
}
