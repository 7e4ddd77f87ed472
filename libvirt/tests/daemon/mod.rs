//! A libvirtd of the test's own: a session's, with directories of its own, which ends with it.
//!
//! One that root starts is the host's, and would take the host's directories: so it runs as somebody else then.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]

pub mod host;
pub mod pki;
pub mod ssh;

use libvirt::{Backup, Connection, Since, Uri, Wanted};
use pki::Authority;
use rustix::process::{Pid, Signal, kill_process};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

pub const MIB: u64 = 1 << 20;

pub fn wanted(uuid: &str, number: u32, since: Option<&Backup>) -> Wanted {
    Wanted {
        uuid: uuid.into(),
        key: "key".into(),
        number: number.to_string(),
        since: since.map(of),
        quiesce: false,
    }
}

/// The moment of a backup.
pub fn of(backup: &Backup) -> Since {
    let targets = backup.disks.iter().map(|disk| disk.disk.target.clone()).collect();
    Since {
        checkpoint: backup.checkpoint.clone().unwrap(),
        targets,
    }
}

pub fn whole(backup: &Backup, n: usize) -> Vec<u8> {
    let source = &backup.disks[n].source;
    let mut all = vec![0; source.bytes() as usize];
    let mut at = 0;
    // As a vault reads: what has nothing is not read.
    while let Some(range) = source.data(at, source.bytes()).unwrap() {
        source
            .read(range.start, &mut all[range.start as usize..range.end as usize])
            .unwrap();
        at = range.end;
    }
    all
}

/// What a disk is to have: 64 MiB, and these MiB with these bytes.
pub fn disk(mib: usize, has: &[(usize, u8)]) -> Vec<u8> {
    let mut all = vec![0; mib << 20];
    for (at, byte) in has {
        all[at << 20..(at + 1) << 20].fill(*byte);
    }
    all
}

pub fn same(left: &[u8], right: &[u8]) {
    let differs = left.iter().zip(right).position(|(l, r)| l != r);
    assert_eq!((left.len(), differs), (right.len(), None));
}

/// An address of this host's that no other test has: all of its ports are free.
pub fn loopback() -> Ipv4Addr {
    let random = uuid::Uuid::new_v4().into_bytes();
    Ipv4Addr::new(127, random[0] | 1, random[1], random[2])
}

/// Nobody.
const USER: u32 = 65534;

