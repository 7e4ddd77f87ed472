//! The commands that speak to a server's API, as any other client would.

pub mod audit;
pub mod clone;
pub mod console;
pub mod copy;
pub mod copy_files;
pub mod edit;
pub mod feed;
pub mod follow;
pub mod fork;
pub mod http;
pub mod image;
pub mod job;
pub mod migration;
pub mod notice;
pub mod people;
pub mod place;
pub mod policy;
pub mod power;
pub mod secret;
pub mod snapshot;
pub mod source;
pub mod table;
pub mod target;
mod trust;
pub mod vm;

use super::{Failure, say};
use clap::Args;
use follow::Progress;
use http::{Client, ClientError};
use serde_json::Value;
use shared::api::{Call, GetJob, ListQuery};
use shared::job::Job;
use std::fmt::Display;
use std::io::IsTerminal;
use std::path::PathBuf;

/// What the numbers mean that the program ends with, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  it failed: a job that was waited for, a check of doctor, the demo, or the command itself
  2  the command line is not understood
  3  the server refused the request
  4  the server cannot be reached, or has a fault
  5  the server does not know the token, or the token may not do this";

/// What every command that speaks to a server takes.
#[derive(Clone, Debug, Args)]
pub struct Api {
    /// Address of the server.
    #[arg(
        long,
        env = "OFFSHOOT_URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub url: String,
    /// Token to show it; `offshoot token create` makes one.
    #[arg(
        long,
        env = "OFFSHOOT_TOKEN",
        hide_env_values = true,
        global = true,
        help_heading = "Server"
    )]
    pub token: Option<String>,
    /// Certificates to trust beside those of the system, of authorities or of the server itself: a PEM file.
    #[arg(long, env = "OFFSHOOT_TLS_CA", global = true, help_heading = "Server")]
    pub tls_ca: Option<PathBuf>,
    /// Print what the API answered, as JSON.
    #[arg(long, global = true, help_heading = "Server")]
    pub json: bool,
}

/// What every command that begins a job takes.
#[derive(Clone, Copy, Debug, Args)]
pub struct Wait {
    /// Follow the job to its end, and fail if the job does.
    #[arg(long)]
    pub wait: bool,
}

/// What every command that lists takes.
#[derive(Clone, Debug, Args)]
// A subcommand of the same name has a group of that name.
#[group(skip)]
pub struct List {
    /// Terms with a space between, all of which must hold: `state=RUNNING`, `name:web` (contains).
    #[arg(long)]
    pub filter: Option<String>,
    /// A field, then perhaps ` desc`.
    #[arg(long)]
    pub order_by: Option<String>,
    /// At most this many, 1 to 1000; 100 if not given.
    #[arg(long)]
    pub page_size: Option<u32>,
    /// `nextPageToken` of the page before.
    #[arg(long)]
    pub page_token: Option<String>,
}

impl From<List> for ListQuery {
    fn from(list: List) -> Self {
        Self {
            page_size: list.page_size,
            page_token: list.page_token,
            filter: list.filter,
            order_by: list.order_by,
        }
    }
}

impl Api {
    /// The client for it.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::trusting(&self.url, self.token.as_deref(), self.tls_ca.as_deref())
    }

    /// Prints what was answered: as the API gave it, or as `human` writes it.
    fn print<A, T: Display>(&self, text: &str, answer: A, human: impl FnOnce(A) -> T) -> Result<(), Failure> {
        if self.json {
            say(pretty(text))?;
        } else {
            say(human(answer))?;
        }
        Ok(())
    }

    /// Makes a call and prints its answer.
    async fn show<C: Call, T: Display>(
        &self,
        call: &C,
        human: impl FnOnce(C::Answer) -> T,
    ) -> Result<(), Failure> {
        let text = self.client()?.text(call).await?;
        self.print(&text, http::read(&text)?, human)
    }

    /// Begins a job and prints it; with `--wait` when it is over, and then fails if the job did.
    async fn begin(&self, call: &impl Call<Answer = Job>, wait: Wait) -> Result<(), Failure> {
        let client = self.client()?;
        let text = client.text(call).await?;
        let job: Job = http::read(&text)?;
        if !wait.wait {
            return self.print(&text, job, |job| job::begun(&job));
        }
        let id = job.id.to_string();
        let job = self.follow(&client, job).await?;
        self.ended(&client, &job, &GetJob { id }).await
    }

    /// Prints a job that is over, in its own words or as `again` gives it, and fails if the job did.
    async fn ended(&self, client: &Client, job: &Job, again: &impl Call) -> Result<(), Failure> {
        if self.json {
            say(pretty(&client.text(again).await?))?;
        } else if let Some(text) = job::success(job) {
            say(text)?;
        }
        Ok(job::check(job)?)
    }

    /// Follows a job to its end and shows on standard error how far it is.
    async fn follow(&self, client: &Client, job: Job) -> Result<Job, ClientError> {
        let mut progress = Progress::new(std::io::stderr().is_terminal());
        follow::to_end(client, job, |job| progress.update(job)).await
    }
}

/// JSON with line breaks; what is none stays as it is.
fn pretty(text: &str) -> String {
    serde_json::from_str::<Value>(text)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| text.to_owned())
}

/// The number that the program ends with for this failure.
pub fn exit_code(failure: &(dyn std::error::Error + 'static)) -> u8 {
    match failure.downcast_ref::<ClientError>() {
        None => 1,
        Some(e) => e.exit_code(),
    }
}

/// The text of a file that was named on the command line.
fn file_text(path: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

/// A list with a comma between, or none.
fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|i| i.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
