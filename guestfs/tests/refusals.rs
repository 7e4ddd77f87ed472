//! Disks that are not adapted, each real: what is said of them, and that nothing of the host is blamed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::disks::{Served, guestfish, image, luks};
use common::{CLUSTER, run, setup, trial};
use guestfs::adapt::{AdaptError, Backing, Firmware, Refusal, Wanted, adapt, check, overlay};
use guestfs::{Disk, FilesError};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    run(|| {
        vec![
            trial("what_is_no_system", what_is_no_system),
            trial("what_does_not_start", what_does_not_start),
            trial("windows_without_drivers", windows_without_drivers),
            trial("what_is_more_than_one_system", what_is_more_than_one_system),
            trial("what_is_not_for_us", what_is_not_for_us),
            trial("what_gets_no_initramfs", what_gets_no_initramfs),
            trial("what_the_host_is_to_blame_for", what_the_host_is_to_blame_for),
        ]
    })
}

async fn refused(disk: &Disk, dir: &Path) -> Refusal {
    let checked = check(std::slice::from_ref(disk), &Wanted::default(), &setup(dir)).await;
    match checked.map_err(|failure| failure.error) {
        Err(AdaptError::Refused(refusal)) => {
            assert!(!refusal.reason().is_empty() && !refusal.advice().is_empty());
            refusal
        }
        other => panic!("{}: {other:?}", disk.name),
    }
}

/// LUKS; nothing; a file system with nothing on it.
async fn what_is_no_system() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["luks", "empty", "ext4"] {
        image(dir, name, 64 << 20);
    }
    let mut ext4 = Command::new("mke2fs");
    let ext4 = ext4.args(["-q", "-t", "ext4"]).arg(dir.join("ext4"));
    assert!(ext4.status().unwrap().success());
    luks(&dir.join("luks"));
    let serve = |name: &str| Served::new(dir, name, &dir.join(name), "raw");
    let luks = refused(&serve("luks").disk, dir).await;
    assert!(
        matches!(&luks, Refusal::Encrypted { device } if device == "/dev/sda"),
        "{luks}"
    );
    for name in ["empty", "ext4"] {
        let refusal = refused(&serve(name).disk, dir).await;
        assert_eq!(refusal, Refusal::NoOperatingSystem, "{name}");
    }
}

/// The first machine stands still for ever, the second is looked at.
async fn what_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image(dir, "empty", 64 << 20);
    let served = Served::new(dir, "empty", &dir.join("empty"), "raw");
    let mut setup = setup(dir);
    let (program, pid) = (dir.join("first-one-hangs"), dir.join("pid"));
    let script = format!(
        "#!/bin/sh\n[ -e {pid} ] && exec {real} \"$@\"\necho $$ > {pid}\nexec sleep 1000\n",
        pid = pid.display(),
        real = setup.helper.program.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    setup.helper.program = program;
    setup.first_try = Duration::from_secs(5);
    let checked = check(std::slice::from_ref(&served.disk), &Wanted::default(), &setup).await;
    let refused = checked.map_err(|failure| failure.error);
    assert!(
        matches!(&refused, Err(AdaptError::Refused(Refusal::NoOperatingSystem))),
        "{refused:?}"
    );
    let first = std::fs::read_to_string(pid).unwrap();
    let left = std::fs::read_to_string(format!("/proc/{}/comm", first.trim())).unwrap_or_default();
    assert_ne!(left, "sleep\n", "the first one is left running");
}

/// Windows that sleeps, and one that does not, but has no registry.
async fn windows_without_drivers() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut script = String::new();
    for name in ["asleep", "awake"] {
        image(dir, name, 64 << 20);
        script += &format!("add-drive {name} format:raw\n");
    }
    script += "run\n";
    for (disk, head) in [("sda", "hibr"), ("sdb", "RSTR")] {
        script += &format!(
            "part-disk /dev/{disk} mbr\nmkfs ntfs /dev/{disk}1\nmount /dev/{disk}1 /\nmkdir-p /Windows/System32\n\
             write /Windows/System32/ntoskrnl.exe MZ\nwrite /hiberfil.sys {head}\numount-all\n"
        );
    }
    guestfish(dir, &(script + "shutdown\n"));
    let serve = |name: &str| Served::new(dir, name, &dir.join(name), "raw");
    assert_eq!(refused(&serve("asleep").disk, dir).await, Refusal::Hibernated);
    let awake = refused(&serve("awake").disk, dir).await;
    assert!(
        matches!(&awake, Refusal::Unknown { what } if what.contains("Windows")),
        "{awake}"
    );
}

/// A root as inspection knows it, with a program for that machine, on the mounted file system.
fn root(extra: &str) -> String {
    format!(
        "mkdir /etc\nmkdir /bin\nmkdir /usr\nmkdir /var\nmkdir-p /lib/modules/6.1.0\nwrite /etc/fstab \"\"\n\
         write /etc/debian_version \"12.1\\n\"\nwrite /etc/os-release \"ID=debian\\nVERSION_ID=12\\nPRETTY_NAME=Debian\\n\"\n{extra}\numount-all\n"
    )
}

async fn what_is_more_than_one_system() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image(dir, "two", 128 << 20);
    let make = |n: u32| format!("mkfs ext4 /dev/sda{n}\nmount /dev/sda{n} /\n{}", root(""));
    let script = format!(
        "add-drive two format:raw\nrun\npart-init /dev/sda mbr\npart-add /dev/sda p 2048 100000\npart-add /dev/sda p 100352 200000\n{}{}shutdown\n",
        make(1),
        make(2)
    );
    guestfish(dir, &script);
    let two = refused(&Served::new(dir, "two", &dir.join("two"), "raw").disk, dir).await;
    assert!(
        matches!(&two, Refusal::SeveralOperatingSystems { found } if found.len() == 2),
        "{two}"
    );
}

