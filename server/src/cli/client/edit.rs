//! `offshoot vm edit …` and what else changes a machine.

use super::http::ClientError;
use super::vm::label;
use super::{Api, Failure, Wait};
use shared::api::{Edit, UpdateVm};
use shared::edit::{ChangeNic, EditVm, GrowDisk, PortForward};
use shared::vm::{BlankDisk, DiskOfImage, Firmware, NewDisk, NewNic, PatchVm};
use shared::{Name, Status};
use std::str::FromStr;

/// `offshoot vm edit …`
#[derive(clap::Args)]
pub struct EditArgs {
    /// Its name or id.
    vm: String,
    /// Number of processors, from its next start on.
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory in MiB, from its next start on.
    #[arg(long)]
    memory_mib: Option<u32>,
    /// The firmware, BIOS or EFI, from its next start on. Another forgets what the one before remembered.
    #[arg(long)]
    firmware: Option<Firmware>,
    /// Numbers of the disks that are booted from first, in this order.
    #[arg(long, value_delimiter = ',')]
    boot_order: Vec<u32>,
    /// Put in an empty disk of so many GiB.
    #[arg(long)]
    add_blank_gib: Vec<u32>,
    /// Put in a disk that is an overlay on this image.
    #[arg(long)]
    add_image: Vec<String>,
    /// Make a disk larger, as number=GiB.
    #[arg(long, value_parser = pair::<u32>)]
    grow: Vec<(u32, u32)>,
    /// Take a disk out, by its number.
    #[arg(long)]
    remove_disk: Vec<u32>,
    /// Put in a NIC on this network.
    #[arg(long)]
    add_nic: Vec<String>,
    /// Take a NIC out, by its number.
    #[arg(long)]
    remove_nic: Vec<u32>,
    /// Move a NIC to another network, as number=network.
    #[arg(long, value_parser = pair::<String>)]
    network: Vec<(u32, String)>,
    /// Give a NIC another address from the next start on, as number=address.
    #[arg(long, value_parser = pair::<String>)]
    mac: Vec<(u32, String)>,
    /// Have a port of the host lead to a NIC, as number=2222:22; all that it has are to be given.
    #[arg(long, value_parser = pair::<PortForward>)]
    forward: Vec<(u32, PortForward)>,
    /// Take all port forwards from a NIC.
    #[arg(long)]
    no_forwards: Vec<u32>,
    #[command(flatten)]
    wait: Wait,
}

fn pair<T>(text: &str) -> Result<(u32, T), String>
where
    T: FromStr<Err: ToString>,
{
    let (number, value) = text.split_once('=').ok_or("it is written number=value")?;
    let number = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok((number, value.parse().map_err(|e: T::Err| e.to_string())?))
}

impl EditArgs {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let mut changes: Vec<ChangeNic> = Vec::new();
        let mut change = |nic: u32, set: &dyn Fn(&mut ChangeNic)| {
            let at = changes.iter().position(|c| c.nic == nic).unwrap_or_else(|| {
                let (network, mac, forwards) = (None, None, None);
                changes.push(ChangeNic {
                    nic,
                    network,
                    mac,
                    forwards,
                });
                changes.len() - 1
            });
            set(&mut changes[at]);
        };
        for (nic, network) in &self.network {
            change(*nic, &|c| c.network = Some(network.clone()));
        }
        for (nic, mac) in &self.mac {
            change(*nic, &|c| c.mac = Some(mac.clone()));
        }
        for nic in &self.no_forwards {
            change(*nic, &|c| c.forwards = Some(Vec::new()));
        }
        for (nic, forward) in &self.forward {
            change(*nic, &|c| {
                c.forwards.get_or_insert_default().push(forward.clone())
            });
        }
        let blank = |size_gib| NewDisk::Blank(BlankDisk { size_gib });
        let image = |image| {
            let size_gib = None;
            NewDisk::Image(DiskOfImage { image, size_gib })
        };
        let grow = |(disk, size_gib)| GrowDisk { disk, size_gib };
        let request = EditVm {
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            firmware: self.firmware,
            boot_order: self.boot_order,
            add_disks: self
                .add_blank_gib
                .into_iter()
                .map(blank)
                .chain(self.add_image.into_iter().map(image))
                .collect(),
            grow_disks: self.grow.into_iter().map(grow).collect(),
            remove_disks: self.remove_disk,
            add_nics: self.add_nic.into_iter().map(NewNic::on).collect(),
            change_nics: changes,
            remove_nics: self.remove_nic,
            request_id: None,
        };
        let vm = self.vm;
        api.begin(&Edit { vm, request }, self.wait).await
    }
}

/// `offshoot vm set …`
#[derive(clap::Args)]
pub struct SetArgs {
    /// Its name or id.
    vm: String,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    /// A label, as key=value; all that it has are to be given.
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// Its turn when the host has restarted, the lowest first.
    #[arg(long, conflicts_with = "no_autostart")]
    autostart: Option<u32>,
    /// Do not start it with the host.
    #[arg(long)]
    no_autostart: bool,
}

impl SetArgs {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let request = PatchVm {
            labels: Some(self.label.into_iter().collect())
                .filter(|l: &std::collections::BTreeMap<_, _>| !l.is_empty()),
            name: None,
            description: self.description,
            autostart: if self.no_autostart {
                Some(None)
            } else {
                self.autostart.map(Some)
            },
        };
        if request == PatchVm::default() {
            return Err(ClientError::Refused(Status::invalid("request", "it changes nothing")).into());
        }
        let vm = self.vm;
        api.show(&UpdateVm { vm, request }, |vm| format!("{} is changed", vm.name))
            .await
    }
}

/// Gives a machine another name.
pub async fn rename(api: &Api, vm: String, name: Name) -> Result<(), Failure> {
    let request = PatchVm {
        name: Some(name),
        ..PatchVm::default()
    };
    api.show(&UpdateVm { vm, request }, |vm| {
        format!("it is called {} now", vm.name)
    })
    .await
}
