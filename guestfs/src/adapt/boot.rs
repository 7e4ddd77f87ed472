//! What a Linux boots by: its initramfs, GRUB, and the firmware's side of it.

use super::guest::Guest;
use super::inspect::{Found, mount};
use super::{AdaptError, Firmware, Refusal, Wanted, edits};

/// What the new machine's disks and NICs are driven by. Without the first two it finds no disk.
const DRIVERS: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net"];
/// The GUID of an EFI system partition, and of the one that GRUB for BIOS is in.
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
/// The size of a system partition that is made, in bytes.
const ESP_SIZE: u64 = 64 << 20;
const SECTOR: u64 = 512;

/// A kernel of the guest.
pub(super) struct Kernel {
    release: String,
    /// Drivers of its that are modules; the others are in it or not there.
    modules: Vec<&'static str>,
    initramfs: Option<String>,
}

/// The kernels that it may boot, each with virtio.
pub(super) async fn kernels(guest: &mut Guest) -> Result<Vec<Kernel>, AdaptError> {
    let mut kernels = Vec::new();
    let mut without = None;
    for release in guest.names("/lib/modules", "").await? {
        let plain = release
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._+~-".contains(&b));
        let images = [
            format!("/boot/vmlinuz-{release}"),
            format!("/lib/modules/{release}/vmlinuz"),
        ];
        if !plain || !(guest.exists(&images[0]).await? || guest.exists(&images[1]).await?) {
            continue;
        }
        let dir = format!("/lib/modules/{release}");
        let files = guest.ask("look for drivers", &["find", &dir]).await?;
        let built_in = guest
            .read(&format!("{dir}/modules.builtin"))
            .await?
            .unwrap_or_default();
        let is = |driver: &str, line: &str| {
            let file = line.trim().rsplit('/').next().unwrap_or_default();
            file.split_once(".ko")
                .is_some_and(|(name, _)| name.replace('-', "_") == driver)
        };
        let of = |text: &str| -> Vec<&'static str> {
            let has = |driver: &&str| text.lines().any(|line| is(driver, line));
            DRIVERS.into_iter().filter(has).collect()
        };
        let (modules, built_in) = (of(&files), of(&built_in));
        if !modules.iter().chain(&built_in).any(|d| *d == "virtio_blk") {
            without = Some(release);
            continue;
        }
        let mut initramfs = None;
        for path in [
            format!("/boot/initrd.img-{release}"),
            format!("/boot/initramfs-{release}.img"),
            format!("/boot/initrd-{release}"),
        ] {
            if initramfs.is_none() && guest.exists(&path).await? {
                initramfs = Some(path);
            }
        }
        kernels.push(Kernel {
            release,
            modules,
            initramfs,
        });
    }
    match (kernels.is_empty(), without) {
        (true, Some(kernel)) => return Err(Refusal::NoVirtio { kernel }.into()),
        (true, None) => return Err(Refusal::NoKernel.into()),
        (false, Some(kernel)) => guest.warn(format!(
            "the kernel {kernel} has no driver virtio_blk: do not boot it"
        )),
        (false, None) => {}
    }
    Ok(kernels)
}

/// The drivers that an initramfs should have and has not.
async fn missing(guest: &mut Guest, kernel: &Kernel, path: &str) -> Result<Vec<&'static str>, AdaptError> {
    let needed: Vec<_> = kernel
        .modules
        .iter()
        .copied()
        .filter(|d| *d != "virtio_net")
        .collect();
    if needed.is_empty() {
        return Ok(needed);
    }
    let tool = if guest.which("lsinitramfs").await?.is_some() {
        "lsinitramfs"
    } else {
        "lsinitrd"
    };
    let listed = guest
        .look(&format!("{tool} {path} | grep -o 'virtio[^/ ]*\\.ko'"))
        .await?;
    let listed = listed.replace('-', "_");
    let has = |driver: &str| listed.lines().any(|l| l.strip_suffix(".ko") == Some(driver));
    Ok(needed.into_iter().filter(|d| !has(d)).collect())
}

