//! `offshoot source …`: where machines live that are carried over.

use super::table::{Table, bytes};
use super::{Api, Failure, List, joined};
use clap::{ArgGroup, Args, Subcommand};
use shared::Name;
use shared::api::{DeleteSource, GetInventory, GetSource, ListSources, PostSource};
use shared::migrate::{
    CreateSource, DisksSource, Inventory, LibvirtSource, LocalSource, Source, SourcePlace,
};

/// `offshoot source …`
#[derive(Subcommand)]
pub enum SourceCommand {
    /// Lists sources.
    List(#[command(flatten)] List),
    /// Adds one.
    Add(AddArgs),
    /// Shows one.
    Show {
        /// Its name or id.
        source: String,
    },
    /// Lists the machines that it has, and which of them are being carried over.
    Inventory {
        /// Its name or id.
        source: String,
    },
    /// Removes one that nothing is carried over from. Its machines are left as they are.
    Remove {
        /// Its name or id.
        source: String,
    },
}

/// What a new source is.
#[derive(Args)]
#[command(group = ArgGroup::new("place").args(["local", "disks", "libvirt"]).required(true))]
pub struct AddArgs {
    /// Its name.
    name: Name,
    /// The machines of this server.
    #[arg(long)]
    local: bool,
    /// A directory of exported machines on the server's host: OVAs, OVFs with their disks, directories of disks, single disks.
    #[arg(long, value_name = "PATH")]
    disks: Option<String>,
    /// A libvirt that runs QEMU: qemu:///system on the server's host, qemu+ssh://root@host/system elsewhere.
    #[arg(long, value_name = "URI")]
    libvirt: Option<String>,
}

impl SourceCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListSources { query }, |page| {
                    let mut table = Table::new(["NAME", "PLACE", "MIGRATIONS", "ADDED"]);
                    for source in &page.sources {
                        table.row([
                            source.name.to_string(),
                            place(&source.place),
                            source.migrating_vms.to_string(),
                            source.create_time.to_string(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Add(args) => {
                let request = CreateSource {
                    name: args.name,
                    local: args.local.then(LocalSource::default),
                    disks: args.disks.map(|path| DisksSource { path }),
                    libvirt: args.libvirt.map(|uri| LibvirtSource { uri }),
                };
                api.show(&PostSource { request }, |s| shown(&s)).await
            }
            Self::Show { source } => api.show(&GetSource { source }, |s| shown(&s)).await,
            Self::Inventory { source } => api.show(&GetInventory { source }, |i| listed(&i)).await,
            Self::Remove { source } => {
                let told = format!("source {source} is removed; its machines are left as they are");
                api.show(&DeleteSource { source }, |()| told).await
            }
        }
    }
}

/// What a source is, in a few words; nothing for a kind that this version does not know.
fn place(place: &SourcePlace) -> String {
    match place {
        SourcePlace { local: Some(_), .. } => "the machines of this server".to_owned(),
        SourcePlace {
            disks: Some(disks), ..
        } => format!("exports in {}", disks.path),
        SourcePlace {
            libvirt: Some(libvirt),
            ..
        } => format!("libvirt {}", libvirt.uri),
        _ => String::new(),
    }
}

fn shown(source: &Source) -> String {
    [
        format!("name        {}", source.name),
        format!("id          {}", source.id),
        format!("place       {}", place(&source.place)),
        format!("migrations  {}", source.migrating_vms),
        format!("added       {}", source.create_time),
    ]
    .join("\n")
}

fn listed(inventory: &Inventory) -> String {
    let heads = [
        "NAME",
        "ID",
        "RUNS",
        "CPUS",
        "MEMORY",
        "FIRMWARE",
        "DISKS",
        "MIGRATION",
    ];
    let mut table = Table::new(heads);
    for vm in &inventory.vms {
        let runs = vm.running.map(|so| if so { "yes" } else { "no" });
        table.row([
            vm.name.clone(),
            vm.id.clone(),
            runs.unwrap_or_default().to_owned(),
            vm.cpus.map(|n| n.to_string()).unwrap_or_default(),
            vm.memory_mib.map(|n| format!("{n} MiB")).unwrap_or_default(),
            vm.firmware
                .map(|firmware| firmware.to_string())
                .unwrap_or_default(),
            joined(vm.disk_bytes.iter().copied().map(bytes)),
            match (&vm.migrating_vm, &vm.refusal) {
                (Some(id), _) => id.to_string(),
                (None, Some(why)) => format!("not possible: {why}"),
                (None, None) => String::new(),
            },
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::migrate::SourceVm;

    #[test]
    fn what_a_source_does_not_say_is_a_dash() {
        let vm = SourceVm {
            id: "7".into(),
            name: "web-1".into(),
            running: Some(true),
            cpus: Some(2),
            memory_mib: None,
            firmware: None,
            disk_bytes: vec![1 << 30, 10 << 30],
            os: None,
            refusal: None,
            migrating_vm: None,
        };
        let text = listed(&Inventory { vms: vec![vm] });
        assert_eq!(
            text.lines()
                .nth(1)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>(),
            [
                "web-1", "7", "yes", "2", "-", "-", "1.0", "GiB,", "10", "GiB", "-"
            ]
        );
    }
}
