//! `offshoot doctor`: what this machine lacks to run guests, and how to get it.

mod files;
mod host;
mod images;
mod oidc;
mod qemu;

use super::{Failure, say};
use crate::config::{Config, ConfigArgs};
use serde::Serialize;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(20);

/// `offshoot doctor`
#[derive(clap::Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What was found out about one thing.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            found: found.into(),
            fix: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            fix: Some(fix.into()),
            ..Self::ok(name, found)
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(name, found, fix)
        }
    }
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Runs it; fails if a check does.
pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let report = report(&args.config.load()?).await;
    if args.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        let width = report.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
        for check in &report.checks {
            let level = match check.level {
                Level::Ok => "ok  ",
                Level::Warn => "warn",
                Level::Fail => "FAIL",
            };
            say(format!("{level}  {:<width$}  {}", check.name, check.found))?;
            if let Some(fix) = &check.fix {
                say(format!("      {:<width$}  → {fix}", ""))?;
            }
        }
    }
    let failed: Vec<_> = report.checks.iter().filter(|c| c.level == Level::Fail).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = failed.iter().map(|c| c.name).collect();
    Err(format!("guests cannot run here yet: {}", names.join(", ")).into())
}

/// The checks that failed, in a few lines, if any did: for commands that cannot go on then.
pub async fn refuse(config: &Config) -> Result<(), Failure> {
    let checks = report(config).await.checks;
    let failed = checks.iter().filter(|c| c.level == Level::Fail);
    let lines: Vec<_> = failed
        .map(|c| {
            format!(
                "{}: {}\n  → {}",
                c.name,
                c.found,
                c.fix.as_deref().unwrap_or_default()
            )
        })
        .collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(lines.join("\n").into())
    }
}

async fn report(config: &Config) -> Report {
    let mut checks = Vec::new();
    if !config.sim {
        checks.extend(qemu::checks(config.accelerator).await);
        checks.push(images::helper(config).await);
        checks.push(files::browser());
    }
    checks.extend(host::data_dir(config));
    checks.push(host::user(config));
    checks.push(host::site(config));
    checks.push(host::guest_tools());
    checks.extend(oidc::provider(config).await);
    Report {
        ok: checks.iter().all(|c| c.level != Level::Fail),
        checks,
    }
}

/// What a program writes, to standard output first; none if it is not there.
async fn output(program: &str, args: &[&str]) -> Option<String> {
    let command = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, command).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Whether a program can be found, also where those of administrators are.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// The directory itself, or the nearest one above that is there.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"))
}
