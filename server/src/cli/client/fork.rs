//! `offshoot fork …` and `offshoot fork-point …`

use super::table::Table;
use super::{Api, Failure, List, Wait};
use clap::{Subcommand, ValueEnum};
use shared::Name;
use shared::api::{DeleteForkPoint, GetForkPoint, ListForkPoints, PostInstantClone, PostPointClone};
use shared::fork::{ForkNics, ForkPoint, InstantClone};
use uuid::Uuid;

/// `offshoot fork …`
#[derive(clap::Args)]
pub struct Fork {
    /// The running machine, by name or id; with --point the machine may be left out.
    #[arg(required_unless_present = "point")]
    source: Option<String>,
    /// The clones' names; one clone for each.
    #[arg(long, value_delimiter = ',')]
    name: Vec<Name>,
    /// How many clones, where no names are given.
    #[arg(long, conflicts_with = "name")]
    count: Option<u32>,
    /// What becomes of their NICs.
    #[arg(long, value_enum, default_value_t = Nics::Disconnect)]
    network: Nics,
    /// What the guests can read about themselves, as guestinfo.key=value.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    config: Vec<(String, String)>,
    /// The UUID that the one clone's firmware shows, from its next reset on.
    #[arg(long)]
    bios_uuid: Option<Uuid>,
    /// Keep the instant as a fork point.
    #[arg(long)]
    keep_point: bool,
    /// The name it is kept under.
    #[arg(long, requires = "keep_point")]
    point_name: Option<Name>,
    /// Fork this fork point, by name or id: the machine is not touched, and may be gone.
    #[arg(long, conflicts_with = "keep_point")]
    point: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

/// What becomes of the NICs of instant clones.
#[derive(Clone, Copy, ValueEnum)]
enum Nics {
    /// They join the source's networks, when they have addresses of their own.
    Keep,
    /// They stay connected to nothing.
    Disconnect,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as guestinfo.key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Fork {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let request = InstantClone {
            names: self.name,
            count: self.count,
            network_interfaces: Some(match self.network {
                Nics::Keep => ForkNics::Keep,
                Nics::Disconnect => ForkNics::Disconnect,
            }),
            config: self.config.into_iter().collect(),
            bios_uuid: self.bios_uuid,
            keep_point: self.keep_point,
            point_name: self.point_name,
            ..InstantClone::default()
        };
        match (self.source, self.point) {
            (Some(vm), point) => {
                let request = InstantClone {
                    fork_point: point,
                    ..request
                };
                api.begin(&PostInstantClone { vm, request }, self.wait).await
            }
            (None, Some(point)) => api.begin(&PostPointClone { point, request }, self.wait).await,
            // clap asks for one of them.
            (None, None) => Err("name a machine, or a fork point".into()),
        }
    }
}

/// `offshoot fork-point …`
#[derive(Subcommand)]
pub enum PointCommand {
    /// Lists fork points.
    List {
        #[command(flatten)]
        list: List,
    },
    /// Shows a fork point.
    Show {
        /// Its name or id.
        point: String,
    },
    /// Deletes a fork point that no machine stands on.
    Delete {
        /// Its name or id.
        point: String,
        #[command(flatten)]
        wait: Wait,
    },
}

impl PointCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List { list } => {
                let query = list.into();
                api.show(&ListForkPoints { query }, |page| {
                    let mut table = Table::new(["NAME", "SOURCE", "MEMORY", "CLONES", "CREATED"]);
                    for point in &page.fork_points {
                        table.row([
                            point.name.to_string(),
                            point.vm_name.to_string(),
                            mib(point.memory_bytes),
                            point.clones.to_string(),
                            point.create_time.to_string(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { point } => api.show(&GetForkPoint { point }, |point| shown(&point)).await,
            Self::Delete { point, wait } => api.begin(&DeleteForkPoint { point }, wait).await,
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn shown(point: &ForkPoint) -> String {
    let mut lines = vec![
        format!("name    {}", point.name),
        format!("id      {}", point.id),
        format!("source  {} ({})", point.vm_name, point.vm),
        format!("state   {}", point.state),
        format!("memory  {} of {} MiB", mib(point.memory_bytes), point.memory_mib),
        format!("clones  {}", point.clones),
        format!("QEMU    {} ({})", point.qemu_version, point.accelerator),
        format!("made    {}", point.create_time),
    ];
    if let Some(micros) = point.pause_micros {
        lines.push(format!("pause   {:.1} ms", micros as f64 / 1000.0));
    }
    lines.join("\n")
}
