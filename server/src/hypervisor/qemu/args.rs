//! The command line of a machine's QEMU.

use super::HvError;
use super::rundir::{RunDir, Sockets};
use super::stream::MEMORY;
use super::switch;
use super::tap;
use crate::disks::blockdev;
use crate::hypervisor::{DiskSpec, MachineSpec, NicSpec, Point};
use serde_json::{Value, json};
use shared::place::{Accelerator, NetworkKind};
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Pinned, so that a machine is the same under every QEMU from 7.2 on.
pub const MACHINE: &str = "pc-i440fx-7.2";
/// What a machine's process may not do.
pub const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// What the guest is told has one size for ever: Linux keeps the size that it saw first.
const TOLD_BYTES: usize = 64 << 10;
/// The name of the node of an EFI firmware.
const FIRMWARE: &str = "firmware";
/// The name of the node of the seed.
const SEED: &str = "seed";
/// The id of the guest agent's port and channel.
pub const AGENT: &str = "agent";

/// Where a machine begins.
pub enum Origin<'a> {
    /// With its power switched on.
    PowerOn,
    /// Where a point stands still, when that is there.
    Fork(&'a Point),
    /// The same, before anybody knows for whom: QEMU waits before it makes the machine, and is given its nodes later.
    Unasked(&'a Point),
}

impl Origin<'_> {
    fn point(&self) -> Option<&Point> {
        match self {
            Self::PowerOn => None,
            Self::Fork(point) | Self::Unasked(point) => Some(point),
        }
    }
}

/// What the guest is told by fw_cfg, padded.
pub fn told(spec: &MachineSpec) -> Result<Vec<u8>, HvError> {
    let macs: Vec<_> = spec.nics.iter().map(|nic| &nic.mac).collect();
    let told = json!({ "id": spec.id, "name": spec.name, "macs": macs, "config": spec.config });
    let mut told = told.to_string().into_bytes();
    if told.len() > TOLD_BYTES {
        return Err(HvError::Spec {
            vm: spec.id,
            why: format!(
                "what its guest is told has {} bytes, and {TOLD_BYTES} at most",
                told.len()
            ),
        });
    }
    told.resize(TOLD_BYTES, 0);
    Ok(told)
}

/// The arguments, which name the sockets by their descriptors.
pub fn arguments(
    spec: &MachineSpec,
    dir: &RunDir,
    accelerator: Accelerator,
    sockets: &Sockets,
    origin: &Origin<'_>,
) -> Result<Vec<OsString>, HvError> {
    let refuse = |why: &str| HvError::Spec {
        vm: spec.id,
        why: why.into(),
    };
    let mut args = Args::default();
    args.flags(&["-nodefaults", "-no-user-config"]);
    args.add("-sandbox", SANDBOX);
    args.add("-msg", "timestamp=on");
    args.add("-name", format!("guest={}", spec.name));
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg", "max"),
        Accelerator::Sim => return Err(refuse("QEMU does not simulate")),
    };
    let mut machine = format!("{MACHINE},accel={accelerator},usb=off,vmport=off");
    if origin.point().is_some() {
        machine.push_str(&format!(",memory-backend={MEMORY}"));
    }
    machine.push_str(&flash(spec)?);
    args.add("-machine", machine);
    if let Some(point) = origin.point() {
        args.add(
            "-object",
            format!(
                // The name that the memory has without an object.
                "memory-backend-file,id={MEMORY},size={}M,share=off,mem-path={}",
                spec.memory_mib,
                escaped(&point.memory)
            ),
        );
    }
    if matches!(origin, Origin::Unasked(_)) {
        args.flags(&["--preconfig"]);
    }
    if origin.point().is_some() {
        args.flags(&["-S", "-incoming", "defer"]);
    }
    args.add("-cpu", cpu);
    args.add("-smp", spec.cpus.to_string());
    args.add("-m", format!("{}M", spec.memory_mib));
    args.add("-uuid", spec.bios_uuid.to_string());
    args.add("-device", format!("vmgenid,guid={},id=vmgenid", spec.vmgenid));
    args.add("-rtc", "base=utc");
    args.add("-boot", "strict=on");
    args.add(
        "-fw_cfg",
        format!("name=opt/org.offshoot/guest,file={}", escaped(&dir.told())),
    );
    // A guest that panicked is kept to be looked at.
    args.add("-device", "pvpanic");
    args.add("-action", "panic=pause");

    args.socket("qmp", &sockets.monitor, "");
    args.add("-mon", "chardev=qmp,mode=control");
    args.socket("watch", &sockets.watch, "");
    args.add("-mon", "chardev=watch,mode=control");

    args.add("-display", "none");
    args.add("-device", "VGA,id=video,addr=0x2");
    // Whoever asks to have the screen alone gets it beside the others.
    args.add("-vnc", format!("unix:{},share=ignore", escaped(&dir.vnc())));
    args.add(
        "-chardev",
        format!("file,id=bios,path={},append=on", escaped(&dir.bios_log())),
    );
    args.add("-device", "isa-debugcon,iobase=0x402,chardev=bios");
    // With nobody connected the log still gets every byte, and the guest never waits.
    let log = format!(",logfile={},logappend=on", escaped(&dir.serial_log()));
    args.socket("serial", &sockets.serial, &log);
    args.add("-device", "isa-serial,id=serial0,chardev=serial");
    args.add("-device", "virtio-serial-pci,id=channels,addr=0x3");
    args.socket(AGENT, &sockets.agent, "");
    args.add(
        "-device",
        format!("virtserialport,id={AGENT},bus=channels.0,chardev={AGENT},name=org.qemu.guest_agent.0"),
    );

    if !matches!(origin, Origin::Unasked(_)) {
        for node in nodes(spec)? {
            args.add("-blockdev", node.options.to_string());
        }
    }
    args.disks(spec).map_err(refuse)?;
    for nic in &spec.nics {
        let n = nic.number;
        args.add("-netdev", port(n).to_string());
        match origin {
            Origin::PowerOn => {
                for netdev in uplink(spec, dir, nic)? {
                    args.add("-netdev", netdev.to_string());
                }
            }
            // It speaks with its source's address at first: nobody may hear that, now or later.
            Origin::Fork(_) | Origin::Unasked(_) => {
                args.add("-chardev", format!("file,id=nowhere{n},path=/dev/null"));
                args.add(
                    "-object",
                    format!(
                        "filter-redirector,id={},netdev=net{n},queue=rx,outdev=nowhere{n}",
                        sink(n)
                    ),
                );
            }
        }
        if nic.mac.contains(|c: char| !c.is_ascii_hexdigit() && c != ':') {
            return Err(refuse(&format!("{:?} is not a MAC address", nic.mac)));
        }
        args.add("-device", nic_device(nic).to_string());
    }
    // What the state has of the source's connections is loaded into ends that no NIC is connected to.
    for n in 0..origin.point().map_or(0, |point| point.user_networks) {
        args.add("-netdev", format!("user,id={}", old_network(n)));
    }
    Ok(args.0)
}