/// Gives each kernel an initramfs with virtio. One that has it is left alone, unless it is `stale`.
pub(super) async fn initramfs(guest: &mut Guest, kernels: &[Kernel], stale: bool) -> Result<(), AdaptError> {
    for kernel in kernels {
        let release = &kernel.release;
        let lacks = match &kernel.initramfs {
            Some(path) => missing(guest, kernel, path).await?,
            None => kernel.modules.clone(),
        };
        if lacks.is_empty() && !(stale && kernel.initramfs.is_some()) {
            continue;
        }
        let why = if lacks.is_empty() {
            "the new names of devices".to_owned()
        } else {
            lacks.join(", ")
        };
        let (path, build) = if guest.which("update-initramfs").await?.is_some() {
            debian(guest, kernel).await?;
            let how = if kernel.initramfs.is_some() { "-u" } else { "-c" };
            (
                format!("/boot/initrd.img-{release}"),
                format!("update-initramfs {how} -k {release}"),
            )
        } else if guest.which("dracut").await?.is_some() {
            dracut(guest).await?;
            let path = kernel
                .initramfs
                .clone()
                .unwrap_or_else(|| format!("/boot/initramfs-{release}.img"));
            (path.clone(), format!("dracut --force {path} {release}"))
        } else {
            let kernel = release.clone();
            return Err(Refusal::NoInitramfsTool { kernel }.into());
        };
        room(guest, &path).await?;
        guest
            .program(&format!("build the initramfs of {release}"), &build)
            .await?;
        if !guest.dry {
            let still = missing(guest, kernel, &path).await?;
            if !still.is_empty() {
                let what = format!("build the initramfs of {release}");
                let why = format!("it ended well, but {} is not in it", still.join(", "));
                return Err(Refusal::Program { what, why }.into());
            }
        }
        guest.did(format!("the initramfs of {release} was built with {why}"));
    }
    Ok(())
}

async fn debian(guest: &mut Guest, kernel: &Kernel) -> Result<(), AdaptError> {
    let dir = "/etc/initramfs-tools";
    let file = format!("{dir}/modules");
    if guest.read(&file).await?.is_none() {
        guest.write(&file, "").await?;
    }
    guest.edit(&file, |t| edits::modules(t, &kernel.modules)).await?;
    let mut mode = None;
    let mut files = vec![format!("{dir}/initramfs.conf")];
    let mut more = guest.names(&format!("{dir}/conf.d"), "").await?;
    more.sort();
    files.extend(more.into_iter().map(|n| format!("{dir}/conf.d/{n}")));
    for file in files {
        let text = guest.read(&file).await?.unwrap_or_default();
        mode = edits::modules_mode(&text).map(str::to_owned).or(mode);
    }
    // It would look at the hardware of guestfish's machine.
    if mode.as_deref() == Some("dep") {
        guest
            .write(&format!("{dir}/conf.d/zz-offshoot"), "MODULES=most\n")
            .await?;
        guest.did("the initramfs has drivers for other hardware than the present");
    }
    Ok(())
}

async fn dracut(guest: &mut Guest) -> Result<(), AdaptError> {
    let path = "/etc/dracut.conf.d/50-offshoot.conf";
    let text = format!("add_drivers+=\" {} \"\n", DRIVERS.join(" "));
    if guest.read(path).await?.as_deref() != Some(&text) {
        guest
            .act("make a directory", &["mkdir-p", "/etc/dracut.conf.d"])
            .await?;
        guest.write(path, &text).await?;
    }
    Ok(())
}

/// Refuses where there is no room for another initramfs beside this one.
async fn room(guest: &mut Guest, path: &str) -> Result<(), AdaptError> {
    let size = guest.maybe(&["filesize", path]).await?;
    let size = size.and_then(|s| s.parse::<u64>().ok()).unwrap_or(32 << 20);
    let needed = 2 * size + (16 << 20);
    for dir in ["/boot", "/var/tmp"] {
        if !guest.exists(dir).await? {
            continue;
        }
        let said = guest.ask("look for room", &["statvfs", dir]).await?;
        let value = |key: &str| {
            let lines = said.lines().filter_map(|l| l.split_once(": "));
            let found = lines.into_iter().find(|(k, _)| k.trim() == key);
            found.and_then(|(_, v)| v.trim().parse::<u64>().ok())
        };
        if let (Some(blocks), Some(block)) = (value("bavail"), value("frsize").or(value("bsize")))
            && blocks.saturating_mul(block) < needed
        {
            let mib = |bytes: u64| bytes >> 20;
            let why = format!(
                "an initramfs needs {} MiB, {} are free",
                mib(needed),
                mib(blocks.saturating_mul(block))
            );
            return Err(Refusal::NoSpace {
                path: dir.to_owned(),
                why,
            }
            .into());
        }
    }
    Ok(())
}

