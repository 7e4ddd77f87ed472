//! `offshoot copy restore …`: a copy brought back, in one of four ways.

use crate::cli::Failure;
use crate::cli::client::image::{Written, export_to};
use crate::cli::client::vm::nics;
use crate::cli::client::{Api, Wait};
use clap::{ArgGroup, Args};
use shared::Name;
use shared::api::PostRestore;
use shared::copy::{RestoreCopy, RestoreDisks, RestoreFile, RestoreOver, RestoreVm};
use std::path::PathBuf;

/// `offshoot copy restore …`
#[derive(Args)]
#[command(
    group = ArgGroup::new("to").args(["name", "over", "disks_of", "file"]).required(true),
    group = ArgGroup::new("machine").multiple(true).conflicts_with_all(["over", "disks_of", "file"])
        .args(["cpus", "memory_mib", "network", "storage"]),
    group = ArgGroup::new("replaced").args(["over"]).requires("confirm"),
    group = ArgGroup::new("power").multiple(true).args(["start", "instant"]).conflicts_with_all(["disks_of", "file"]),
)]
pub struct Restore {
    /// The copy's id.
    copy: String,
    /// As a new machine of this name.
    #[arg(long)]
    name: Option<Name>,
    /// Over this machine, which is off, by name or id: what its disks have now is lost.
    #[arg(long, value_name = "VM")]
    over: Option<String>,
    /// The name of that machine once more.
    #[arg(long, value_name = "VM", conflicts_with_all = ["name", "disks_of", "file"])]
    confirm: Option<String>,
    /// The disks alone, as more disks of this machine, which is off, by name or id.
    #[arg(long, value_name = "VM")]
    disks_of: Option<String>,
    /// A disk as a file of this format, which is kept for a day.
    #[arg(long, value_enum, value_name = "FORMAT")]
    file: Option<Written>,
    /// Start the machine when its disks are here.
    #[arg(long)]
    start: bool,
    /// Start the machine at once, from the copy, while its disks are brought here.
    #[arg(long)]
    instant: bool,
    /// Number of processors; as it was if not given.
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory, in MiB; as it was if not given.
    #[arg(long)]
    memory_mib: Option<u32>,
    /// Networks to join, by name or id; NICs that are connected to nothing, as many as it had, if not given.
    #[arg(long)]
    network: Vec<String>,
    /// Storage that the disks go to.
    #[arg(long)]
    storage: Option<String>,
    /// The number of a disk, with --disks-of (all if not given) or --file (0 if not given).
    #[arg(long, value_name = "N", conflicts_with_all = ["name", "over"])]
    disk: Vec<u32>,
    /// Wait for the file, write it here, and remove it from the server.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["name", "over", "disks_of"])]
    output: Option<PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl Restore {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let (copy, output, wait) = (self.copy.clone(), self.output.clone(), self.wait);
        let call = PostRestore {
            copy,
            request: self.request()?,
        };
        match output {
            Some(output) => export_to(api, &call, &output).await,
            None => api.begin(&call, wait).await,
        }
    }

    fn request(self) -> Result<RestoreCopy, Failure> {
        if self.file.is_some() && self.disk.len() > 1 {
            return Err("a file has one disk: give --disk once".into());
        }
        let (start, instant) = (self.start, self.instant);
        Ok(RestoreCopy {
            vm: self.name.map(|name| RestoreVm {
                name,
                cpus: self.cpus,
                memory_mib: self.memory_mib,
                network_interfaces: nics(self.network),
                storage: self.storage,
                labels: Default::default(),
                cloud_init: None,
                start,
                instant,
            }),
            over: self.over.map(|vm| RestoreOver {
                vm,
                confirm: self.confirm.unwrap_or_default(),
                start,
                instant,
            }),
            file: self.file.map(|format| RestoreFile {
                disk: self.disk.first().copied().unwrap_or_default(),
                format: format.into(),
            }),
            disks: self.disks_of.map(|vm| RestoreDisks {
                vm,
                numbers: self.disk,
            }),
            request_id: None,
        })
    }
}