/// The machine's flash: an EFI firmware, and its variables.
fn flash(spec: &MachineSpec) -> Result<String, HvError> {
    let variables = spec.disks.iter().find(|disk| disk.is_variables());
    let active = variables.and_then(|disk| disk.chain.last());
    match (&spec.firmware, active) {
        (None, None) => Ok(String::new()),
        (Some(_), Some(layer)) => {
            let variables = blockdev::node_name(layer.id);
            Ok(format!(",pflash0={FIRMWARE},pflash1={variables}"))
        }
        (Some(_), None) | (None, Some(_)) => Err(HvError::Spec {
            vm: spec.id,
            why: "an EFI firmware goes with its variables, and they with it".into(),
        }),
    }
}

/// The end of a network that a fork's state was loaded into; it goes before the fork runs.
pub fn old_network(n: usize) -> String {
    format!("old{n}")
}

/// The id of what swallows all that a NIC sends. The guest sees a cable that is in, so nothing waits within it either.
pub fn sink(nic: u32) -> String {
    format!("sink{nic}")
}

/// The port that a NIC stands on: of a hub of its own, with nothing else on it until the NIC is connected.
pub fn port(nic: u32) -> Value {
    json!({ "type": "hubport", "id": format!("net{nic}"), "hubid": nic })
}

/// A NIC.
pub fn nic_device(nic: &NicSpec) -> Value {
    let n = nic.number;
    json!({
        "driver": "virtio-net-pci", "id": format!("nic{n}"), "netdev": format!("net{n}"), "mac": nic.mac, "romfile": "",
        "addr": slot(nic.slot),
    })
}

/// A disk. One that the firmware is to boot from has its turn.
pub fn disk_device(disk: &DiskSpec, turn: Option<usize>) -> Option<Value> {
    let active = disk.chain.last()?;
    let mut device = json!({
        "driver": "virtio-blk-pci", "id": format!("disk{}", disk.number), "drive": blockdev::node_name(active.id),
        "werror": "stop", "rerror": "stop", "addr": slot(disk.slot),
    });
    if let Some(turn) = turn {
        device["bootindex"] = json!(turn);
    }
    Some(device)
}

/// A PCI address: where the guest finds a device, and where a fork's state of it goes.
fn slot(slot: u32) -> String {
    format!("{slot:#x}")
}

