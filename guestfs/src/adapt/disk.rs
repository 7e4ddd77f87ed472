//! Disks that may be written: overlays, of which the caller reads what changed.

use super::AdaptError;
use crate::Disk;
use std::path::{Path, PathBuf};

/// What an overlay stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A disk that is served, raw.
    Served(Disk),
    /// A file.
    File {
        /// Where it is.
        path: PathBuf,
        /// `raw` or `qcow2`; what it is, is never guessed.
        format: &'static str,
    },
}

/// A disk that is written through an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritableDisk {
    /// What people call it.
    pub name: String,
    /// A qcow2 that [`overlay`] has made: all that is written goes there, at most 1 GiB.
    pub overlay: PathBuf,
    /// What it stands on.
    pub backing: Backing,
}

/// Makes an empty qcow2 overlay on a disk; what was at its place is written over. Of what is changed it has whole clusters of so
/// many bytes: a power of two, 512 to 2 MiB.
pub async fn overlay(
    name: &str,
    path: &Path,
    backing: Backing,
    cluster: u32,
) -> Result<WritableDisk, AdaptError> {
    let failed = |why: String| AdaptError::Overlay {
        path: path.display().to_string(),
        why,
    };
    let (on, format) = match &backing {
        Backing::Served(disk) => {
            // qemu-img says less when it comes to that.
            let there = tokio::net::UnixStream::connect(&disk.socket).await;
            there.map_err(|e| failed(format!("connect to {}: {e}", disk.socket.display())))?;
            (address(disk), "raw")
        }
        Backing::File { path, format } => (path.display().to_string(), *format),
    };
    let out = tokio::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b", &on])
        .args(["-o", &format!("cluster_size={cluster}")])
        .arg(path)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| failed(format!("run qemu-img: {e}")))?;
    if !out.status.success() {
        return Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
    }
    Ok(WritableDisk {
        name: name.to_owned(),
        overlay: path.to_owned(),
        backing,
    })
}

/// `nbd+unix:///EXPORT?socket=PATH`
fn address(disk: &Disk) -> String {
    let socket = disk.socket.as_os_str().as_encoded_bytes();
    format!(
        "nbd+unix:///{}?socket={}",
        percent(disk.export.as_bytes()),
        percent(socket)
    )
}

fn percent(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(*byte))
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_whatever_the_names() {
        let disk = Disk {
            name: "first".into(),
            socket: "/run/a b/nbd.sock".into(),
            export: "disk?1".into(),
        };
        assert_eq!(address(&disk), "nbd+unix:///disk%3F1?socket=/run/a%20b/nbd.sock");
    }
}
