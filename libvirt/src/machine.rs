//! What the XML of a domain says of its machine.

use roxmltree::{Document, Node};

/// The largest XML that is read, in bytes.
const MOST_BYTES: usize = 4 << 20;

/// How a machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// By a BIOS.
    Bios,
    /// By EFI.
    Efi,
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where the machine has it: `vda`.
    pub target: String,
    /// Its format: `qcow2`, `raw`.
    pub format: String,
    /// The file, the device or what else it lies in, where that has a name.
    pub source: Option<String>,
    /// Whether that is a plain file, beside which QEMU may write another.
    pub is_file: bool,
    /// Its size as the machine sees it, in bytes; 0 until it was asked for.
    pub bytes: u64,
}

impl Disk {
    /// Whether it can remember what has changed.
    #[must_use]
    pub fn keeps_bitmaps(&self) -> bool {
        self.format == "qcow2"
    }
}

/// A machine, as libvirt describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Whether it runs, or stands still with its memory.
    pub active: bool,
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    pub memory_mib: Option<u32>,
    /// Firmware.
    pub firmware: Firmware,
    /// Its operating system, by libosinfo's name of it: `debian/12`.
    pub os: Option<String>,
    /// How many NICs it has.
    pub nics: u32,
    /// Its disks, those first that it boots from.
    pub disks: Vec<Disk>,
    /// Why it cannot be carried over.
    pub refusal: Option<String>,
}

fn child<'a, 'b>(of: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    of.children().find(|node| node.has_tag_name(name))
}

fn text_of(of: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(of, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.chars().take(256).collect())
}

/// Memory with the units that libvirt knows, in MiB.
fn mib(node: Node<'_, '_>) -> Option<u32> {
    let number: u64 = node.text()?.trim().parse().ok()?;
    let unit: u64 = match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    u32::try_from(number.checked_mul(unit)? >> 20).ok()
}

/// What a disk lies in.
fn place(source: Node<'_, '_>) -> Option<String> {
    let place = match source.attribute("pool") {
        Some(pool) => format!("{pool}/{}", source.attribute("volume")?),
        None => ["file", "dev", "name", "dir"]
            .iter()
            .find_map(|key| source.attribute(*key))?
            .to_owned(),
    };
    Some(place)
}

/// A disk, with its place in the order of booting; or why it cannot be carried over; or nothing, where there is no medium to read.
fn disk(node: Node<'_, '_>) -> Option<Result<(u32, Disk), String>> {
    let target = child(node, "target")
        .and_then(|t| t.attribute("dev"))
        .unwrap_or_default();
    let refused = |why: &str| Some(Err(format!("its disk {target} {why}")));
    match node.attribute("device").unwrap_or("disk") {
        "cdrom" | "floppy" => return None,
        "disk" => {}
        _ => return refused("is a LUN that the guest has to itself: libvirt cannot show it to others"),
    }
    let kind = node.attribute("type").unwrap_or("file");
    if matches!(kind, "vhostuser" | "vhostvdpa" | "dir") {
        return refused("is served by another program, past QEMU");
    }
    if child(node, "transient").is_some() {
        return refused("forgets what is written when the machine stops");
    }
    if child(node, "shareable").is_some() {
        return refused("is written by other machines, too");
    }
    let source = child(node, "source")?;
    let format = child(node, "driver").and_then(|d| d.attribute("type"));
    let order = child(node, "boot").and_then(|b| b.attribute("order")?.parse().ok());
    Some(Ok((
        order.unwrap_or(u32::MAX),
        Disk {
            target: target.to_owned(),
            format: format.unwrap_or("raw").to_owned(),
            source: place(source),
            is_file: kind == "file",
            bytes: 0,
        },
    )))
}