/// The ids of what connects a NIC to its network: the port of its hub, and the network's end.
pub fn uplink_ids(nic: u32) -> [String; 2] {
    [format!("port{nic}"), format!("up{nic}")]
}

/// What connects a NIC to its network: the network's end, and the port of the NIC's hub that leads there.
pub fn uplink(spec: &MachineSpec, dir: &RunDir, nic: &NicSpec) -> Result<Vec<Value>, HvError> {
    if !nic.connected {
        return Ok(Vec::new());
    }
    let [port, id] = uplink_ids(nic.number);
    let port = json!({ "type": "hubport", "id": port, "hubid": nic.number, "netdev": id });
    let end = match nic.kind {
        NetworkKind::User => {
            let forwards = nic.forwards.iter().map(|forward| {
                let (protocol, host) = (forward.protocol.word().to_lowercase(), forward.host_address);
                let (from, to) = (forward.host_port, forward.guest_port);
                json!({ "str": format!("{protocol}:{host}:{from}-:{to}") })
            });
            json!({ "type": "user", "id": id, "hostfwd": forwards.collect::<Vec<_>>() })
        }
        NetworkKind::Isolated => {
            let network = dir.network(nic.network);
            let own = switch::port(&network, spec.id, nic.number);
            let at = |path| json!({ "type": "unix", "path": path });
            json!({ "type": "dgram", "id": id, "local": at(own), "remote": at(switch::socket(&network)) })
        }
        NetworkKind::Bridge => {
            let name = tap::name(spec.id, nic.number);
            json!({ "type": "tap", "id": id, "ifname": name, "script": "no", "downscript": "no" })
        }
    };
    Ok(vec![end, port])
}

/// What a disk reads from, as QEMU's block layer is told of it.
pub struct Node {
    /// Its name.
    pub name: String,
    pub options: Value,
    /// Whether nobody writes it any more.
    pub frozen: bool,
}

/// The layers of a machine's disks and its seed, each behind what it stands on.
pub fn nodes(spec: &MachineSpec) -> Result<Vec<Node>, HvError> {
    let refuse = |why: &str| HvError::Spec {
        vm: spec.id,
        why: why.into(),
    };
    let mut nodes = Vec::new();
    // Two disks may stand on the same layer, which then is one node.
    let mut there = HashSet::new();
    for disk in &spec.disks {
        let mut below = Value::Null;
        for (depth, layer) in disk.chain.iter().enumerate() {
            let active = depth + 1 == disk.chain.len();
            if layer.path.to_str().is_none() {
                return Err(refuse("the path of a layer is not UTF-8"));
            }
            if layer.shown.is_some() && (active || depth > 0) {
                return Err(refuse("a disk of a copy can only be the base of others"));
            }
            let name = blockdev::node_name(layer.id);
            if there.insert(layer.id) {
                nodes.push(Node {
                    options: blockdev::layer(layer, below, active),
                    frozen: !active,
                    name: name.clone(),
                });
            } else if active {
                return Err(refuse("the same layer is active in two disks"));
            }
            below = name.into();
        }
    }
    if let Some(firmware) = &spec.firmware {
        nodes.push(Node {
            name: FIRMWARE.into(),
            options: raw(FIRMWARE, firmware),
            frozen: true,
        });
    }
    if let Some(seed) = &spec.seed {
        nodes.push(Node {
            name: SEED.into(),
            options: raw(SEED, seed),
            frozen: false,
        });
    }
    Ok(nodes)
}

/// A file that nobody writes, as it is.
fn raw(name: &str, file: &Path) -> Value {
    json!({
        "driver": "raw", "node-name": name, "read-only": true,
        "file": { "driver": "file", "filename": file.to_string_lossy(), "read-only": true },
    })
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn socket(&mut self, id: &str, listener: &OwnedFd, more: &str) {
        let fd = listener.as_raw_fd();
        self.add(
            "-chardev",
            format!("socket,id={id},fd={fd},server=on,wait=off{more}"),
        );
    }

    fn disks(&mut self, spec: &MachineSpec) -> Result<(), &'static str> {
        let disks = spec.disks.iter().filter(|disk| !disk.is_variables());
        for (n, disk) in disks.enumerate() {
            let device = disk_device(disk, Some(n + 1)).ok_or("a disk has no layers")?;
            self.add("-device", device.to_string());
        }
        if spec.seed.is_some() {
            let addr = slot(spec.seed_slot);
            self.add(
                "-device",
                format!("virtio-blk-pci,id=seed,drive={SEED},addr={addr}"),
            );
        }
        Ok(())
    }
}

/// A path within an option: QEMU reads two commas as one.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
