//! `offshoot snapshot …`

use super::table::{Table, bytes};
use super::{Api, Failure, List, Wait};
use clap::Subcommand;
use shared::Name;
use shared::api::{DeleteSnapshot, GetSnapshot, ListSnapshots, PostRevert, PostSnapshot};
use shared::snapshot::{RevertSnapshot, Snapshot, TakeSnapshot, tree};

/// `offshoot snapshot …`
#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Lists a machine's snapshots, as the tree they are.
    List {
        /// The machine's name or id.
        vm: String,
        #[command(flatten)]
        list: List,
    },
    /// Takes one; the machine may run.
    Take {
        /// The machine's name or id.
        vm: String,
        /// Its name; made from the time if not given.
        #[arg(long)]
        name: Option<Name>,
        /// What it is for.
        #[arg(long, default_value_t)]
        description: String,
        /// Keep its memory too, so that its guest can go on from here.
        #[arg(long)]
        memory: bool,
        /// Have the guest agent freeze the file systems for the moment.
        #[arg(long, conflicts_with = "memory")]
        quiesce: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes a machine back to one.
    Revert {
        /// The machine's name or id.
        vm: String,
        /// The snapshot's name or id.
        snapshot: String,
        /// Keep what is now as a snapshot first.
        #[arg(long)]
        keep_current: bool,
        /// The name of that; made from the time if not given.
        #[arg(long, requires = "keep_current")]
        name: Option<Name>,
        /// Take the disks back alone, though the snapshot has memory.
        #[arg(long)]
        disks_only: bool,
        /// Power it on afterwards.
        #[arg(long)]
        start: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Deletes one. What others need of it they keep.
    Delete {
        /// The machine's name or id.
        vm: String,
        /// The snapshot's name or id.
        snapshot: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Shows one.
    Show {
        /// The machine's name or id.
        vm: String,
        /// The snapshot's name or id.
        snapshot: String,
    },
}

impl SnapshotCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List { vm, list } => {
                let query = list.into();
                api.show(&ListSnapshots { vm, query }, |page| {
                    let mut table = Table::new(["NAME", "STATE", "CONSISTENCY", "SIZE", "CREATED"]);
                    for row in tree(&page.snapshots) {
                        let indent = "  ".repeat(row.level - 1);
                        table.row(match row.snapshot {
                            None => [
                                format!("{indent}NOW"),
                                String::new(),
                                String::new(),
                                String::new(),
                                String::new(),
                            ],
                            Some(s) => [
                                format!("{indent}{}", s.name),
                                s.state.to_string(),
                                s.consistency.to_string(),
                                bytes(s.allocated_bytes),
                                s.create_time.to_string(),
                            ],
                        });
                    }
                    // NOW is a row of the table and no snapshot.
                    table.of(page.total_size + 1)
                })
                .await
            }
            Self::Take {
                vm,
                name,
                description,
                memory,
                quiesce,
                wait,
            } => {
                let request = TakeSnapshot {
                    name,
                    description,
                    memory,
                    quiesce,
                    ..TakeSnapshot::default()
                };
                api.begin(&PostSnapshot { vm, request }, wait).await
            }
            Self::Revert {
                vm,
                snapshot,
                keep_current,
                name,
                disks_only,
                start,
                wait,
            } => {
                let request = RevertSnapshot {
                    keep_current,
                    name,
                    memory: !disks_only,
                    start,
                    request_id: None,
                };
                let revert = PostRevert {
                    vm,
                    snapshot,
                    request,
                };
                api.begin(&revert, wait).await
            }
            Self::Delete { vm, snapshot, wait } => api.begin(&DeleteSnapshot { vm, snapshot }, wait).await,
            Self::Show { vm, snapshot } => api.show(&GetSnapshot { vm, snapshot }, |s| shown(&s)).await,
        }
    }
}

fn shown(s: &Snapshot) -> String {
    let mut lines = vec![
        format!("name        {}", s.name),
        format!("id          {}", s.id),
        format!("state       {}", s.state),
        format!("consistency {}", s.consistency),
        format!("size        {}", bytes(s.allocated_bytes)),
        format!("created     {}", s.create_time),
    ];
    if let Some(memory) = s.memory_bytes {
        lines.push(format!("memory      {}", bytes(memory)));
    }
    if let Some(micros) = s.pause_micros {
        lines.push(format!("pause       {:.1} ms", micros as f64 / 1000.0));
    }
    if !s.description.is_empty() {
        lines.push(format!("description {}", s.description));
    }
    lines.join("\n")
}
