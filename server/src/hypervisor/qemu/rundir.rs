//! A machine's run directory: its sockets, its logs, and the record of its process.

use super::HvError;
use shared::{NetworkId, VmId};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The longest path that a unix socket can have.
const SOCKET_PATH_MAX: usize = 107;
/// What follows the run directory in the longest of them: `/<UUID>/serial`.
const SOCKET_TAIL: usize = 1 + 36 + 1 + 6;
/// How long a log may grow, in bytes.
const LOG_MAX: u64 = 16 << 20;
/// What is told of a log, in bytes.
const LOG_TOLD: u64 = 2000;

#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// Sockets that listen before QEMU runs, so that nobody has to try until they are there.
pub struct Sockets {
    /// The monitor of the server.
    pub monitor: OwnedFd,
    /// A second monitor, for whoever watches over a migration.
    pub watch: OwnedFd,
    pub serial: OwnedFd,
    pub agent: OwnedFd,
}

/// Refuses a directory whose machines' sockets would have paths that are too long.
pub fn check(run: &Path) -> Result<(), HvError> {
    let max = SOCKET_PATH_MAX - SOCKET_TAIL;
    if run.as_os_str().len() > max {
        return Err(HvError::PathTooLong {
            path: run.to_owned(),
            max,
        });
    }
    Ok(())
}

impl RunDir {
    pub fn new(run: &Path, vm: VmId) -> Self {
        Self(run.join(vm.to_string()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn record(&self) -> PathBuf {
        self.file("process")
    }

    pub fn serial_log(&self) -> PathBuf {
        self.file("serial.log")
    }

    /// What SeaBIOS says.
    pub fn bios_log(&self) -> PathBuf {
        self.file("bios.log")
    }

    pub fn qemu_log(&self) -> PathBuf {
        self.file("qemu.log")
    }

    /// What the guest is told, by fw_cfg.
    pub fn told(&self) -> PathBuf {
        self.file("told")
    }

    /// There while its process waits for a fork that nobody has asked for.
    pub fn unasked(&self) -> PathBuf {
        self.file("unasked")
    }

    pub fn screen(&self) -> PathBuf {
        self.file("screen.png")
    }

    pub fn monitor(&self) -> PathBuf {
        self.file("qmp")
    }

    /// The monitor of whoever watches over a fork.
    pub fn watch(&self) -> PathBuf {
        self.file("watch")
    }

    /// Where isolated networks are, beside the directories of machines.
    pub fn networks(&self) -> PathBuf {
        self.0.with_file_name("n")
    }

    /// The directory of an isolated network. Of its id it has the part that is random: paths of sockets are short.
    pub fn network(&self, network: NetworkId) -> PathBuf {
        let id = network.0.simple().to_string();
        self.networks().join(&id[id.len() - 12..])
    }

    pub fn agent(&self) -> PathBuf {
        self.file("agent")
    }

    pub fn serial(&self) -> PathBuf {
        self.file("serial")
    }

    pub fn vnc(&self) -> PathBuf {
        self.file("vnc")
    }

    /// Makes the directory ready for a power-on: the logs of the last one are kept as `….log.1`.
    pub fn prepare(&self, told: &[u8]) -> Result<Sockets, HvError> {
        // Whoever can open the sockets commands the machine.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(HvError::io("make", &self.0))?;
        for log in [self.serial_log(), self.bios_log(), self.qemu_log()] {
            match fs::rename(&log, log.with_extension("log.1")) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(HvError::io("rotate", &log)(e)),
                _ => {}
            }
            // They are watched from the first moment.
            File::create(&log).map_err(HvError::io("make", &log))?;
        }
        fs::write(self.told(), told).map_err(HvError::io("write", &self.told()))?;
        Ok(Sockets {
            monitor: listen(&self.monitor())?,
            watch: listen(&self.watch())?,
            serial: listen(&self.serial())?,
            agent: listen(&self.agent())?,
        })
    }

    /// Cuts logs that have grown too long; the end of each is kept as `….log.1`. QEMU appends, so it goes on at the
    /// new end.
    pub fn cap_logs(&self) -> io::Result<()> {
        for log in [self.serial_log(), self.bios_log(), self.qemu_log()] {
            let mut file = match OpenOptions::new().read(true).write(true).open(&log) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let len = file.metadata()?.len();
            if len > LOG_MAX {
                file.seek(SeekFrom::Start(len - LOG_MAX))?;
                let mut kept = File::create(log.with_extension("log.1"))?;
                io::copy(&mut (&file).take(LOG_MAX), &mut kept)?;
                file.set_len(0)?;
            }
        }
        Ok(())
    }

    /// The last lines of QEMU's log.
    pub fn last_words(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.qemu_log())?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(LOG_TOLD)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TOLD).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

fn listen(path: &Path) -> Result<OwnedFd, HvError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(HvError::io("remove", path)(e)),
        _ => {}
    }
    Ok(UnixListener::bind(path)
        .map_err(HvError::io("listen on", path))?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use uuid::Uuid;

    #[test]
    fn a_directory_that_is_too_long_is_refused() {
        let longest = PathBuf::from(format!("/{}", "d".repeat(62)));
        check(&longest).unwrap();
        assert!(matches!(
            check(&longest.join("x")),
            Err(HvError::PathTooLong { max: 63, .. })
        ));
    }

    #[test]
    fn a_long_log_is_cut_and_its_end_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = RunDir::new(tmp.path(), VmId(Uuid::nil()));
        dir.prepare(b"").unwrap();
        let mut writer = OpenOptions::new().append(true).open(dir.serial_log()).unwrap();
        writer.write_all(&vec![b'a'; LOG_MAX as usize]).unwrap();
        dir.cap_logs().unwrap();
        assert_eq!(
            fs::metadata(dir.serial_log()).unwrap().len(),
            LOG_MAX,
            "not before it is too long"
        );
        writer.write_all(b"the end").unwrap();
        dir.cap_logs().unwrap();
        writer.write_all(b"goes on").unwrap();
        assert_eq!(fs::read(dir.serial_log()).unwrap(), b"goes on");
        let kept = fs::read(dir.file("serial.log.1")).unwrap();
        assert_eq!((kept.len() as u64, kept.ends_with(b"athe end")), (LOG_MAX, true));
    }
}
