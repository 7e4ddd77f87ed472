//! `offshoot clone …`

use super::http;
use super::table::Table;
use super::vm::{cloud_init, label, nics};
use super::{Api, Failure, List, Wait};
use clap::Subcommand;
use shared::Name;
use shared::api::{CancelCloneJob, GetCloneJob, GetJob, ListCloneJobs, PostCloneJob};
use shared::clone::{
    CloneJobView, CloneMode, CloneTarget, CloneVm, DEFAULT_BOOT_TIMEOUT_SECONDS, DisksOnly, SnapshotNow,
};
use std::path::PathBuf;

/// `offshoot clone …`
#[derive(Subcommand)]
pub enum CloneCommand {
    /// Clones a machine, which may run, from a snapshot of it; the clone is started and seen to boot.
    Create(#[command(flatten)] Box<Create>),
    /// Lists a machine's clone jobs, newest first.
    List {
        /// The machine's name or id.
        vm: String,
        #[command(flatten)]
        list: List,
    },
    /// Shows a clone job.
    Show {
        /// Its id.
        job: String,
    },
    /// Cancels a clone job: what it made is deleted again.
    Cancel {
        /// Its id.
        job: String,
    },
}

/// `offshoot clone create …`
#[derive(clap::Args)]
pub struct Create {
    /// The machine to clone, by name or id.
    source: String,
    /// Name of the clone; made from the source's if not given.
    #[arg(long)]
    name: Option<Name>,
    /// The snapshot to clone from, by name or id; the latest successful one if not given.
    #[arg(long, conflicts_with = "snapshot_now")]
    snapshot: Option<String>,
    /// Take a snapshot now and clone from that.
    #[arg(long)]
    snapshot_now: bool,
    /// Have the guest agent freeze the file systems for that snapshot.
    #[arg(long, requires = "snapshot_now")]
    quiesce: bool,
    /// Copy the disks, instead of standing on the source's frozen layers.
    #[arg(long)]
    full: bool,
    /// Number of processors; the source's if not given.
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory, in MiB; the source's if not given.
    #[arg(long)]
    memory_mib: Option<u32>,
    /// Storage that its disks go to; where the source's are if not given.
    #[arg(long)]
    storage: Option<String>,
    /// Networks to join, by name or id; NICs that are connected to nothing, as many as the source has, if not given.
    #[arg(long)]
    network: Vec<String>,
    /// A label, as key=value; the source's if not given.
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// File with cloud-init's user-data: the clone gets a new instance id and hostname, too.
    #[arg(long)]
    user_data: Option<PathBuf>,
    /// Leave the clone stopped.
    #[arg(long)]
    no_start: bool,
    /// How long the clone may take to boot, in seconds.
    #[arg(long, default_value_t = DEFAULT_BOOT_TIMEOUT_SECONDS, conflicts_with = "no_start")]
    boot_timeout: u32,
    /// A regular expression for the line of the serial port that proves the boot.
    #[arg(long, conflicts_with = "no_start")]
    boot_pattern: Option<String>,
    /// Only the disks, as images NAME-0, NAME-1 and so on.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "cpus", "memory_mib", "network", "label", "user_data", "no_start", "boot_timeout", "boot_pattern"])]
    disks_only: Option<Name>,
    #[command(flatten)]
    wait: Wait,
}

impl CloneCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(api).await,
            Self::List { vm, list } => {
                let query = list.into();
                api.show(&ListCloneJobs { vm, query }, |page| {
                    let mut table = Table::new(["ID", "STATE", "MODE", "CLONE", "PROOF", "CREATED"]);
                    for job in &page.clone_jobs {
                        let own = &job.offshoot;
                        table.row([
                            own.id.to_string(),
                            own.state.to_string(),
                            own.mode.to_string(),
                            own.target
                                .as_ref()
                                .map(|t| t.name.to_string())
                                .unwrap_or_default(),
                            own.proof
                                .as_ref()
                                .map(|p| p.strength.to_string())
                                .unwrap_or_default(),
                            job.job.create_time.map(|t| t.to_string()).unwrap_or_default(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { job } => api.show(&GetCloneJob { id: job }, |job| shown(&job)).await,
            Self::Cancel { job } => api.show(&CancelCloneJob { id: job }, |job| shown(&job)).await,
        }
    }
}

impl Create {
    async fn run(self, api: &Api) -> Result<(), Failure> {
        let wait = self.wait.wait;
        let (vm, request) = (self.source.clone(), self.request()?);
        let client = api.client()?;
        let text = client.text(&PostCloneJob { vm, request }).await?;
        let view: CloneJobView = http::read(&text)?;
        let id = view.offshoot.id.to_string();
        if !wait {
            return api.print(&text, view, |view| {
                format!(
                    "{}\nfollow it: offshoot job wait {}",
                    shown(&view),
                    view.offshoot.id
                )
            });
        }
        let job = client.call(&GetJob { id: id.clone() }).await?;
        let job = api.follow(&client, job).await?;
        api.ended(&client, &job, &GetCloneJob { id }).await
    }

    fn request(self) -> Result<CloneVm, Failure> {
        let target = match self.disks_only {
            Some(_) => None,
            None => Some(CloneTarget {
                name: self.name,
                cpus: self.cpus,
                memory_mib: self.memory_mib,
                labels: (!self.label.is_empty()).then(|| self.label.into_iter().collect()),
                storage: self.storage,
                network_interfaces: nics(self.network),
                cloud_init: cloud_init(self.user_data)?,
                start: !self.no_start,
                boot_timeout_seconds: self.boot_timeout,
                boot_pattern: self.boot_pattern,
            }),
        };
        Ok(CloneVm {
            clone_job_id: None,
            snapshot: self.snapshot,
            snapshot_now: self.snapshot_now.then_some(SnapshotNow {
                name: None,
                quiesce: self.quiesce,
            }),
            mode: if self.full {
                CloneMode::Full
            } else {
                CloneMode::Linked
            },
            target,
            disks_only: self.disks_only.map(|name| DisksOnly { name }),
            request_id: None,
        })
    }
}

fn shown(view: &CloneJobView) -> String {
    let own = &view.offshoot;
    let mut lines = vec![
        format!("job      {}", own.id),
        format!("state    {}", own.state),
        format!("mode     {}", own.mode),
    ];
    if let Some(target) = &own.target {
        lines.push(format!("clone    {}", target.name));
    }
    if let Some(snapshot) = &own.snapshot {
        lines.push(format!("snapshot {snapshot}"));
    }
    if let Some(proof) = &own.proof {
        lines.push(format!("proof    {}", proof.strength));
    }
    if let Some(error) = &view.job.error {
        lines.push(format!("error    {error}"));
    }
    lines.join("\n")
}
