//! Where figures go: a table, `results.json`, and their part of the README.

use crate::Result;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// What a figure must be.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// It is there to be seen.
    None,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its key in `results.json`.
    pub key: &'static str,
    /// Its value.
    pub value: f64,
    /// Its limit.
    pub limit: Limit,
    /// What it is wanted to be, as much or less; its limit is easier.
    pub aim: Option<f64>,
    /// How far it is to be trusted: how many measurements, how far apart.
    pub noise: String,
    /// Why it does not count, if it does not.
    pub void: Option<String>,
}

impl Figure {
    /// A figure with a limit.
    pub fn new(key: &'static str, value: f64, limit: Limit, noise: impl Into<String>) -> Self {
        Self {
            key,
            value,
            limit,
            aim: None,
            noise: noise.into(),
            void: None,
        }
    }

    /// With what it is wanted to be beside its limit.
    pub const fn aim(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    fn limit_text(&self) -> String {
        let limit = match self.limit {
            Limit::AtMost(most) => format!("≤ {most}"),
            Limit::AtLeast(least) => format!("≥ {least}"),
            Limit::None => String::new(),
        };
        let aim = self.aim.map(|aim| format!("aim ≤ {aim}")).unwrap_or_default();
        joined(limit, aim)
    }

    fn verdict(&self) -> String {
        let met = match self.limit {
            Limit::AtMost(most) => Some(self.value <= most),
            Limit::AtLeast(least) => Some(self.value >= least),
            Limit::None => None,
        };
        let met = met.map_or("", |met| if met { "met" } else { "NOT MET" });
        let aim = match self.aim {
            Some(aim) if self.value <= aim => "aim met",
            Some(_) => "aim not met",
            None => "",
        };
        match &self.void {
            Some(why) if !met.is_empty() || !aim.is_empty() => format!("does not count: {why}"),
            _ => joined(met.to_owned(), aim.to_owned()),
        }
    }

    fn value_text(&self) -> String {
        format!("{:.*}", if self.value < 10.0 { 3 } else { 1 }, self.value)
    }
}

fn joined(one: String, other: String) -> String {
    match one.is_empty() || other.is_empty() {
        true => one + &other,
        false => format!("{one}, {other}"),
    }
}

/// Writes figures down.
pub struct Report {
    dir: PathBuf,
    machine: String,
}

impl Report {
    /// A report about this machine.
    pub fn new() -> Self {
        Self {
            dir: crate::here(),
            machine: machine(),
        }
    }

    /// Prints the table of a group.
    pub fn print(&self, group: &str, figures: &[Figure]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{group} · {}", self.machine)?;
        for f in figures {
            writeln!(
                out,
                "  {:<28}{:>12}  {:<20} {:<20} {}",
                f.key,
                f.value_text(),
                f.limit_text(),
                f.verdict(),
                f.noise
            )?;
        }
        Ok(writeln!(out)?)
    }

    /// Puts a group's figures into `results.json` and the README; what stands there of other groups stays.
    pub fn write(&self, group: &str, figures: &[Figure]) -> Result<()> {
        let file = self.dir.join("results.json");
        let mut all: Map<String, Value> = match std::fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(e.into()),
        };
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let values = figures
            .iter()
            .map(|f| (f.key.to_owned(), rounded(f.value).into()));
        all.insert(group.to_owned(), Value::Object(values.collect()));
        std::fs::write(&file, format!("{:#}\n", Value::Object(all)))?;

        let file = self.dir.join("README.md");
        let text = std::fs::read_to_string(&file)?;
        let begin = format!("<!-- {group}: written by make bench -->\n");
        let end = format!("<!-- {group}: end -->");
        let cut = |mark: &str| {
            text.split_once(mark)
                .ok_or_else(|| format!("bench/README.md lacks {mark:?}"))
        };
        let (before, after) = (cut(&begin)?.0, cut(&end)?.1);
        let written = format!("{before}{begin}{}{end}{after}", self.table(figures));
        Ok(std::fs::write(&file, written)?)
    }

    fn table(&self, figures: &[Figure]) -> String {
        let mut text = format!(
            "{}\n\n| figure | value | limit | | measured |\n|---|--:|---|---|---|\n",
            self.machine
        );
        for f in figures {
            // Writing to a String cannot fail.
            _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                f.key,
                f.value_text(),
                f.limit_text(),
                f.verdict(),
                f.noise
            );
        }
        text
    }
}

/// What the figures were taken on, and when.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let gib = rustix::system::sysinfo().totalram as u64 >> 30;
    let release = read("/etc/os-release");
    let os = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or("unknown system", |name| name.trim_matches('"'));
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let qemu = std::process::Command::new("qemu-system-x86_64")
        .arg("--version")
        .output();
    let qemu = qemu.ok().and_then(|out| {
        let text = String::from_utf8(out.stdout).ok()?;
        Some(
            text.split_once("version ")?
                .1
                .split_whitespace()
                .next()?
                .to_owned(),
        )
    });
    let guests = server::hypervisor::qemu::accelerator();
    let date = server::db::now().to_string();
    let date = date.split('T').next().unwrap_or_default();
    format!(
        "{cpus} × {cpu}, {gib} GiB, {os}, Linux {kernel}, QEMU {} ({guests}), {date}",
        qemu.as_deref().unwrap_or("none")
    )
}
