//! Takes the figures of bench/README.md, which says what each one means.
//!
//!     bench [--quick] [group…]
//!
//! Without a group it takes all. `--quick` tries the program out with small sizes and writes no results.

mod api;
mod clone;
mod console;
mod engine;
mod fork;
mod machines;
mod migrate;
mod pause;
mod report;
mod site;
mod stats;
mod vault;

use report::{Figure, Report};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a figure cannot be taken for.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

/// The groups, in the order in which they are taken.
const GROUPS: [&str; 8] = [
    "clone",
    "instantClone",
    "engine",
    "api",
    "console",
    "machines",
    "vault",
    "migrate",
];

/// The folder of the benchmark. Asked for when it runs: what is compiled may come from another checkout.
fn here() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|| "bench".into())
        .into()
}

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// What the figures are defined by.
    Whole,
    /// Enough to see the program work.
    Quick,
}

impl Size {
    fn pick<T>(self, whole: T, quick: T) -> T {
        match self {
            Self::Whole => whole,
            Self::Quick => quick,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", server::db::chain(e.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let mut size = Size::Whole;
    let mut wanted = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => size = Size::Quick,
            group => match GROUPS.iter().find(|g| **g == group) {
                Some(group) => wanted.push(*group),
                None => return Err(format!("{group:?} is no group: {}", GROUPS.join(", ")).into()),
            },
        }
    }
    if wanted.is_empty() {
        wanted.extend(GROUPS);
    }
    let report = Report::new();
    for group in wanted {
        eprintln!("bench: {group}");
        let taken: Vec<Figure> = match group {
            "clone" => clone::take(size).await,
            "instantClone" => fork::take(size).await,
            "engine" => engine::take(size).await,
            "api" => api::take(size).await,
            "machines" => machines::take(size).await,
            "vault" => vault::take(size).await,
            "migrate" => migrate::take(size).await,
            _ => console::take(size).await,
        }?;
        report.print(group, &taken)?;
        if size == Size::Whole {
            report.write(group, &taken)?;
        }
    }
    Ok(())
}
