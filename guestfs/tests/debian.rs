//! A real Debian of old hardware's, adapted, and booted from virtio in a real QEMU.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::disks::{Served, guestfish, kvm};
use common::{CLUSTER, run, setup, trial};
use guestfs::adapt::{Backing, Firmware, LicenceKind, Report, Wanted, WritableDisk, adapt, check, overlay};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MAC: &str = "52:54:00:12:34:56";
/// To boot, on a busy host without KVM.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the image has of its own.
const OLD_MACHINE: &str = "0123456789abcdef0123456789abcdef";

fn main() -> ExitCode {
    run(|| {
        // Soak: each builds an initramfs and boots, which takes minutes without KVM.
        let soak = |trial: libtest_mimic::Trial| trial.with_ignored_flag(true);
        vec![
            trial("it_is_looked_at", it_is_looked_at),
            soak(trial(
                "it_boots_from_virtio_as_another",
                it_boots_from_virtio_as_another,
            )),
            soak(trial("unadapted_it_boots_from_ide_alone", unadapted)),
            soak(trial("twice_is_once", twice_is_once)),
            soak(trial("it_boots_with_efi", it_boots_with_efi)),
        ]
    })
}

/// The image, served, and where overlays on it are.
struct Debian {
    served: Served,
    image: PathBuf,
    dir: TempDir,
}

impl Debian {
    fn new() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/debian.sh");
        let out = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(out.status.success(), "guest/debian.sh");
        let said = String::from_utf8(out.stdout).unwrap();
        let image = PathBuf::from(said.lines().last().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let served = Served::new(dir.path(), "disk", &image, "qcow2");
        Self { served, image, dir }
    }

    async fn overlay(&self, name: &str) -> WritableDisk {
        let backing = Backing::Served(self.served.disk.clone());
        overlay("disk", &self.dir.path().join(name), backing, CLUSTER)
            .await
            .unwrap()
    }

    async fn check(&self, wanted: &Wanted) -> Report {
        let start = Instant::now();
        let disk = self.served.disk.clone();
        let report = check(&[disk], wanted, &setup(self.dir.path())).await;
        println!("{:6.2} s  looked at", start.elapsed().as_secs_f64());
        report.unwrap_or_else(|e| panic!("{}: {e:?}\n{}", e.error, e.log))
    }

    async fn adapt(&self, disk: &WritableDisk, wanted: &Wanted) -> Report {
        let start = Instant::now();
        let report = adapt(std::slice::from_ref(disk), wanted, &setup(self.dir.path())).await;
        let report = report.unwrap_or_else(|e| panic!("{}: {e:?}\n{}", e.error, e.log));
        println!(
            "{:6.2} s  adapted: {:#?}, but for {:#?}",
            start.elapsed().as_secs_f64(),
            report.done,
            report.warnings
        );
        report
    }
}

fn wanted() -> Wanted {
    Wanted {
        hostname: Some("new.example.org".into()),
        new_identity: true,
        serial_console: true,
        macs: vec![MAC.into()],
        ..Wanted::default()
    }
}

/// What the guest's data is by its recipe.
fn data() -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

/// A QEMU, and what its guest says on the serial port.
struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    said: String,
    _memory: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq)]
enum Bus {
    Ide,
    Virtio,
}

