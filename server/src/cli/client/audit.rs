//! `offshoot audit …`: who did what.

use super::table::Table;
use super::{Api, Failure, List};
use clap::{Subcommand, ValueEnum};
use futures::StreamExt;
use shared::api::{ListAudit, encode};
use std::io::Write;

/// `offshoot audit …`
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Lists who did what, and what was refused, newest first.
    List(#[command(flatten)] List),
    /// Prints all of it.
    Export {
        /// What it looks like.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// Terms with a space between, as in the list.
        #[arg(long)]
        filter: Option<String>,
    },
}

/// What an export looks like.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// One JSON object on each line.
    Jsonl,
    /// Comma-separated values with a line of heads.
    Csv,
}

impl AuditCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListAudit { query }, |page| {
                    let mut table = Table::new(["TIME", "USER", "FROM", "WHAT", "RESULT"]);
                    for event in &page.events {
                        table.row([
                            event.time.to_string(),
                            event.user.clone(),
                            event.address.clone(),
                            format!("{} {}", event.method, event.path),
                            event.result.clone(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Export { format, filter } => {
                let format = match format {
                    Format::Jsonl => "jsonl",
                    Format::Csv => "csv",
                };
                let filter = filter
                    .map(|f| format!("&filter={}", encode(&f)))
                    .unwrap_or_default();
                let client = api.client()?;
                let path = format!("/api/v1/audit/export?format={format}{filter}");
                let mut parts = client.get(&path, None).await?.bytes_stream();
                while let Some(part) = parts.next().await {
                    std::io::stdout().write_all(&part.map_err(|e| client.broke_off(e))?)?;
                }
                Ok(std::io::stdout().flush()?)
            }
        }
    }
}
