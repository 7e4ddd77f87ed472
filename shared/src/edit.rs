//! What a machine is made of, changed: at once where QEMU can, else at its next start.

use crate::can::limit;
use crate::vm::{Disk, Firmware, NewDisk, NewNic, Nic, Vm};
use crate::{Name, Status, words};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

words! {
    /// What travels over a port.
    pub enum Protocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

/// A port of the host that leads to one of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortForward {
    /// What travels over it.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The host's address that is listened on.
    #[serde(default = "loopback")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub host_address: std::net::Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
    /// The guest's port.
    pub guest_port: u16,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn loopback() -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::LOCALHOST
}

impl PortForward {
    /// Whether both cannot be had on one host.
    pub fn meets(&self, other: &Self) -> bool {
        let (a, b) = (self.host_address, other.host_address);
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && (a == b || a.is_unspecified() || b.is_unspecified())
    }
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == Protocol::Udp {
            f.write_str("udp:")?;
        }
        if self.host_address != loopback() {
            write!(f, "{}:", self.host_address)?;
        }
        write!(f, "{}:{}", self.host_port, self.guest_port)
    }
}

impl FromStr for PortForward {
    type Err = String;

    /// As `2222:22`, `0.0.0.0:2222:22` or `udp:5353:53`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not written like 2222:22, 0.0.0.0:2222:22 or udp:5353:53");
        let (protocol, rest) = match text.split_once(':') {
            Some(("udp", rest)) => (Protocol::Udp, rest),
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            _ => (Protocol::Tcp, text),
        };
        let parts: Vec<_> = rest.split(':').collect();
        let (address, host, guest) = match parts[..] {
            [host, guest] => (loopback(), host, guest),
            [address, host, guest] => (address.parse().map_err(|_| wrong())?, host, guest),
            _ => return Err(wrong()),
        };
        let port = |text: &str| text.parse().ok().filter(|p| *p != 0).ok_or_else(wrong);
        Ok(Self {
            protocol,
            host_address: address,
            host_port: port(host)?,
            guest_port: port(guest)?,
        })
    }
}

/// A request to change what a machine is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditVm {
    /// Number of processors, from the next start on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in MiB, from the next start on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// The firmware, from the next start on. Another forgets what the one before remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Numbers of the disks that are booted from first, in this order, from the next start on; the others follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<u32>,
    /// Disks to put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_disks: Vec<NewDisk>,
    /// Disks to make larger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grow_disks: Vec<GrowDisk>,
    /// Numbers of disks to take out. What is on them is lost, but for what snapshots and clones have of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_disks: Vec<u32>,
    /// NICs to put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_nics: Vec<NewNic>,
    /// NICs to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub change_nics: Vec<ChangeNic>,
    /// Numbers of NICs to take out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_nics: Vec<u32>,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

/// A disk to make larger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrowDisk {
    /// Its number.
    pub disk: u32,
    /// What the guest sees from then on, in GiB.
    pub size_gib: u32,
}

/// A NIC to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeNic {
    /// Its number.
    pub nic: u32,
    /// The name or id of the network that it moves to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its address from the next start on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The ports of the host that lead to it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards: Option<Vec<PortForward>>,
}

/// What becomes of a machine at its next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NextStart {
    /// Number of processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// The firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Numbers of the disks that are booted from first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<u32>,
    /// Disks that are put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_disks: Vec<Disk>,
    /// Disks that grow, to so many bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grow_disks: Vec<Growth>,
    /// Numbers of disks that are taken out: the guest has not let go of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_disks: Vec<u32>,
    /// NICs that are put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_nics: Vec<Nic>,
    /// NICs that get another address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<NewMac>,
    /// Numbers of NICs that are taken out: the guest has not let go of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_nics: Vec<u32>,
}

/// A disk that grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Growth {
    /// Its number.
    pub disk: u32,
    /// What the guest will see, in bytes.
    pub virtual_bytes: u64,
}

