//! What an OVF says of a machine. It is somebody else's: what it says is only shown, and used where it makes sense.

use roxmltree::{Document, Node};
use shared::can::limit;
use shared::vm::Firmware;

/// The largest that is read, in bytes.
pub const MOST_BYTES: u64 = 1 << 20;

/// A machine, as far as it is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    pub name: Option<String>,
    pub os: Option<String>,
    pub cpus: Option<u32>,
    pub memory_mib: Option<u32>,
    pub firmware: Option<Firmware>,
    pub nics: u32,
    /// The files of its disks, in their order.
    pub files: Vec<String>,
}

/// Numbers of kinds of hardware (CIM's ResourceType).
mod kind {
    pub const CPU: &str = "3";
    pub const MEMORY: &str = "4";
    pub const NIC: &str = "10";
    pub const DISK: &str = "17";
}

/// Reads the first machine of an OVF.
///
/// # Errors
///
/// Why it cannot be read.
pub fn read(text: &str) -> Result<Described, String> {
    // Without DTDs nothing in it unfolds to more than it is.
    let document = Document::parse(text).map_err(|e| format!("its OVF is no XML: {e}"))?;
    let root = document.root_element();
    let named = |name: &'static str| root.descendants().filter(move |node| is(*node, name));
    let machine = named("VirtualSystem")
        .next()
        .ok_or("its OVF describes no machine")?;
    let href = |disk: &str| {
        let disk = named("Disk").find(|d| attribute(*d, "diskId") == Some(disk))?;
        let file = attribute(disk, "fileRef")?;
        let file = named("File").find(|f| attribute(*f, "id") == Some(file))?;
        attribute(file, "href").map(str::to_owned)
    };
    let mut described = Described {
        name: text_of(machine, "Name").or_else(|| attribute(machine, "id").map(str::to_owned)),
        os: child(machine, "OperatingSystemSection").and_then(|os| text_of(os, "Description")),
        ..Described::default()
    };
    for item in machine
        .descendants()
        .filter(|node| is(*node, "Item") || is(*node, "StorageItem"))
    {
        let quantity = || text_of(item, "VirtualQuantity")?.parse::<u64>().ok();
        match text_of(item, "ResourceType").as_deref() {
            Some(kind::CPU) => {
                let cpus = quantity().and_then(|n| u32::try_from(n).ok());
                described.cpus = cpus.filter(|n| (1..=limit::CPUS).contains(n));
            }
            Some(kind::MEMORY) => {
                let unit = text_of(item, "AllocationUnits").unwrap_or_default();
                let mib = quantity().and_then(|n| in_mib(n, &unit));
                let allowed = limit::MIN_MEMORY_MIB..=limit::MAX_MEMORY_MIB;
                described.memory_mib = mib.filter(|mib| allowed.contains(mib));
            }
            Some(kind::NIC) => described.nics += 1,
            Some(kind::DISK) => {
                let host = text_of(item, "HostResource").unwrap_or_default();
                let file = host.rsplit_once("/disk/").and_then(|(_, disk)| href(disk));
                described.files.extend(file);
            }
            _ => {}
        }
    }
    let firmware = machine
        .descendants()
        .find(|node| is(*node, "Config") && attribute(*node, "key") == Some("firmware"));
    described.firmware = match firmware.and_then(|node| attribute(node, "value")) {
        Some("efi") => Some(Firmware::Efi),
        Some("bios") => Some(Firmware::Bios),
        _ => None,
    };
    Ok(described)
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

fn child<'a, 'b>(of: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    of.children().find(|node| is(*node, name))
}

/// An attribute, whatever its name space.
fn attribute<'a>(of: Node<'a, '_>, name: &str) -> Option<&'a str> {
    of.attributes().find(|a| a.name() == name).map(|a| a.value())
}

fn text_of(of: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(of, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.chars().take(256).collect())
}

/// Memory in the units that OVFs name, in MiB.
fn in_mib(quantity: u64, unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase().replace(' ', "");
    let shift = match unit.as_str() {
        "" | "byte*2^20" | "megabytes" | "mb" => 0,
        "byte*2^30" | "gigabytes" | "gb" => 10,
        _ => return None,
    };
    u32::try_from(quantity.checked_mul(1 << shift)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:id="f1" ovf:href="web-disk1.vmdk"/><File ovf:id="f2" ovf:href="web-disk2.vmdk"/></References>
  <DiskSection><Info/><Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:capacity="1"/><Disk ovf:diskId="d1" ovf:fileRef="f1"/></DiskSection>
  <VirtualSystem ovf:id="web-id"><Info/><Name>web</Name>
    <OperatingSystemSection ovf:id="96"><Info/><Description>Debian GNU/Linux 12 (64-bit)</Description></OperatingSystemSection>
    <VirtualHardwareSection>
      <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>4</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^30</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:ResourceType>10</rasd:ResourceType></Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>"#;

    #[test]
    fn what_it_says_is_read() {
        assert_eq!(
            read(MACHINE).unwrap(),
            Described {
                name: Some("web".into()),
                os: Some("Debian GNU/Linux 12 (64-bit)".into()),
                cpus: Some(4),
                memory_mib: Some(2048),
                firmware: Some(Firmware::Efi),
                nics: 1,
                files: vec!["web-disk1.vmdk".into(), "web-disk2.vmdk".into()],
            }
        );
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let wild = MACHINE
            .replace(">4</rasd:V", ">400000</rasd:V")
            .replace("2^30", "2^80")
            .replace("ovf:/disk/d2", "ovf:/disk/none")
            .replace("<Name>web</Name>", "");
        let read = read(&wild).unwrap();
        assert_eq!((read.cpus, read.memory_mib), (None, None));
        assert_eq!(read.files, ["web-disk1.vmdk"]);
        assert_eq!(read.name.as_deref(), Some("web-id"));
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for text in [
            "",
            "<a",
            "<Envelope/>",
            // It would unfold to a billion.
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