/// The kernel's words: the root by its UUID, and a serial console.
pub(super) async fn loader(guest: &mut Guest, found: &Found, wanted: &Wanted) -> Result<(), AdaptError> {
    let resolve = |spec: &str| found.devices.resolve(spec, None);
    for path in ["/boot/grub/device.map", "/boot/grub2/device.map"] {
        if guest.exists(path).await? {
            guest
                .act("move", &["mv", path, &format!("{path}.before-offshoot")])
                .await?;
            guest.did("GRUB's map of disks of before is set aside");
        }
    }
    let mut config = None;
    for path in ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"] {
        if config.is_none()
            && let Some(text) = guest.read(path).await?
        {
            config = Some((path, text));
        }
    }
    let Some((path, text)) = config else {
        guest.warn(
            "there is no grub.cfg: see that the boot loader finds the root, and speaks on the serial port",
        );
        return Ok(());
    };
    let edited = guest
        .edit("/etc/default/grub", |t| {
            edits::grub_default(t, wanted.serial_console, resolve)
        })
        .await?;
    let moves = |text: &str| {
        let lines = text.lines().filter(|l| l.trim_start().starts_with("linux"));
        let mut words = lines.flat_map(str::split_whitespace);
        words.any(|w| {
            ["root=", "resume="].iter().any(|k| {
                w.strip_prefix(k)
                    .is_some_and(|s| super::inspect::place(s).is_some())
            })
        })
    };
    // Red Hat's entries are files of their own.
    let grubby = guest.which("grubby").await?;
    let entries = guest.look("cat /boot/loader/entries/*.conf").await?;
    let all = format!("{text}\n{entries}");
    let lacks_serial = wanted.serial_console && !all.contains("console=ttyS0");
    if !edited && !moves(&all) && !lacks_serial {
        return Ok(());
    }
    if let Some(tool) = guest.which("update-grub").await? {
        guest.program("write grub.cfg", &tool).await?;
    } else if guest.which("grub2-mkconfig").await?.is_some() {
        guest
            .program("write grub.cfg", &format!("grub2-mkconfig -o {path}"))
            .await?;
    } else if grubby.is_none() {
        guest.warn(format!("nothing is there that writes {path} anew"));
        return Ok(());
    }
    if grubby.is_some() && wanted.serial_console {
        let line = format!(
            "grubby --update-kernel=ALL --args='console=tty0 {}'",
            edits::SERIAL
        );
        guest
            .program("tell all kernels the serial console", &line)
            .await?;
    }
    if !guest.dry {
        let text = guest.read(path).await?.unwrap_or_default();
        let entries = guest.look("cat /boot/loader/entries/*.conf").await?;
        let all = format!("{text}\n{entries}");
        if moves(&all) {
            guest.warn(format!(
                "{path} still names its root by a device that may be called otherwise"
            ));
        }
        if wanted.serial_console && !all.contains("console=ttyS0") {
            guest.warn("the boot loader does not tell the kernel of the serial port: something other than /etc/default/grub says its words");
        }
    }
    if lacks_serial {
        guest.did("the kernel speaks on the serial port, and there is a login");
    }
    if moves(&all) {
        guest.did("GRUB names the root by its UUID");
    }
    Ok(())
}

/// What is to be done so that the firmware finds something to boot.
pub(super) enum Step {
    Nothing,
    /// GRUB, into the system partition, for which there is room at that sector where it is not there.
    Efi {
        esp: Option<String>,
        disk: String,
        start: u64,
    },
    /// GRUB, at the beginning of a disk.
    Bios {
        disk: String,
    },
}

