//! `offshoot host …`, `offshoot storage …` and `offshoot network …`

use super::table::{Table, bytes};
use super::{Api, Failure, List};
use clap::Subcommand;
use shared::Name;
use shared::api::{
    DeleteNetwork, DeleteStorage, ListHosts, ListNetworks, ListStorages, PostNetwork, PostStorage,
    UpdateHost, UpdateNetwork, UpdateStorage,
};
use shared::place::{
    CreateNetwork, CreateStorage, HostState, NetworkKind, PatchHost, PatchNetwork, PatchStorage,
};

/// `offshoot host …`
#[derive(Subcommand)]
pub enum HostCommand {
    /// Lists hosts, with what they have and what is in use.
    List(#[command(flatten)] List),
    /// Takes it out for maintenance: what runs goes on, and nothing begins.
    Maintenance {
        /// Its name or id.
        host: String,
    },
    /// Ends its maintenance.
    Up {
        /// Its name or id.
        host: String,
    },
}

impl HostCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let set = async |host, state| {
            let request = PatchHost { state };
            api.show(&UpdateHost { host, request }, |host| {
                format!("{} is {}", host.name, host.state)
            })
            .await
        };
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListHosts { query }, |page| {
                    let mut table = Table::new(["NAME", "STATE", "RUNS", "CPUS", "MEMORY", "IN USE", "QEMU"]);
                    for host in &page.hosts {
                        table.row([
                            host.name.to_string(),
                            host.state.to_string(),
                            host.running_vms.to_string(),
                            host.cpus.to_string(),
                            format!("{} MiB", host.memory_mib),
                            format!("{} MiB", host.memory_in_use_mib),
                            format!("{} {}", host.qemu_version, host.accelerator),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Maintenance { host } => set(host, HostState::Maintenance).await,
            Self::Up { host } => set(host, HostState::Up).await,
        }
    }
}

/// `offshoot storage …`
#[derive(Subcommand)]
pub enum StorageCommand {
    /// Lists storages.
    List(#[command(flatten)] List),
    /// Adds a directory that disks can go to.
    Add {
        /// Its name.
        name: Name,
        /// The directory.
        path: String,
        /// Have new disks go there unless asked otherwise.
        #[arg(long)]
        default: bool,
    },
    /// Has new disks go there unless asked otherwise.
    Default {
        /// Its name or id.
        storage: String,
    },
    /// Gives it another name.
    Rename {
        /// Its name or id.
        storage: String,
        /// The new name.
        name: Name,
    },
    /// Removes it, if nothing is in it. Its directory stays.
    Delete {
        /// Its name or id.
        storage: String,
    },
}

impl StorageCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let said = |storage: shared::place::Storage| {
            let default = if storage.default { ", the default" } else { "" };
            let away = storage
                .away
                .map_or_else(String::new, |why| format!(", out of reach: {why}"));
            format!("{}: {}{default}{away}", storage.name, storage.path)
        };
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListStorages { query }, |page| {
                    let mut table = Table::new(["NAME", "DEFAULT", "FREE", "SIZE", "LAYERS", "PATH"]);
                    for storage in &page.storages {
                        table.row([
                            storage.name.to_string(),
                            if storage.default { "yes" } else { "" }.to_owned(),
                            match storage.away {
                                Some(_) => "out of reach".to_owned(),
                                None => bytes(storage.free_bytes),
                            },
                            bytes(storage.total_bytes),
                            storage.layers.to_string(),
                            storage.path.clone(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Add { name, path, default } => {
                let request = CreateStorage { name, path, default };
                api.show(&PostStorage { request }, said).await
            }
            Self::Default { storage } => {
                let request = PatchStorage {
                    default: true,
                    ..PatchStorage::default()
                };
                api.show(&UpdateStorage { storage, request }, said).await
            }
            Self::Rename { storage, name } => {
                let request = PatchStorage {
                    name: Some(name),
                    ..PatchStorage::default()
                };
                api.show(&UpdateStorage { storage, request }, said).await
            }
            Self::Delete { storage } => {
                let gone = format!("{storage} is removed");
                api.show(&DeleteStorage { storage }, |()| gone).await
            }
        }
    }
}

/// `offshoot network …`
#[derive(Subcommand)]
pub enum NetworkCommand {
    /// Lists networks.
    List(#[command(flatten)] List),
    /// Adds one.
    Add {
        /// Its name.
        name: Name,
        /// USER, BRIDGE or ISOLATED.
        #[arg(long, default_value = "ISOLATED")]
        kind: NetworkKind,
        /// The host's bridge, for BRIDGE.
        #[arg(long)]
        bridge: Option<String>,
    },
    /// Changes one.
    Edit {
        /// Its name or id.
        network: String,
        /// The new name.
        #[arg(long)]
        name: Option<Name>,
        /// Another bridge of the host.
        #[arg(long)]
        bridge: Option<String>,
    },
    /// Removes one that no NIC is on.
    Delete {
        /// Its name or id.
        network: String,
    },
}

impl NetworkCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let said = |network: shared::place::Network| {
            let bridge = network.bridge.map(|b| format!(" over {b}")).unwrap_or_default();
            format!("{}: {}{bridge}", network.name, network.kind)
        };
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListNetworks { query }, |page| {
                    let mut table = Table::new(["NAME", "KIND", "BRIDGE", "NICS"]);
                    for network in page.networks {
                        table.row([
                            network.name.to_string(),
                            network.kind.to_string(),
                            network.bridge.unwrap_or_default(),
                            network.nics.to_string(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Add { name, kind, bridge } => {
                let request = CreateNetwork { name, kind, bridge };
                api.show(&PostNetwork { request }, said).await
            }
            Self::Edit {
                network,
                name,
                bridge,
            } => {
                let request = PatchNetwork { name, bridge };
                api.show(&UpdateNetwork { network, request }, said).await
            }
            Self::Delete { network } => {
                let gone = format!("{network} is removed");
                api.show(&DeleteNetwork { network }, |()| gone).await
            }
        }
    }
}