impl Machine {
    fn boot(disk: &Path, bus: Bus, efi: bool) -> Self {
        let mut qemu = Command::new("qemu-system-x86_64");
        let accelerator = if kvm() { "kvm" } else { "tcg" };
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
        ])
        // Without a screen GRUB calls a BIOS that there is not.
        .args(["-device", "VGA", "-cpu", "max", "-smp", "2", "-m", "512"])
        .arg("-machine")
        .arg(format!("pc,accel={accelerator}"))
        .arg("-drive")
        .arg(format!("file={},if=none,id=disk,format=qcow2", disk.display()))
        .args(["-netdev", "user,id=net,restrict=on", "-device"])
        .arg(match bus {
            Bus::Ide => "ide-hd,drive=disk",
            Bus::Virtio => "virtio-blk-pci,drive=disk",
        });
        if bus == Bus::Virtio {
            qemu.arg("-device")
                .arg(format!("virtio-net-pci,netdev=net,romfile=,mac={MAC}"));
            qemu.args(["-device", "virtio-rng-pci"]);
        } else {
            qemu.args(["-device", "e1000,netdev=net,romfile="]);
        }
        let mut memory = None;
        if efi {
            // What it remembers is empty, as with a machine that is new.
            let vars = disk.with_extension("vars");
            std::fs::copy(ovmf("VARS"), &vars).unwrap();
            let code = ovmf("CODE");
            qemu.arg("-drive").arg(format!(
                "if=pflash,format=raw,readonly=on,file={}",
                code.display()
            ));
            qemu.arg("-drive")
                .arg(format!("if=pflash,format=raw,file={}", vars.display()));
            memory = Some(vars);
        }
        let mut qemu = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(qemu.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // A prompt is no line: pieces as they come.
            loop {
                let piece = match out.fill_buf() {
                    Ok(piece) if !piece.is_empty() => String::from_utf8_lossy(piece).into_owned(),
                    _ => return,
                };
                let length = out.buffer().len();
                out.consume(length);
                if sender.send(piece).is_err() {
                    return;
                }
            }
        });
        Self {
            qemu,
            lines,
            said: String::new(),
            _memory: memory,
        }
    }

    /// Waits until the guest has said something, and never what it must not.
    fn wait(&mut self, what: impl Fn(&str) -> bool, never: &str) -> &str {
        let end = Instant::now() + PATIENCE;
        while !what(&self.said) {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(piece) => self.said.push_str(&piece),
                Err(e) => panic!("{e}: {}", self.said),
            }
            assert!(!self.said.contains(never), "{}", self.said);
        }
        &self.said
    }

    /// Who the guest says that it is.
    fn mark(&mut self) -> BTreeMap<String, String> {
        let start = Instant::now();
        let line = |said: &str| {
            said.split_once("\nmark ")
                .and_then(|(_, rest)| rest.split_once(" end"))
                .map(|(line, _)| line.to_owned())
        };
        let said = self.wait(|said| line(said).is_some(), "ALERT!");
        let line = line(said).unwrap();
        println!("{:6.2} s  booted: {line}", start.elapsed().as_secs_f64());
        let words = line.split(' ').filter_map(|w| w.split_once('='));
        words.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn ovmf(part: &str) -> PathBuf {
    let names =
        ["OVMF_{}_4M.fd", "OVMF_{}.fd"].map(|n| Path::new("/usr/share/OVMF").join(n.replace("{}", part)));
    names.into_iter().find(|p| p.exists()).expect("OVMF")
}

/// It has its data, its swap and its address, and nothing of its old identity.
fn is_new(mark: &BTreeMap<String, String>) {
    assert_eq!(mark["data"], data());
    assert_eq!(mark["host"], "new.example.org");
    assert_eq!(mark["address"], "10.0.2.15/24");
    assert_eq!(mark["swap"], "1");
    assert_ne!(mark["machine"], OLD_MACHINE);
    assert_eq!(mark["machine"].len(), 32);
    assert!(mark["key"].starts_with("SHA256:"), "{mark:?}");
}

/// What would be done with it, and that nothing is.
async fn it_is_looked_at() {
    let debian = Debian::new();
    let would = debian.check(&wanted()).await;
    assert_eq!(
        (would.os.kind.as_str(), would.os.distribution.as_str()),
        ("linux", "debian")
    );
    assert_eq!(would.os.hostname.as_deref(), Some("old.example.org"));
    assert_eq!(would.os.arch, "x86_64");
    assert_eq!(would.licence.kind, LicenceKind::Free);
    assert!(
        would.licence.os_licence.starts_with("debian-"),
        "{:?}",
        would.licence
    );
    for what in [
        "/etc/fstab names",
        "keeps the name ens192",
        "was built with virtio_pci, virtio_blk, virtio_scsi",
        "serial port",
        "machine id",
        "SSH host keys",
        "new.example.org",
    ] {
        assert!(
            would.done.iter().any(|d| d.contains(what)),
            "{what}: {:?}",
            would.done
        );
    }
    assert!(!would.log.contains("update-initramfs -"), "{}", would.log);
}

async fn it_boots_from_virtio_as_another() {
    let debian = Debian::new();
    let would = debian.check(&wanted()).await;
    let overlay = debian.overlay("adapted").await;
    let report = debian.adapt(&overlay, &wanted()).await;
    // What was done is what was said.
    assert_eq!(report.done, would.done);
    assert!(report.log.contains("update-initramfs"), "{}", report.log);
    let mut machine = Machine::boot(&overlay.overlay, Bus::Virtio, false);
    is_new(&machine.mark());
    machine.wait(|said| said.contains("new login:"), "ALERT!");
}

/// Unadapted it finds no disk; on the bus that it knows it is what it was.
async fn unadapted() {
    let debian = Debian::new();
    let (path, format) = (debian.image.clone(), "qcow2");
    let spoken = debian.dir.path().join("spoken");
    let disk = overlay("disk", &spoken, Backing::File { path, format }, CLUSTER).await;
    let disk = disk.unwrap().overlay;
    // Only so that its initramfs is heard.
    let script = "add-drive spoken format:qcow2\nrun\nmount /dev/sda1 /\nsh \"sed -i 's/ quiet$/ console=ttyS0/' /boot/grub/grub.cfg\"\nsh \"grep console=ttyS0 /boot/grub/grub.cfg\"\nshutdown\n";
    assert!(guestfish(debian.dir.path(), script).contains("root=UUID="));
    let mut virtio = Machine::boot(&disk, Bus::Virtio, false);
    let said = virtio.wait(
        |said| said.contains("ALERT!") && said.contains("does not exist"),
        "\nmark ",
    );
    assert!(said.contains("initramfs"), "{said}");
    drop(virtio);
    let mut ide = Machine::boot(&disk, Bus::Ide, false);
    let mark = ide.mark();
    assert_eq!(
        (mark["machine"].as_str(), mark["host"].as_str()),
        (OLD_MACHINE, "old.example.org")
    );
    assert_eq!(mark["data"], data());
    drop(ide);

    // Adapted, its key is another.
    let adapted = debian.overlay("adapted").await;
    debian.adapt(&adapted, &wanted()).await;
    let new = Machine::boot(&adapted.overlay, Bus::Virtio, false).mark();
    is_new(&new);
    assert_ne!(new["key"], mark["key"]);
}

async fn twice_is_once() {
    let debian = Debian::new();
    let disk = debian.overlay("adapted").await;
    debian.adapt(&disk, &wanted()).await;
    let keep = Wanted {
        new_identity: false,
        ..wanted()
    };
    let again = debian.adapt(&disk, &keep).await;
    assert_eq!(again.done, Vec::<String>::new());
    // Without a new identity it is the machine that it was.
    let moved = debian.overlay("moved").await;
    let as_it_is = Wanted {
        macs: Vec::new(),
        hostname: None,
        ..keep
    };
    debian.adapt(&moved, &as_it_is).await;
    let mark = Machine::boot(&moved.overlay, Bus::Virtio, false).mark();
    assert_eq!(
        (mark["machine"].as_str(), mark["host"].as_str()),
        (OLD_MACHINE, "old.example.org")
    );
    assert_eq!(
        (mark["address"].as_str(), mark["data"].as_str()),
        ("10.0.2.15/24", data().as_str())
    );
}

async fn it_boots_with_efi() {
    let debian = Debian::new();
    let disk = debian.overlay("efi").await;
    let efi = Wanted {
        firmware: Some(Firmware::Efi),
        ..wanted()
    };
    debian.adapt(&disk, &efi).await;
    let keep = Wanted {
        new_identity: false,
        ..efi
    };
    assert_eq!(debian.adapt(&disk, &keep).await.done, Vec::<String>::new());
    let mark = Machine::boot(&disk.overlay, Bus::Virtio, true).mark();
    is_new(&mark);
    assert_eq!(mark["efi"], "yes");
}
