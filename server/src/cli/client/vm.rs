//! `offshoot vm …`

use super::table::{Table, bytes};
use super::{Api, Failure, List, Wait, console, file_text, joined};
use crate::cli::say;
use clap::{ArgGroup, Subcommand};
use futures::StreamExt;
use shared::Name;
use shared::api::{
    Connect, DeleteVm, Disconnect, GetVm, ListVms, Pause, PostVm, Reset, Resume, Start, Stop, encode,
};
use shared::edit::NextStart;
use shared::vm::{
    BlankDisk, CloudInit, ConnectNics, CreateVm, DiskOfImage, Firmware, NewDisk, NewNic, StopMode, StopVm, Vm,
};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// `offshoot vm …`
#[derive(Subcommand)]
pub enum VmCommand {
    /// Lists machines.
    List(#[command(flatten)] List),
    /// Shows one.
    Show {
        /// Its name or id.
        vm: String,
    },
    /// Makes one.
    Create(#[command(flatten)] Box<Create>),
    /// Starts it.
    Start {
        /// Its name or id.
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Asks its guest to shut down.
    Stop {
        /// Its name or id.
        vm: String,
        /// Take its power away instead.
        #[arg(long)]
        power_off: bool,
        /// Take its power away if it has not shut down within so many seconds.
        #[arg(long, conflicts_with = "power_off")]
        timeout: Option<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Resets it, as by the button.
    Reset {
        /// Its name or id.
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lets it stand still, its memory kept.
    Pause {
        /// Its name or id.
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lets it go on after a pause.
    Resume {
        /// Its name or id.
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Connects its NICs to their networks. The guest of an instant clone has its own address first.
    Connect {
        /// Its name or id.
        vm: String,
        /// The number of a NIC; all if none is named.
        #[arg(long)]
        nic: Vec<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes its NICs off their networks: its guest sees the cable out.
    Disconnect {
        /// Its name or id.
        vm: String,
        /// The number of a NIC; all if none is named.
        #[arg(long)]
        nic: Vec<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Changes what it is made of: at once where that can be, else at its next start.
    Edit(#[command(flatten)] Box<super::edit::EditArgs>),
    /// Gives it another name; its guest hears nothing of it.
    Rename {
        /// Its name or id.
        vm: String,
        /// The new name.
        name: Name,
    },
    /// Sets its description, its labels, and whether it is started with its host.
    Set(#[command(flatten)] super::edit::SetArgs),
    /// Deletes it.
    Delete {
        /// Its name or id.
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes a picture of its screen, as PNG.
    Screen {
        /// Its name or id.
        vm: String,
        /// The file to write; standard output if not given.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Prints what its serial port said since it was started.
    Serial {
        /// Its name or id.
        vm: String,
        /// Only the last bytes, this many.
        #[arg(long)]
        last: Option<u64>,
    },
    /// Connects this terminal to its serial line: what is typed goes to the guest, and Ctrl-] leaves.
    ///
    /// Others may look and type at the same time. Without a terminal what is piped in is typed, and what the guest says
    /// goes to standard output until the machine ends.
    Console {
        /// Its name or id.
        vm: String,
        /// How many bytes of what was said before are shown first.
        #[arg(long, default_value_t = 2048)]
        last: u64,
    },
}

/// `offshoot vm create …`
#[derive(clap::Args)]
#[command(group = ArgGroup::new("disk").args(["image", "blank_gib"]).required(true).multiple(true))]
pub struct Create {
    /// Its name.
    name: Name,
    /// A disk that is an overlay on this image, by name or id.
    #[arg(long)]
    image: Vec<String>,
    /// An empty disk of so many GiB.
    #[arg(long)]
    blank_gib: Vec<u32>,
    /// The firmware: BIOS or EFI.
    #[arg(long, default_value_t = Firmware::Bios)]
    firmware: Firmware,
    /// Number of processors.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory, in MiB.
    #[arg(long, default_value_t = 512)]
    memory_mib: u32,
    /// Networks to join, by name or id; `user` if not given.
    #[arg(long)]
    network: Vec<String>,
    /// Storage that its disks go to; the default if not given.
    #[arg(long)]
    storage: Option<String>,
    /// What it is for.
    #[arg(long, default_value_t)]
    description: String,
    /// Its turn when the host has restarted, the lowest first; without it, it is not started then.
    #[arg(long)]
    autostart: Option<u32>,
    /// A label, as key=value.
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// File with cloud-init's user-data.
    #[arg(long)]
    user_data: Option<PathBuf>,
    /// Start it when it is made.
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    wait: Wait,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// NICs on these networks; none if none are named.
pub(super) fn nics(networks: Vec<String>) -> Option<Vec<NewNic>> {
    (!networks.is_empty()).then(|| networks.into_iter().map(NewNic::on).collect())
}

/// What cloud-init is told; nothing if no file is named.
pub(super) fn cloud_init(user_data: Option<PathBuf>) -> Result<Option<CloudInit>, Failure> {
    let Some(path) = user_data else { return Ok(None) };
    Ok(Some(CloudInit {
        user_data: Some(file_text(&path)?),
        ..CloudInit::default()
    }))
}

impl VmCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListVms { query }, |page| {
                    let mut table = Table::new(["NAME", "STATE", "CPUS", "MEMORY", "FROM", "JOB", "CREATED"]);
                    for vm in &page.vms {
                        table.row([
                            vm.name.to_string(),
                            vm.state.to_string(),
                            vm.cpus.to_string(),
                            format!("{} MiB", vm.memory_mib),
                            vm.lineage.kind.to_string(),
                            vm.locked_by
                                .as_ref()
                                .map(|l| l.kind.to_string())
                                .unwrap_or_default(),
                            vm.create_time.to_string(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { vm } => api.show(&GetVm { vm }, |vm| shown(&vm)).await,
            Self::Create(create) => {
                let wait = create.wait;
                let request = create.request()?;
                api.begin(&PostVm { request }, wait).await
            }
            Self::Start { vm, wait } => api.begin(&Start { vm }, wait).await,
            Self::Stop {
                vm,
                power_off,
                timeout,
                wait,
            } => {
                let mode = if power_off {
                    StopMode::PowerOff
                } else {
                    StopMode::ShutDown
                };
                let request = StopVm {
                    mode,
                    power_off_after_seconds: timeout,
                };
                api.begin(&Stop { vm, request }, wait).await
            }
            Self::Reset { vm, wait } => api.begin(&Reset { vm }, wait).await,
            Self::Pause { vm, wait } => api.begin(&Pause { vm }, wait).await,
            Self::Resume { vm, wait } => api.begin(&Resume { vm }, wait).await,
            Self::Connect { vm, nic, wait } => {
                let request = ConnectNics { nics: nic };
                api.begin(&Connect { vm, request }, wait).await
            }
            Self::Disconnect { vm, nic, wait } => {
                let request = ConnectNics { nics: nic };
                api.begin(&Disconnect { vm, request }, wait).await
            }
            Self::Edit(edit) => edit.run(api).await,
            Self::Rename { vm, name } => super::edit::rename(api, vm, name).await,
            Self::Set(set) => set.run(api).await,
            Self::Delete { vm, wait } => api.begin(&DeleteVm { vm }, wait).await,
            Self::Screen { vm, output } => screen(api, &vm, output).await,
            Self::Serial { vm, last } => serial(api, &vm, last).await,
            Self::Console { vm, last } => console::run(api, &vm, last).await,
        }
    }
}

impl Create {
    fn request(self) -> Result<CreateVm, Failure> {
        let of_image = |image| {
            NewDisk::Image(DiskOfImage {
                image,
                size_gib: None,
            })
        };
        let blank = |size_gib| NewDisk::Blank(BlankDisk { size_gib });
        Ok(CreateVm {
            name: self.name,
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            firmware: self.firmware,
            disks: self
                .image
                .into_iter()
                .map(of_image)
                .chain(self.blank_gib.into_iter().map(blank))
                .collect(),
            network_interfaces: nics(self.network),
            labels: self.label.into_iter().collect(),
            cloud_init: cloud_init(self.user_data)?,
            start: self.start,
            description: self.description,
            autostart: self.autostart,
            storage: self.storage,
            request_id: None,
        })
    }
}

async fn screen(api: &Api, vm: &str, output: Option<PathBuf>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    if output.is_none() && stdout.is_terminal() {
        return Err("a picture is nothing for a terminal: give --output FILE.png".into());
    }
    let client = api.client()?;
    let response = client
        .get(&format!("/api/v1/vms/{}/screen", encode(vm)), None)
        .await?;
    let png = response.bytes().await.map_err(|e| client.broke_off(e))?;
    match output {
        Some(path) => {
            std::fs::write(&path, &png).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            say(format!("{}: {}", path.display(), bytes(png.len() as u64)))?;
        }
        None => stdout.write_all(&png)?,
    }
    Ok(())
}

async fn serial(api: &Api, vm: &str, last: Option<u64>) -> Result<(), Failure> {
    let client = api.client()?;
    let range = last.map(|n| format!("bytes=-{n}"));
    let response = client
        .get(&format!("/api/v1/vms/{}/serial", encode(vm)), range)
        .await?;
    let mut text = response.bytes_stream();
    let mut stdout = std::io::stdout();
    while let Some(piece) = text.next().await {
        stdout.write_all(&piece.map_err(|e| client.broke_off(e))?)?;
    }
    Ok(())
}

/// What waits for the next start.
fn next_start(vm: &Vm, next: &NextStart) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(next.cpus.map(|n| format!("processors {n}")));
    all.extend(next.memory_mib.map(|mib| format!("memory {mib} MiB")));
    all.extend(next.firmware.map(|firmware| format!("firmware {firmware}")));
    let boots = next.boot_order.first();
    all.extend(boots.map(|n| format!("boots from disk {n}")));
    let comes = next.add_disks.iter().filter(|d| !d.is_variables());
    all.extend(comes.map(|d| format!("disk {} of {} comes", d.number, bytes(d.virtual_bytes))));
    let grows = next.grow_disks.iter();
    all.extend(grows.map(|g| format!("disk {} grows to {}", g.disk, bytes(g.virtual_bytes))));
    let goes = vm.guest_disks().map(|d| d.number);
    let goes = goes.filter(|n| next.remove_disks.contains(n));
    all.extend(goes.map(|n| format!("disk {n} goes")));
    let nics = next.add_nics.iter();
    all.extend(nics.map(|nic| format!("nic {} on {} comes", nic.number, nic.network)));
    all.extend(
        next.macs
            .iter()
            .map(|new| format!("nic {} is {}", new.nic, new.mac)),
    );
    all.extend(next.remove_nics.iter().map(|n| format!("nic {n} goes")));
    all
}

fn shown(vm: &Vm) -> String {
    let mut lines = Vec::new();
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{name:<11} {value}"));
        }
    };
    let text = |value: Option<String>| value.unwrap_or_default();
    field("name", vm.name.to_string());
    field("id", vm.id.to_string());
    field("state", vm.state.to_string());
    field("since", text(vm.running_since.map(|t| t.to_string())));
    field("paused by", text(vm.pause_reason.map(|r| r.to_string())));
    field("error", text(vm.error.as_ref().map(ToString::to_string)));
    field("processors", vm.cpus.to_string());
    field("memory", format!("{} MiB", vm.memory_mib));
    field("firmware", vm.firmware.to_string());
    for disk in vm.guest_disks() {
        let changed = disk.allocated_bytes.map(|n| match vm.current_snapshot {
            Some(_) => format!(", {} changed since the last snapshot", bytes(n)),
            None => format!(", {} written", bytes(n)),
        });
        let layers = disk.chain_length;
        let s = if layers == 1 { "" } else { "s" };
        field(
            "disk",
            format!(
                "{}: {}, {layers} layer{s}{}",
                disk.number,
                bytes(disk.virtual_bytes),
                text(changed)
            ),
        );
    }
    for nic in &vm.network_interfaces {
        let forwards = joined(&nic.forwards);
        let forwards = if forwards.is_empty() {
            forwards
        } else {
            format!(", forwards {forwards}")
        };
        let connected = if nic.connected { "" } else { ", not connected" };
        field(
            "nic",
            format!(
                "{}: {} on {} ({}){connected}{forwards}",
                nic.number, nic.mac, nic.network, nic.kind
            ),
        );
    }
    field(
        "labels",
        joined(vm.labels.iter().map(|(k, v)| format!("{k}={v}"))),
    );
    field("description", vm.description.clone());
    field("autostart", text(vm.autostart.map(|n| format!("in turn {n}"))));
    if let Some(next) = &vm.at_next_start {
        field("next start", joined(next_start(vm, next)));
    }
    field("lineage", vm.lineage.kind.to_string());
    field(
        "job",
        text(vm.locked_by.as_ref().map(|l| format!("{} {}", l.kind, l.job))),
    );
    field("created", vm.create_time.to_string());
    lines.join("\n")
}