/// Reads what a domain's XML says.
///
/// # Errors
///
/// Why it cannot be read.
pub fn read(xml: &str, active: bool) -> Result<Machine, String> {
    if xml.len() > MOST_BYTES {
        return Err("its description is too long".into());
    }
    let document = Document::parse(xml).map_err(|e| format!("its description is no XML: {e}"))?;
    let domain = document.root_element();
    let os = child(domain, "os");
    let efi = os.is_some_and(|os| {
        let loader = child(os, "loader");
        os.attribute("firmware") == Some("efi") || loader.and_then(|l| l.attribute("type")) == Some("pflash")
    });
    let devices = child(domain, "devices")
        .map(|d| d.children())
        .into_iter()
        .flatten();
    let mut disks = Vec::new();
    let (mut nics, mut refusal) = (0, None);
    for device in devices {
        match device.tag_name().name() {
            "disk" => match disk(device) {
                Some(Ok(disk)) => disks.push(disk),
                Some(Err(why)) => _ = refusal.get_or_insert(why),
                None => {}
            },
            "interface" => nics += 1,
            _ => {}
        }
    }
    if disks.is_empty() {
        refusal.get_or_insert_with(|| "it has no disk".to_owned());
    }
    disks.sort_by_key(|(order, _)| *order);
    let libosinfo = domain
        .descendants()
        .find(|node| node.tag_name().name() == "os" && node.tag_name().namespace().is_some());
    let known = libosinfo.and_then(|os| os.attribute("id"));
    Ok(Machine {
        uuid: text_of(domain, "uuid").ok_or("its description has no UUID")?,
        name: text_of(domain, "name").ok_or("its description has no name")?,
        active,
        cpus: text_of(domain, "vcpu").and_then(|n| n.parse().ok()),
        memory_mib: child(domain, "memory").and_then(mib),
        firmware: if efi { Firmware::Efi } else { Firmware::Bios },
        // An address of libosinfo's: http://debian.org/debian/12.
        os: known.map(|id| {
            let id = id.split_once("://").map_or(id, |(_, id)| id);
            let id = id.split_once('/').map_or(id, |(_, id)| id);
            id.chars().take(256).collect()
        }),
        nics,
        disks: disks.into_iter().map(|(_, disk)| disk).collect(),
        refusal,
    })
}

/// The text as it stands within XML.
#[cfg(feature = "client")]
pub(crate) fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            '\'' => all.push_str("&apos;"),
            c => all.push(c),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = r#"<domain type='kvm' id='3'>
  <name>web &amp; mail</name><uuid>4ecf55b8-3c86-472e-b5e9-7dc0609adf44</uuid>
  <metadata><libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
    <libosinfo:os id="http://debian.org/debian/12"/></libosinfo:libosinfo></metadata>
  <memory unit='KiB'>4194304</memory><vcpu placement='static'>4</vcpu>
  <os><type arch='x86_64'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/images/data.img'/><target dev='vdb'/></disk>
    <disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='qcow2'/><source dev='/dev/vg/root'/><target dev='vda'/><boot order='1'/></disk>
    <disk type='network' device='disk'><driver type='raw'/><source protocol='rbd' name='pool/image'/><target dev='vdc'/></disk>
    <interface type='network'/><interface type='bridge'/>
  </devices></domain>"#;

    #[test]
    fn what_it_says_is_read() {
        let machine = read(DOMAIN, true).unwrap();
        let disks: Vec<_> = machine
            .disks
            .iter()
            .map(|d| {
                (
                    d.target.as_str(),
                    d.source.as_deref().unwrap(),
                    d.is_file,
                    d.keeps_bitmaps(),
                )
            })
            .collect();
        assert_eq!(
            disks,
            [
                ("vda", "/dev/vg/root", false, true),
                ("vdb", "/images/data.img", true, false),
                ("vdc", "pool/image", false, false),
            ]
        );
        assert_eq!(machine.name, "web & mail");
        assert_eq!(
            (machine.cpus, machine.memory_mib, machine.nics),
            (Some(4), Some(4096), 2)
        );
        assert_eq!(machine.os.as_deref(), Some("debian/12"));
        assert_eq!((machine.firmware, machine.refusal), (Firmware::Efi, None));
    }

    #[test]
    fn what_cannot_be_carried_over_says_why() {
        let with = |from: &str, to: &str| read(&DOMAIN.replace(from, to), true).unwrap();
        for (from, to, says) in [
            ("<disk ", "<hostdev ", "no disk"),
            (
                "type='block' device='disk'",
                "type='block' device='lun'",
                "vda is a LUN",
            ),
            ("type='network'", "type='vhostuser'", "vdc is served"),
            (
                "<target dev='vdb'/>",
                "<target dev='vdb'/><transient/>",
                "vdb forgets",
            ),
            (
                "<target dev='vdb'/>",
                "<target dev='vdb'/><shareable/>",
                "vdb is written",
            ),
        ] {
            let from = match says {
                "no disk" => DOMAIN.replace("</disk>", "</hostdev>").replace(from, to),
                _ => DOMAIN.replace(from, to),
            };
            let refusal = read(&from, true).unwrap().refusal.unwrap();
            assert!(refusal.contains(says), "{refusal}");
        }
        assert_eq!(with("type='pflash'", "type='rom'").firmware, Firmware::Bios);
        assert!(read("<domain/>", true).is_err());
        assert!(read("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", true).is_err());
    }

    #[test]
    fn memory_has_units() {
        for (text, is) in [
            ("<m>1048576</m>", Some(1024)),
            ("<m unit='MiB'>512</m>", Some(512)),
            ("<m unit='GB'>1</m>", Some(953)),
            ("<m unit='bytes'>1048576</m>", Some(1)),
            ("<m unit='TiB'>99999999999</m>", None),
            ("<m unit='acres'>1</m>", None),
        ] {
            let document = Document::parse(text).unwrap();
            assert_eq!(mib(document.root_element()), is, "{text}");
        }
    }
}