/// A NIC that gets another address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NewMac {
    /// Its number.
    pub nic: u32,
    /// The address.
    pub mac: String,
}

/// The first PCI slot of disks, seeds and NICs: those below have what every machine has.
pub const FIRST_SLOT: u32 = 4;
/// The last PCI slot.
pub const LAST_SLOT: u32 = 31;

impl Vm {
    /// The machine as it will be when it is started next.
    pub fn started_next(&self) -> Self {
        let mut vm = self.clone();
        let Some(next) = vm.at_next_start.take() else {
            return vm;
        };
        vm.cpus = next.cpus.unwrap_or(vm.cpus);
        vm.memory_mib = next.memory_mib.unwrap_or(vm.memory_mib);
        vm.disks.retain(|d| !next.remove_disks.contains(&d.number));
        vm.disks.extend(next.add_disks);
        for growth in next.grow_disks {
            for disk in vm.disks.iter_mut().filter(|d| d.number == growth.disk) {
                disk.virtual_bytes = growth.virtual_bytes;
            }
        }
        let last = next.boot_order.len();
        let turn = |d: &Disk| next.boot_order.iter().position(|n| *n == d.number);
        vm.disks.sort_by_key(|d| turn(d).unwrap_or(last));
        vm.firmware = match vm.variables() {
            Some(_) => Firmware::Efi,
            None => Firmware::Bios,
        };
        vm.network_interfaces
            .retain(|n| !next.remove_nics.contains(&n.number));
        vm.network_interfaces.extend(next.add_nics);
        for new in next.macs {
            for nic in vm.network_interfaces.iter_mut().filter(|n| n.number == new.nic) {
                nic.mac.clone_from(&new.mac);
            }
        }
        vm
    }
}

/// Leaves out of a request what the machine will be anyhow: a form says all that it shows.
pub fn reduce(vm: &Vm, request: &mut EditVm) {
    let next = vm.started_next();
    request.cpus = request.cpus.filter(|n| *n != next.cpus);
    request.memory_mib = request.memory_mib.filter(|n| *n != next.memory_mib);
    request.firmware = request.firmware.filter(|f| *f != next.firmware);
    let mut order = next.guest_disks().map(|d| d.number);
    if request.boot_order.iter().all(|n| order.next() == Some(*n)) {
        request.boot_order.clear();
    }
    let size = |n: u32| {
        next.guest_disks()
            .find(|d| d.number == n)
            .map(|d| d.virtual_bytes)
    };
    request
        .grow_disks
        .retain(|grow| size(grow.disk) != Some(u64::from(grow.size_gib) << 30));
    for change in &mut request.change_nics {
        if let Some(nic) = next.network_interfaces.iter().find(|n| n.number == change.nic) {
            change.network = change.network.take().filter(|n| *n != nic.network.as_str());
            change.mac = change.mac.take().filter(|m| !m.eq_ignore_ascii_case(&nic.mac));
            change.forwards = change.forwards.take().filter(|f| *f != nic.forwards);
        }
    }
    let same = |c: &ChangeNic| c.network.is_none() && c.mac.is_none() && c.forwards.is_none();
    let known = |c: &ChangeNic| next.network_interfaces.iter().any(|n| n.number == c.nic);
    request.change_nics.retain(|c| !(known(c) && same(c)));
}

