//! QEMU's tools as clients.

use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A disk, as a URL.
pub fn url(socket: &Path, disk: &str) -> String {
    format!("nbd+unix:///{disk}?socket={}", socket.display())
}

/// A disk, as a client sees it that waits for a server that is gone.
pub fn image(socket: &Path, disk: &str) -> String {
    format!(
        "driver=nbd,export={disk},server.type=unix,server.path={},reconnect-delay=30",
        socket.display()
    )
}

/// Runs qemu-img, and answers what it says.
pub async fn qemu_img(args: &[&str]) -> String {
    let out = Command::new("qemu-img").args(args).output().await.unwrap();
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Copies a disk to a raw file.
pub async fn convert(source: &str, to: &Path, options: &[&str]) -> Result<(), String> {
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-O", "raw"]).args(options);
    command.args(["--image-opts", source]).arg(to);
    let out = command.output().await.unwrap();
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// What a server shows.
pub async fn list(socket: &Path) -> String {
    let mut command = Command::new("qemu-nbd");
    command.args(["--list", "-k"]).arg(socket);
    let out = command.output().await.unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A qemu-io that is spoken to; it ends with this.
pub struct Io {
    _child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Io {
    /// Opens a disk.
    pub fn open(socket: &Path, disk: &str) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-r", "--image-opts", &image(socket, disk)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: child.stdout.take().unwrap(),
            _child: child,
        }
    }

    /// Asks for 4 KiB.
    pub async fn ask(&mut self, offset: u64) {
        let line = format!("read {offset} 4096\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
        self.stdin.flush().await.unwrap();
    }

    /// What it says of what was asked: two lines, or one of an error.
    pub async fn answer(&mut self) -> String {
        let mut said = String::new();
        let ends = |said: &str| {
            let end = said.split_once("ops; ").or_else(|| said.split_once("failed: "));
            end.is_some_and(|(_, rest)| rest.contains('\n'))
        };
        while !ends(&said) {
            let mut buffer = [0; 512];
            let n = self.stdout.read(&mut buffer).await.unwrap();
            assert!(n > 0, "qemu-io has ended: {said}");
            said.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        said
    }

    /// Reads 4 KiB.
    pub async fn read(&mut self, offset: u64) -> String {
        self.ask(offset).await;
        self.answer().await
    }
}
