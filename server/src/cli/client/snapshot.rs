//! `offshoot snapshot …`

use super::table::{Table, bytes};
use super::{Api, Failure, List, Wait};
use clap::Subcommand;
use shared::Name;
use shared::api::{GetSnapshot, ListSnapshots, PostSnapshot};
use shared::snapshot::{Snapshot, TakeSnapshot, tree};

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
        /// Have the guest agent freeze the file systems for the moment.
        #[arg(long)]
        quiesce: bool,
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
                quiesce,
                wait,
            } => {
                let request = TakeSnapshot {
                    name,
                    description,
                    quiesce,
                    ..TakeSnapshot::default()
                };
                api.begin(&PostSnapshot { vm, request }, wait).await
            }
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
    if let Some(micros) = s.pause_micros {
        lines.push(format!("pause       {:.1} ms", micros as f64 / 1000.0));
    }
    if !s.description.is_empty() {
        lines.push(format!("description {}", s.description));
    }
    lines.join("\n")
}