/// What is wrong with a request by itself, as it names the machine's devices, or in their number.
pub fn check(vm: &Vm, request: &EditVm) -> Result<(), Status> {
    let next = vm.started_next();
    if *request
        == (EditVm {
            request_id: request.request_id,
            ..EditVm::default()
        })
    {
        return Err(Status::invalid("request", "it changes nothing"));
    }
    if let Some(n) = request.cpus {
        limit::cpus("cpus", n)?;
    }
    if let Some(mib) = request.memory_mib {
        limit::memory("memoryMib", mib)?;
    }
    if request.memory_mib.is_some() || request.firmware.is_some() {
        let firmware = request.firmware.unwrap_or(next.firmware);
        limit::efi_memory(
            "memoryMib",
            firmware,
            request.memory_mib.unwrap_or(next.memory_mib),
        )?;
    }
    let disk = |field: &str, number: u32| {
        let found = next.guest_disks().find(|d| d.number == number);
        found.ok_or_else(|| missing(field, &vm.name, "disk", number))
    };
    let nic = |field: &str, number: u32| {
        let found = next.network_interfaces.iter().find(|n| n.number == number);
        found.ok_or_else(|| missing(field, &vm.name, "NIC", number))
    };
    once("removeDisks", &request.remove_disks)?;
    once("removeNics", &request.remove_nics)?;
    once("bootOrder", &request.boot_order)?;
    for &number in &request.remove_disks {
        disk("removeDisks", number)?;
    }
    for &number in &request.boot_order {
        disk("bootOrder", number)?;
        if request.remove_disks.contains(&number) {
            return Err(Status::invalid(
                "bootOrder",
                format_args!("disk {number} is taken out"),
            ));
        }
    }
    for (n, grow) in request.grow_disks.iter().enumerate() {
        let field = format!("growDisks[{n}].sizeGib");
        let now = disk(&format!("growDisks[{n}].disk"), grow.disk)?.virtual_bytes;
        limit::within(
            &field,
            u64::from(grow.size_gib),
            1,
            u64::from(limit::DISK_GIB),
            "GiB",
        )?;
        let asked = u64::from(grow.size_gib) << 30;
        if asked < now {
            return Err(Status::invalid(
                &field,
                format_args!(
                    "disk {} has {:.1} GiB and cannot shrink: its guest's data may reach to its end; add a smaller disk, \
                     and copy in the guest",
                    grow.disk,
                    now as f64 / f64::from(1 << 30)
                ),
            ));
        }
    }
    let keeps = |d: &Disk| !request.remove_disks.contains(&d.number);
    if request.add_disks.is_empty() && !next.guest_disks().any(keeps) {
        let why = format_args!("{} keeps one disk at least: put another in with it", vm.name);
        return Err(Status::invalid("removeDisks", why));
    }
    let disks = next.guest_disks().count() + request.add_disks.len() - request.remove_disks.len();
    limit::within("addDisks", disks as u64, 1, limit::DISKS as u64, "disks")?;
    for &number in &request.remove_nics {
        nic("removeNics", number)?;
    }
    for (n, change) in request.change_nics.iter().enumerate() {
        nic(&format!("changeNics[{n}].nic"), change.nic)?;
    }
    let nics = next.network_interfaces.len() + request.add_nics.len() - request.remove_nics.len();
    limit::within("addNics", nics as u64, 0, limit::NICS as u64, "NICs")
}

fn missing(field: &str, vm: &Name, what: &str, number: u32) -> Status {
    Status::invalid(field, format_args!("{vm} has no {what} {number}"))
}

fn once(field: &str, numbers: &[u32]) -> Result<(), Status> {
    let twice = numbers
        .iter()
        .enumerate()
        .find(|(n, number)| numbers[..*n].contains(number));
    match twice {
        Some((_, number)) => Err(Status::invalid(field, format_args!("{number} is given twice"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_forward_is_read_as_it_is_written() {
        for text in [
            "2222:22",
            "0.0.0.0:8080:80",
            "udp:5353:53",
            "udp:10.0.0.1:5353:53",
        ] {
            assert_eq!(text.parse::<PortForward>().unwrap().to_string(), text);
        }
        for text in ["", "22", "0:22", "1:2:3", "x:1:2", "1:70000"] {
            assert!(text.parse::<PortForward>().is_err(), "{text}");
        }
        let all: PortForward = "0.0.0.0:80:80".parse().unwrap();
        assert!(all.meets(&"80:8080".parse().unwrap()));
        assert!(!all.meets(&"udp:80:8080".parse().unwrap()));
    }
}
