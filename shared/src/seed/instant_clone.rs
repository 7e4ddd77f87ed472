//! VMware's `VirtualMachineInstantCloneSpec`, whole, and what of it can be honoured here.
//!
//! As it travels in the JSON of the Virtual Infrastructure API 8.0. `_typeName` may be missing where the type is known; unknown fields are ignored, as
//! newer clients send some.

use super::fault::{Fault, MethodFault};
use crate::Name;
use crate::fork::{ForkNic, InstantClone};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$more:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs)]
        pub struct $name {
            #[serde(rename = "_typeName", default, skip_serializing_if = "Option::is_none")]
            pub type_name: Option<String>,
            $($(#[$more])* #[serde(default, skip_serializing_if = "is_absent")] pub $field: $ty,)*
        }
    )*};
}

fn is_absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

objects! {
    /// What an instant clone is to be like.
    VirtualMachineInstantCloneSpec {
        name: String,
        location: VirtualMachineRelocateSpec,
        config: Vec<OptionValue>,
        bios_uuid: Option<String>,
    }

    /// Where it is to be; an instant clone is where its source is.
    VirtualMachineRelocateSpec {
        service: Option<ServiceLocator>,
        folder: Option<ManagedObjectReference>,
        datastore: Option<ManagedObjectReference>,
        disk_move_type: Option<String>,
        pool: Option<ManagedObjectReference>,
        host: Option<ManagedObjectReference>,
        disk: Vec<DiskLocator>,
        transform: Option<String>,
        device_change: Vec<VirtualDeviceConfigSpec>,
        profile: Vec<Value>,
        crypto_spec: Option<Value>,
    }

    /// Another server.
    ServiceLocator {
        instance_uuid: Option<String>,
        url: Option<String>,
        credential: Option<Value>,
        ssl_thumbprint: Option<String>,
    }

    /// A thing of the inventory.
    ManagedObjectReference {
        r#type: String,
        value: String,
    }

    /// Where a disk is to be.
    DiskLocator {
        disk_id: i32,
        datastore: Option<ManagedObjectReference>,
        disk_move_type: Option<String>,
        disk_backing_info: Option<Value>,
        profile: Vec<Value>,
        backing: Option<BackingSpec>,
        filter_spec: Vec<Value>,
    }

    /// What a disk or a device stands on.
    BackingSpec {
        parent: Option<Box<BackingSpec>>,
        crypto: Option<Value>,
    }

    /// A change of a device.
    VirtualDeviceConfigSpec {
        operation: Option<String>,
        file_operation: Option<String>,
        device: VirtualDevice,
        profile: Vec<Value>,
        backing: Option<BackingSpec>,
        filter_spec: Vec<Value>,
        change_mode: Option<String>,
    }

    /// A device; which kind, its `_typeName` says.
    VirtualDevice {
        key: i32,
        device_info: Option<Description>,
        backing: Option<Value>,
        connectable: Option<VirtualDeviceConnectInfo>,
        slot_info: Option<Value>,
        controller_key: Option<i32>,
        unit_number: Option<i32>,
        numa_node: Option<i32>,
        device_group_info: Option<DeviceGroupInfo>,
        /// Of a NIC.
        address_type: Option<String>,
        /// Of a NIC.
        mac_address: Option<String>,
    }

    /// Words for people.
    Description {
        label: String,
        summary: String,
    }

    /// Whether a device is connected, and when.
    VirtualDeviceConnectInfo {
        /// `connect`, `disconnect` or `unset`; for the clone alone.
        migrate_connect: Option<String>,
        start_connected: bool,
        allow_guest_control: bool,
        connected: bool,
        status: Option<String>,
    }

    /// The group of a device.
    DeviceGroupInfo {
        group_instance_key: i32,
        sequence_id: i32,
    }

    /// A key and its value.
    OptionValue {
        key: String,
        value: Value,
    }
}

/// Where the source is, in the words that a spec may use for it: ids and names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The folder of all machines.
    pub folders: Vec<String>,
    /// Its storage.
    pub datastores: Vec<String>,
    /// Its host.
    pub pools: Vec<String>,
    /// How many NICs it has.
    pub nics: usize,
}

/// The key of a machine's first NIC, as vSphere counts them.
pub const FIRST_NIC: i32 = 4000;

/// What is a NIC by its `_typeName`.
const NICS: [&str; 8] = [
    "VirtualEthernetCard",
    "VirtualE1000",
    "VirtualE1000e",
    "VirtualPCNet32",
    "VirtualSriovEthernetCard",
    "VirtualVmxnet",
    "VirtualVmxnet2",
    "VirtualVmxnet3",
];

impl VirtualMachineInstantCloneSpec {
    /// The request that it stands for, with what becomes of each NIC; or the fault that refuses it.
    pub fn request(&self, at: &Placement) -> Result<(InstantClone, Vec<ForkNic>), MethodFault> {
        let name = unescape(&self.name);
        let name: Name = name.parse().map_err(|why: crate::NameError| {
            Fault::argument("spec.name")
                .with(&format!("{:?} cannot be the name of a machine: {why}", self.name))
        })?;
        let bios_uuid = match &self.bios_uuid {
            Some(text) => Some(text.parse().map_err(|why| {
                Fault::argument("spec.biosUuid").with(&format!("{text:?} is no UUID: {why}"))
            })?),
            None => None,
        };
        let nics = self.location.check(at)?;
        let mut config = BTreeMap::new();
        for option in &self.config {
            let value = option.text().ok_or_else(|| {
                Fault::argument("spec.config").with(&format!(
                    "the value of {:?} is neither a text nor a number nor a truth value",
                    option.key
                ))
            })?;
            if !option.key.starts_with("guestinfo.") {
                return Err(Fault::argument("spec.config").with(&format!(
                    "{:?} cannot be set: an instant clone takes keys that begin with guestinfo. only",
                    option.key
                )));
            }
            config.insert(option.key.clone(), value);
        }
        let request = InstantClone {
            name: Some(name),
            config,
            bios_uuid,
            ..InstantClone::default()
        };
        Ok((request, nics))
    }
}