/// Programs of another processor; a kernel without virtio; none at all.
async fn what_is_not_for_us() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let programs = [("arm", 183_u16), ("kernel", 62), ("none", 62)];
    for (name, machine) in programs {
        image(dir, name, 64 << 20);
        std::fs::write(dir.join(format!("{name}.elf")), elf(machine)).unwrap();
    }
    let mut script =
        "add-drive arm format:raw\nadd-drive kernel format:raw\nadd-drive none format:raw\nrun\n".to_owned();
    for (disk, (name, _)) in ["sda", "sdb", "sdc"].iter().zip(programs) {
        let kernel = if name == "none" {
            ""
        } else {
            "mkdir /boot\nwrite /boot/vmlinuz-6.1.0 MZ"
        };
        let extra = format!("upload {name}.elf /bin/ls\n{kernel}");
        script += &format!("mkfs ext4 /dev/{disk}\nmount /dev/{disk} /\n{}", root(&extra));
    }
    script += "shutdown\n";
    guestfish(dir, &script);
    let serve = |name: &str| Served::new(dir, name, &dir.join(name), "raw");
    assert_eq!(
        refused(&serve("kernel").disk, dir).await,
        Refusal::NoVirtio {
            kernel: "6.1.0".into()
        }
    );
    let arm = refused(&serve("arm").disk, dir).await;
    assert!(
        matches!(&arm, Refusal::Architecture { arch } if arch == "aarch64"),
        "{arm}"
    );
    assert_eq!(refused(&serve("none").disk, dir).await, Refusal::NoKernel);
    // An overlay that was refused is as it was made.
    let served = serve("none");
    let disk = overlay(
        "disk",
        &dir.join("overlay"),
        Backing::Served(served.disk.clone()),
        CLUSTER,
    )
    .await
    .unwrap();
    let wanted = Wanted {
        firmware: Some(Firmware::Efi),
        ..Wanted::default()
    };
    let refused = adapt(&[disk], &wanted, &setup(dir)).await.unwrap_err();
    assert!(
        matches!(refused.error, AdaptError::Refused(Refusal::NoKernel)),
        "{refused:?}"
    );
    // How far it came is told all the same.
    assert!(refused.log.contains("> inspect-os"), "{}", refused.log);
}

/// A kernel that needs an initramfs: with no room for one; with nothing to build one.
async fn what_gets_no_initramfs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("elf"), elf(62)).unwrap();
    let mut script = "add-drive small format:raw\nadd-drive bare format:raw\nrun\n".to_owned();
    for (disk, name) in [("sda", "small"), ("sdb", "bare")] {
        image(dir, name, 64 << 20);
        let tool = match name {
            "bare" => "",
            _ => "mkdir-p /usr/sbin\nwrite /usr/sbin/update-initramfs #!/bin/sh\n",
        };
        let extra = format!(
            "upload elf /bin/ls\nmkdir /boot\nwrite /boot/vmlinuz-6.1.0 MZ\n\
             write /lib/modules/6.1.0/virtio_blk.ko \"\"\nwrite /lib/modules/6.1.0/virtio_pci.ko \"\"\n{tool}"
        );
        script += &format!("mkfs ext4 /dev/{disk}\nmount /dev/{disk} /\n{}", root(&extra));
    }
    script += "shutdown\n";
    guestfish(dir, &script);
    let serve = |name: &str| Served::new(dir, name, &dir.join(name), "raw");
    let small = refused(&serve("small").disk, dir).await;
    assert!(
        matches!(&small, Refusal::NoSpace { path, why } if path == "/boot" && why.contains("needs 80 MiB")),
        "{small}"
    );
    let kernel = "6.1.0".to_owned();
    let bare = refused(&serve("bare").disk, dir).await;
    assert_eq!(bare, Refusal::NoInitramfsTool { kernel });
}

/// The head of a program.
fn elf(machine: u16) -> Vec<u8> {
    let mut head = vec![0; 120];
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    head[16] = 2;
    head[18..20].copy_from_slice(&machine.to_le_bytes());
    head[20] = 1;
    head[52..54].copy_from_slice(&64_u16.to_le_bytes());
    head
}

async fn what_the_host_is_to_blame_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let gone = Disk {
        name: "disk".into(),
        socket: dir.join("nobody.sock"),
        export: "disk".into(),
    };
    let e = check(std::slice::from_ref(&gone), &Wanted::default(), &setup(dir))
        .await
        .unwrap_err()
        .error;
    assert!(
        !e.is_refusal() && matches!(e, AdaptError::Host(FilesError::Io { op: "connect to", .. })),
        "{e:?}"
    );
    let e = overlay("disk", &dir.join("overlay"), Backing::Served(gone), CLUSTER)
        .await
        .unwrap_err();
    assert!(!e.is_refusal() && e.to_string().contains("nobody.sock"), "{e}");
    let wanted = Wanted {
        hostname: Some("a_b".into()),
        ..Wanted::default()
    };
    let e = check(&[], &wanted, &setup(dir)).await.unwrap_err().error;
    assert!(e.is_refusal() && e.to_string().contains("a_b"), "{e}");
    // No program that shuts guestfish in.
    let mut no = setup(dir);
    no.helper.program = dir.join("no-program");
    image(dir, "empty", 1 << 20);
    let served = Served::new(dir, "empty", &dir.join("empty"), "raw");
    let e = check(std::slice::from_ref(&served.disk), &Wanted::default(), &no)
        .await
        .unwrap_err()
        .error;
    assert!(
        matches!(e, AdaptError::Host(FilesError::Io { op: "run", .. })),
        "{e:?}"
    );
}
