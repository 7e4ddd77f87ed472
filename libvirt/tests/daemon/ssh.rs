//! A sshd of the test's own, that lets in the user who runs the test.

use super::{loopback, tool};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Names the directory that `ssh` is taken from.
const DIR: &str = "OFFSHOOT_TEST_SSH";
const PORT: u16 = 2222;

/// A directory whose `ssh` comes first in PATH, and knows only what the directory has. For that this test is run anew, by itself: then
/// this answers nothing, and all was done.
pub fn own(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(DIR) {
        return Some(dir.into());
    }
    let dir = tempfile::Builder::new()
        .prefix("ssh-")
        .tempdir_in("/tmp")
        .unwrap();
    let ssh = dir.path().join("ssh");
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\nPATH='{path}' exec ssh -F {}/config \"$@\"\n",
        dir.path().display()
    );
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env(DIR, dir.path());
    let out = command.output().unwrap();
    assert!(
        out.status.success() && super::said(&out).contains("1 passed"),
        "{}",
        super::said(&out)
    );
    None
}

pub struct Sshd {
    dir: PathBuf,
    pub host: Ipv4Addr,
    process: Child,
}

fn key(path: &Path) {
    let file = path.to_str().unwrap();
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", file]);
}

impl Sshd {
    /// Starts one whose host the `ssh` of this directory knows. `key` is let in, `stranger` is not.
    pub fn start(dir: &Path) -> Self {
        for name in ["host", "key", "stranger"] {
            key(&dir.join(name));
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let host = loopback();
        std::fs::write(dir.join("authorized"), read("key.pub")).unwrap();
        std::fs::write(dir.join("known"), format!("[{host}]:{PORT} {}", read("host.pub"))).unwrap();
        let at = dir.display();
        let config = format!(
            "UserKnownHostsFile {at}/known\nGlobalKnownHostsFile /dev/null\nIdentitiesOnly yes\nIdentityAgent none\n"
        );
        std::fs::write(dir.join("config"), config).unwrap();
        let config = format!(
            "ListenAddress {host}:{PORT}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        );
        std::fs::write(dir.join("sshd_config"), config).unwrap();
        Self {
            process: run(dir),
            dir: dir.to_owned(),
            host,
        }
    }

    /// The URI of a libvirt with this socket, by this key.
    pub fn uri(&self, socket: &Path, key: &str) -> String {
        let user = tool("id", &["-un"]);
        let (user, host, key) = (user.trim(), self.host, self.dir.join(key));
        let (socket, key) = (socket.display(), key.display());
        format!("qemu+ssh://{user}@{host}:{PORT}/session?socket={socket}&keyfile={key}")
    }

    /// Kills it, and all who are signed in.
    pub fn kill(&mut self) {
        let first = Pid::from_child(&self.process);
        let mut all = vec![first];
        let mut next = 0;
        while let Some(pid) = all.get(next).map(|pid| pid.as_raw_nonzero()) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|n| Pid::from_raw(n.parse().ok()?)),
            );
            next += 1;
        }
        for pid in all {
            // It may have gone with the one before.
            kill_process(pid, Signal::KILL).ok();
        }
        self.process.wait().unwrap();
    }

    pub fn again(&mut self) {
        self.process = run(&self.dir);
    }
}

/// It says when it is ready.
fn run(dir: &Path) -> Child {
    if super::is_root() {
        // What it shuts itself into: a system that starts one has it.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let mut process = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("sshd is installed");
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut heard = String::new();
    while !heard.contains("Server listening") {
        let length = log.read_line(&mut heard).unwrap();
        assert!(length > 0, "sshd ends: {heard}");
    }
    // It goes on talking.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    process
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}