impl OptionValue {
    /// Its value as text: plain, or in a box that names its type.
    fn text(&self) -> Option<String> {
        let plain = self.value.get("_value").unwrap_or(&self.value);
        match plain {
            Value::String(text) => Some(text.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl VirtualMachineRelocateSpec {
    /// Refuses what an instant clone cannot do; answers what becomes of each NIC.
    fn check(&self, at: &Placement) -> Result<Vec<ForkNic>, MethodFault> {
        let refused =
            |field: &str, why: &str| Err(Fault::argument(&format!("spec.location.{field}")).with(why));
        const HERE: &str =
            "an instant clone runs where its source does, on the same disks and the same server";
        if self.service.is_some() {
            return refused("service", HERE);
        }
        if self.host.is_some() {
            return refused("host", HERE);
        }
        if !self.disk.is_empty() {
            return refused("disk", HERE);
        }
        if self.disk_move_type.is_some() {
            return refused("diskMoveType", HERE);
        }
        if self.transform.is_some() {
            return refused("transform", HERE);
        }
        if !self.profile.is_empty() {
            return refused("profile", "there are no storage profiles here");
        }
        if self.crypto_spec.is_some() {
            return refused("cryptoSpec", "disks cannot be encrypted on the way");
        }
        let is = |asked: &ManagedObjectReference, known: &[String]| known.contains(&asked.value);
        if let Some(folder) = self.folder.as_ref().filter(|f| !is(f, &at.folders)) {
            return refused("folder", &format!("there is no folder {}", folder.value));
        }
        if let Some(pool) = self.pool.as_ref().filter(|p| !is(p, &at.pools)) {
            return refused(
                "pool",
                &format!("{} is not where the source runs: {HERE}", pool.value),
            );
        }
        if let Some(datastore) = self.datastore.as_ref().filter(|d| !is(d, &at.datastores)) {
            let name = datastore.value.clone();
            return Err(Fault::InvalidDatastore { name }.with(&format!(
                "{} is not the storage of the source: {HERE}",
                datastore.value
            )));
        }
        let mut nics = vec![ForkNic::default(); at.nics];
        for change in &self.device_change {
            change.apply(&mut nics)?;
        }
        Ok(nics)
    }
}

impl VirtualDeviceConfigSpec {
    fn apply(&self, nics: &mut [ForkNic]) -> Result<(), MethodFault> {
        let device = &self.device;
        let refused = |why: String| Err(Fault::DisallowedMigrationDeviceAttached.with(&why));
        let kind = device.type_name.as_deref().unwrap_or("VirtualDevice");
        if !NICS.contains(&kind) {
            return refused(format!(
                "device {} is a {kind}: an instant clone can change NICs only",
                device.key
            ));
        }
        if self.operation.as_deref() != Some("edit") {
            return refused(format!(
                "NIC {} cannot be added or removed: an instant clone has the devices of its source",
                device.key
            ));
        }
        if self.file_operation.is_some()
            || !self.profile.is_empty()
            || self.backing.is_some()
            || !self.filter_spec.is_empty()
        {
            return refused(format!(
                "NIC {} has neither files nor profiles nor filters",
                device.key
            ));
        }
        let n = usize::try_from(device.key - FIRST_NIC).ok();
        let Some(nic) = n.and_then(|n| nics.get_mut(n)) else {
            return refused(format!("the source has no NIC {}", device.key));
        };
        match device
            .connectable
            .as_ref()
            .and_then(|c| c.migrate_connect.as_deref())
        {
            None | Some("unset") => {}
            Some("connect") => nic.connect = Some(true),
            Some("disconnect") => nic.connect = Some(false),
            Some(other) => return refused(format!("NIC {}: {other:?} is no migrateConnect", device.key)),
        }
        match (device.address_type.as_deref(), &device.mac_address) {
            (Some("manual"), Some(mac)) if is_mac(mac) => nic.mac = Some(mac.to_lowercase()),
            (Some("manual"), mac) => {
                let mac = mac.clone().unwrap_or_default();
                return refused(format!("NIC {}: {mac:?} is no unicast address", device.key));
            }
            // Else it gets a new one, as every clone does.
            _ => {}
        }
        Ok(())
    }
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<_> = text
        .split(':')
        .map(|b| (b.len(), u8::from_str_radix(b, 16)))
        .collect();
    bytes.len() == 6
        && bytes.iter().all(|(len, b)| *len == 2 && b.is_ok())
        && matches!(bytes[0].1, Ok(first) if first & 1 == 0)
}

/// `%25`, `%2f` and `%5c` stand for `%`, `/` and `\` in names.
fn unescape(name: &str) -> String {
    name.replace("%2f", "/")
        .replace("%2F", "/")
        .replace("%5c", "\\")
        .replace("%5C", "\\")
        .replace("%25", "%")
}