pub struct Daemon {
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// Whether it is the host's own, of a host that [`host::of_its_own`] has made.
    system: bool,
    /// Where it listens for TLS, if it does.
    tls: Option<Ipv4Addr>,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives a file to whom the daemon runs as.
fn give(path: &Path) {
    if is_root() {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
}

pub fn said(out: &Output) -> String {
    let (out, err) = (&out.stdout, &out.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

pub fn tool(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", said(&out));
    said(&out)
}

impl Daemon {
    pub fn start() -> Self {
        let mut daemon = Self::new();
        daemon.run();
        daemon
    }

    /// The host's own, which root runs, and its machines somebody else: of a host that this thread and those that it begins see.
    pub fn start_system() -> Self {
        let mut daemon = Self::new();
        daemon.system = true;
        host::of_its_own(daemon.dir.path());
        daemon.run();
        daemon
    }

    /// One that listens for TLS, too, at an address of its own. Its QEMUs have the same certificate.
    pub fn start_tls(authority: &Authority) -> Self {
        let mut daemon = Self::new();
        let host = loopback();
        std::fs::create_dir(daemon.at("pki")).unwrap();
        daemon.certify(authority, &host.to_string());
        daemon.tls = Some(host);
        daemon.configure(&format!(
            "backup_tls_x509_cert_dir = \"{}\"\n",
            daemon.at("pki").display()
        ));
        daemon.run();
        daemon
    }

    /// A certificate for this host, whose clients are to have theirs from the same authority.
    pub fn certify(&self, authority: &Authority, host: &str) {
        let (certificate, key) = authority.server(host);
        for (name, pem) in [
            ("ca-cert.pem", &authority.pem),
            ("server-cert.pem", &certificate),
            ("server-key.pem", &key),
        ] {
            let path = self.at("pki").join(name);
            std::fs::write(&path, pem).unwrap();
            give(&path);
        }
    }

    /// Lines of qemu.conf, beside those that all have. They are read when it starts.
    pub fn configure(&self, lines: &str) {
        // No virtlogd beside it.
        let qemu = format!("stdio_handler = \"file\"\nsecurity_driver = \"none\"\n{lines}");
        std::fs::write(self.at("config/libvirt/qemu.conf"), qemu).unwrap();
    }

    pub fn host(&self) -> Ipv4Addr {
        self.tls.unwrap()
    }

    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("libvirtd-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        give(dir.path());
        for name in ["home", "run", "config", "config/libvirt", "data", "cache"] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            give(&path);
        }
        let daemon = Self {
            dir,
            process: None,
            system: false,
            tls: None,
        };
        daemon.configure("");
        daemon
    }

    /// It says when it is ready, as to systemd.
    fn run(&mut self) {
        let at = |name: &str| self.dir.path().join(name);
        let mut configuration = "auth_unix_rw = \"none\"\n".to_owned();
        if let Some(host) = self.tls {
            let pki = at("pki");
            let pki = pki.display();
            configuration.push_str(&format!(
                "listen_tls = 1\nlisten_tcp = 0\nlisten_addr = \"{host}\"\nca_file = \"{pki}/ca-cert.pem\"\n\
                 cert_file = \"{pki}/server-cert.pem\"\nkey_file = \"{pki}/server-key.pem\"\n"
            ));
        }
        if self.system {
            configuration.push_str("unix_sock_group = \"libvirt\"\nunix_sock_rw_perms = \"0770\"\n");
        }
        std::fs::write(at("libvirtd.conf"), configuration).unwrap();
        let (ready, log) = (at("ready"), std::fs::File::create(at("log")).unwrap());
        std::fs::remove_file(&ready).ok();
        let says = UnixDatagram::bind(&ready).unwrap();
        give(&ready);
        let mut command = Command::new("libvirtd");
        command
            .arg("--config")
            .arg(at("libvirtd.conf"))
            .arg("--pid-file")
            .arg(at("run/libvirtd.pid"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", at("home"))
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("XDG_CONFIG_HOME", at("config"))
            .env("XDG_DATA_HOME", at("data"))
            .env("XDG_CACHE_HOME", at("cache"))
            .env("NOTIFY_SOCKET", &ready)
            .current_dir(self.dir.path())
            .stderr(log);
        if self.tls.is_some() {
            command.arg("--listen");
        }
        if is_root() && !self.system {
            command.uid(USER).gid(USER);
        }
        self.process = Some(command.spawn().expect("libvirtd is installed"));
        says.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut word = [0; 64];
        let heard = says.recv(&mut word);
        let log = || std::fs::read_to_string(at("log")).unwrap();
        let length = heard.unwrap_or_else(|e| panic!("libvirtd is not ready: {e}\n{}", log()));
        assert!(word[..length].starts_with(b"READY=1"));
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
            process.wait().unwrap();
        }
    }

    /// As after an update: its machines go on.
    pub fn restart(&mut self) {
        self.end();
        self.run();
    }

    pub fn uri(&self) -> String {
        if self.system {
            return "qemu:///system".to_owned();
        }
        format!("qemu:///session?socket={}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.at("run/libvirt/libvirt-sock")
    }

    pub fn open(&self) -> Connection {
        Connection::open(&self.uri().parse::<Uri>().unwrap()).unwrap()
    }

    pub fn virsh(&self, arguments: &[&str]) -> String {
        let uri = self.uri();
        tool("virsh", &[&["-q", "-c", &uri], arguments].concat())
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that its machines may write.
    pub fn put(&self, name: &str, from: &Path) -> PathBuf {
        let path = self.at(name);
        std::fs::copy(from, &path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        give(&path);
        path
    }

    /// A disk of so many MiB, the first of which has something.
    pub fn disk(&self, name: &str, format: &str, mib: u32) -> PathBuf {
        let path = self.at(name);
        let at = path.to_str().unwrap();
        tool(
            "qemu-img",
            &["create", "-q", "-f", format, at, &format!("{mib}M")],
        );
        tool("qemu-io", &["-f", format, "-c", "write -P 1 0 1M", at]);
        give(&path);
        path
    }

    /// A machine with a disk of 64 MiB, and no system: its processors run, and write nothing.
    pub fn plain(&self, name: &str) -> String {
        let disk = self.disk(&format!("{name}.qcow2"), "qcow2", 64);
        self.define(name, 64, &[(&disk, "qcow2")])
    }

    /// Defines a machine with disks of these files and formats, vda and so on; answers its UUID.
    pub fn define(&self, name: &str, mib: u32, disks: &[(&Path, &str)]) -> String {
        let mut all = String::new();
        for ((path, format), letter) in disks.iter().zip('a'..) {
            let path = path.display();
            all.push_str(&format!(
                "<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{path}'/>\
                 <target dev='vd{letter}' bus='virtio'/></disk>"
            ));
        }
        let serial = self.at(&format!("{name}.serial"));
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>{mib}</memory><vcpu>1</vcpu>\
             <metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>\
             <libosinfo:os id='http://debian.org/debian/12'/></libosinfo:libosinfo></metadata>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>{all}\
             <serial type='file'><source path='{}'/></serial>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>",
            serial.display()
        );
        let path = self.at(&format!("{name}.xml"));
        std::fs::write(&path, xml).unwrap();
        self.virsh(&["define", path.to_str().unwrap()]);
        self.virsh(&["domuuid", name]).trim().to_owned()
    }

    /// Writes to the first disk of a machine that runs, as its guest would.
    pub fn write(&self, name: &str, command: &str) {
        let line = format!("qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend \"{command}\"");
        let said = self.virsh(&["qemu-monitor-command", name, "--hmp", &line]);
        // What it has done is in its log; it only answers what went wrong.
        assert_eq!(said.trim(), "");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(connection) = Connection::open(&self.uri().parse().unwrap()) {
            for machine in connection.machines().unwrap_or_default() {
                if machine.active {
                    connection.power_off(&machine.uuid).ok();
                }
            }
        }
        self.end();
        if self.system {
            host::given_back(self.dir.path());
        }
    }
}