/// Whether the wanted firmware finds something to boot, or can be made to.
pub(super) async fn can_boot(guest: &mut Guest, found: &Found, wanted: &Wanted) -> Result<Step, AdaptError> {
    let firmware = wanted.firmware.unwrap_or(wanted.boots_with);
    let disk = boot_disk(guest, found).await?;
    let refused = |why: &str, advice: &str| {
        let (why, advice) = (why.to_owned(), advice.to_owned());
        AdaptError::Refused(Refusal::Firmware { why, advice })
    };
    if firmware == Firmware::Bios {
        if wanted.boots_with == Firmware::Bios {
            return Ok(Step::Nothing);
        }
        if !guest.exists("/usr/lib/grub/i386-pc/modinfo.sh").await? || grub_install(guest).await?.is_none() {
            let why = "it boots with EFI, and has no GRUB for BIOS";
            return Err(refused(
                why,
                "install grub-pc-bin (grub2-pc-modules) in the guest before, or let it boot with EFI",
            ));
        }
        let table = guest.maybe(&["part-get-parttype", &disk]).await?;
        let partitions = partitions(guest, &disk).await?;
        if table.as_deref() == Some("gpt") && !partitions.iter().any(|p| p.kind == BIOS_BOOT) {
            let why = "it boots with EFI, and its disk has no BIOS boot partition for GRUB";
            return Err(refused(
                why,
                "make one of 1 MiB in the guest before, or let it boot with EFI",
            ));
        }
        return Ok(Step::Bios { disk });
    }
    let mut esp = None;
    let mut last = 0;
    let partitions = partitions(guest, &disk).await?;
    for partition in &partitions {
        last = last.max(partition.end);
        let device = format!("{disk}{}", partition.number);
        let vfat = found
            .devices
            .held
            .get(&device)
            .is_some_and(|(kind, _)| kind == "vfat");
        if [ESP, "0xef"].contains(&partition.kind.as_str()) && vfat {
            esp = Some(device);
        }
    }
    // What remembers the place of another boot loader does not come along: the firmware looks at one place alone.
    if let Some(esp) = &esp
        && let Some((at, _)) = found.mounts.iter().find(|(_, device)| device == esp)
        && guest
            .maybe(&["case-sensitive-path", &format!("{at}/EFI/BOOT/BOOTX64.EFI")])
            .await?
            .is_some()
    {
        return Ok(Step::Nothing);
    }
    let modules = guest.exists("/usr/lib/grub/x86_64-efi/modinfo.sh").await?;
    if !modules || grub_install(guest).await?.is_none() {
        let why = "it has nothing at \\EFI\\BOOT\\BOOTX64.EFI that EFI would boot, and no GRUB for EFI to put there";
        return Err(refused(
            why,
            "install grub-efi-amd64-bin (grub2-efi-x64-modules) in the guest before, or let it boot with BIOS",
        ));
    }
    let size = guest
        .ask("look at a disk", &["blockdev-getsize64", &disk])
        .await?;
    let size = size.trim().parse::<u64>().unwrap_or_default();
    // Whole MiB; the last is left to the table's second copy.
    let start = last.div_ceil(1 << 20) << 20;
    if esp.is_none() {
        let table = guest.maybe(&["part-get-parttype", &disk]).await?;
        let full =
            table.as_deref() == Some("msdos") && partitions.iter().filter(|p| p.number < 5).count() > 3;
        if full || start + ESP_SIZE + (1 << 20) > size {
            let why = "its disk has no EFI system partition, and no room of 65 MiB behind the last partition for one";
            return Err(refused(why, "make the disk larger, or let it boot with BIOS"));
        }
    }
    Ok(Step::Efi {
        esp,
        disk,
        start: start / SECTOR,
    })
}

/// Makes it so.
pub(super) async fn firmware(guest: &mut Guest, found: &Found, step: Step) -> Result<(), AdaptError> {
    let tool = grub_install(guest).await?.unwrap_or("grub-install");
    match step {
        Step::Nothing => {}
        Step::Bios { disk } => {
            let line = format!("{tool} --target=i386-pc --no-floppy {disk}");
            guest.program("install GRUB for BIOS", &line).await?;
            guest.did("GRUB is there for BIOS");
        }
        Step::Efi { esp, disk, start } => {
            let esp = match esp {
                Some(esp) => esp,
                None => system_partition(guest, found, &disk, start).await?,
            };
            let at = "/boot/efi";
            if !guest.dry {
                guest.ask("make a directory", &["mkdir-p", at]).await?;
                if !found.mounts.iter().any(|(mount, _)| mount == at) {
                    guest.ask("mount", &["mount", &esp, at]).await?;
                }
            }
            let line = format!("{tool} --target=x86_64-efi --efi-directory={at} --removable --no-nvram");
            guest.program("install GRUB for EFI", &line).await?;
            guest.did("GRUB is at \\EFI\\BOOT\\BOOTX64.EFI, where every EFI looks");
        }
    }
    Ok(())
}

/// A system partition behind all others. With it all is mounted anew.
async fn system_partition(
    guest: &mut Guest,
    found: &Found,
    disk: &str,
    start: u64,
) -> Result<String, AdaptError> {
    let number = partitions(guest, disk)
        .await?
        .iter()
        .map(|p| p.number)
        .max()
        .unwrap_or(0)
        + 1;
    let gpt = guest.maybe(&["part-get-parttype", disk]).await?.as_deref() == Some("gpt");
    // Beyond four it would be a logical one.
    let number = if gpt { number } else { number.min(4) };
    let esp = format!("{disk}{number}");
    if !guest.dry {
        guest.ask("unmount", &["umount-all"]).await?;
        let end = start + ESP_SIZE / SECTOR - 1;
        let (start, end) = (start.to_string(), end.to_string());
        if gpt {
            // Its second copy is not at the end of a disk that has grown.
            guest.maybe(&["part-expand-gpt", disk]).await?;
        }
        guest
            .ask("make a partition", &["part-add", disk, "primary", &start, &end])
            .await?;
        let number = number.to_string();
        if gpt {
            guest
                .ask(
                    "name the partition's type",
                    &["part-set-gpt-type", disk, &number, ESP],
                )
                .await?;
        } else {
            guest
                .ask(
                    "name the partition's type",
                    &["part-set-mbr-id", disk, &number, "0xef"],
                )
                .await?;
        }
        guest.ask("make a file system", &["mkfs", "vfat", &esp]).await?;
        let uuid = guest.ask("look at a file system", &["vfs-uuid", &esp]).await?;
        mount(guest, found).await?;
        let uuid = uuid.trim().to_owned();
        let line = format!("UUID={uuid} /boot/efi vfat umask=0077 0 1");
        guest
            .edit("/etc/fstab", |t| {
                if t.contains("/boot/efi") {
                    t.to_owned()
                } else {
                    format!("{}\n{line}\n", t.trim_end_matches('\n'))
                }
            })
            .await?;
    }
    guest.did(format!("the first disk has an EFI system partition, {esp}"));
    Ok(esp)
}

struct Partition {
    number: u32,
    /// Behind its last byte.
    end: u64,
    /// A GUID in capitals, or `0x83`.
    kind: String,
}

async fn partitions(guest: &mut Guest, disk: &str) -> Result<Vec<Partition>, AdaptError> {
    let Some(listed) = guest.maybe(&["part-list", disk]).await? else {
        return Ok(Vec::new());
    };
    let gpt = guest.maybe(&["part-get-parttype", disk]).await?.as_deref() == Some("gpt");
    let value = |line: &str, key: &str| {
        let (name, value) = line.trim().split_once(": ")?;
        (name == key).then(|| value.trim().parse::<u64>().ok()).flatten()
    };
    let numbers = listed.lines().filter_map(|l| value(l, "part_num"));
    let ends = listed.lines().filter_map(|l| value(l, "part_end"));
    let mut all = Vec::new();
    for (number, end) in numbers.zip(ends) {
        let word = number.to_string();
        let command = if gpt {
            "part-get-gpt-type"
        } else {
            "part-get-mbr-id"
        };
        let kind = guest.maybe(&[command, disk, &word]).await?.unwrap_or_default();
        all.push(Partition {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            end: end + 1,
            kind: if gpt {
                kind.to_uppercase()
            } else {
                kind.to_lowercase()
            },
        });
    }
    Ok(all)
}

/// The disk with `/boot` or the root on it; the first, where that is a logical volume.
async fn boot_disk(guest: &mut Guest, found: &Found) -> Result<String, AdaptError> {
    let of = |at: &str| {
        found
            .mounts
            .iter()
            .find(|(mount, _)| mount == at)
            .map(|(_, device)| device.clone())
    };
    let device = of("/boot").or_else(|| of("/")).unwrap_or_default();
    let device = device
        .strip_prefix("btrfsvol:")
        .map_or(device.as_str(), |d| {
            d.trim_end_matches(|c| c != '/').trim_end_matches('/')
        })
        .to_owned();
    let whole = guest.maybe(&["part-to-dev", &device]).await?;
    Ok(whole
        .or_else(|| found.devices.disks.first().cloned())
        .unwrap_or_default())
}

async fn grub_install(guest: &mut Guest) -> Result<Option<&'static str>, AdaptError> {
    for tool in ["grub-install", "grub2-install"] {
        if guest.which(tool).await?.is_some() {
            return Ok(Some(tool));
        }
    }
    Ok(None)
}
