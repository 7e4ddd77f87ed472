//! What the demo has seen, for people and as JSON.

use super::copies::TARGET;
use super::migrate::Migrated;
use super::show::{LONGEST_GAP, SOURCE, Show};
use crate::cli::client::table::{bytes, millis};
use serde::Serialize;
use serde_json::Value;
use shared::feed::Noun;
use shared::job::ResourceRole;
use std::time::Duration;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// In seconds, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    ms(duration) as f64 / 1000.0
}

impl Show<'_> {
    fn clone_name(&self) -> Option<String> {
        let (job, _) = self.clone.as_ref()?;
        Some(job.resource(ResourceRole::Product, Noun::Vm)?.name.to_string())
    }

    /// For people.
    pub fn report(&self) -> String {
        let mut lines = vec!["\nWhat there is".to_owned()];
        let mut row = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
        let source = match (&self.migrated, self.made_source) {
            (Some(_), _) => "carried over in the end, and off",
            (None, true) => "made from the image demo",
            (None, false) => "it was there and goes on",
        };
        row("machine", format!("{SOURCE}: {source}"));
        if let Some((snapshot, _)) = &self.snapshot {
            let pause = snapshot
                .pause_micros
                .map(|us| format!("; switching its disks over took {:.1} ms", us as f64 / 1000.0));
            row(
                "snapshot",
                format!(
                    "{}: taken while it ran{}",
                    snapshot.name,
                    pause.unwrap_or_default()
                ),
            );
        }
        if let Some(clone) = self.forked() {
            row(
                "fork",
                format!("{}: an instant clone, it goes on where {SOURCE} was", clone.name),
            );
        }
        if let Some(name) = self.clone_name() {
            row(
                "clone",
                format!("{name}: linked, it stands on the snapshot's frozen layer"),
            );
        }
        if let Some(copied) = &self.copied {
            let copy = copied.task.copy.map_or_else(String::new, |id| id.to_string());
            lines.push(format!(
                "  {:<10} {copy}: of the snapshot, in the vault {TARGET}",
                "copy"
            ));
        }
        if let Some(migrated) = &self.migrated {
            let vm = &migrated.vm.name;
            lines.push(format!("  {:<10} {vm}: what {SOURCE} has become", "migrated"));
        }
        lines.push("\nHow long each step took".to_owned());
        let width = self.steps.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, took) in &self.steps {
            lines.push(format!("  {name:<width$}  {:>6.1} s", took.as_secs_f64()));
            let job = match name.as_str() {
                "clone" => self.clone.as_ref().map(|(job, _)| job),
                "instant clone" => self.fork.as_ref().map(|(job, _, _)| job),
                _ => None,
            };
            if let Some(job) = job {
                for step in &job.steps {
                    if let (Some(start), Some(end)) = (step.start_time, step.end_time) {
                        let took = end.since(start) as f64 / 1e6;
                        lines.push(format!("    {:<w$}{took:>6.1} s", step.name, w = width.max(24)));
                    }
                }
            }
        }
        lines.push(String::new());
        if let Some(counted) = &self.counted {
            let (gap, most) = (ms(counted.longest), ms(LONGEST_GAP));
            lines.push(if counted.rebooted {
                "The source was booted anew meanwhile.".to_owned()
            } else if counted.longest > LONGEST_GAP {
                format!("The source's counter STOPPED for {gap} ms: more than {most} ms.")
            } else {
                format!(
                    "The source went on: its counter never stopped for more than {most} ms. Of {} ticks, one every 100 ms, \
                     the longest gap between two was {gap} ms.",
                    counted.ticks
                )
            });
        }
        let clone = self.clone_name().unwrap_or_else(|| "the clone".into());
        lines.push(match self.boot() {
            Some(boot) => {
                let proof = self
                    .clone
                    .as_ref()
                    .and_then(|(job, _)| job.outcome.proof.as_ref());
                let strength = proof.map(|p| p.strength.word()).unwrap_or_default();
                format!(
                    "The clone booted in {}: {clone}, proof {strength}.",
                    millis(ms(boot))
                )
            }
            None => "The clone was NOT seen to boot.".to_owned(),
        });
        lines.push(match (&self.fork, self.forked()) {
            (Some((job, _, _)), Some(clone)) => {
                let fork = job.outcome.fork.as_ref();
                let time = |micros: Option<u64>| match micros {
                    Some(micros) => format!("{:.1} ms", micros as f64 / 1000.0),
                    None => "?".to_owned(),
                };
                format!(
                    "The instant clone ran {} after it was asked for, from the source's tick {} on; the source stood still for {}.",
                    time(clone.running_micros),
                    clone.first_tick.map_or_else(|| "?".to_owned(), |tick| tick.to_string()),
                    time(fork.and_then(|f| f.source_pause_micros)),
                )
            }
            _ => "The instant clone did NOT come to be.".to_owned(),
        });
        lines.push(match &self.copied {
            Some(copied) => {
                let (task, stats) = (&copied.task, &copied.task.stats);
                let booted = task.verified.as_ref().and_then(|sign| sign.proof.boot_millis);
                format!(
                    "The copy ended with {}: {} of disks gone through, {} stored ({} spared by what the vault had, {} by \
                     compression). It was seen to boot from the vault: {}.",
                    task.status,
                    bytes(stats.seed.logical_bytes_transferred.unwrap_or_default() as u64),
                    bytes(stats.stored_bytes),
                    bytes(stats.saved_by_dedupe_bytes),
                    bytes(stats.saved_by_compression_bytes),
                    booted.map_or_else(|| "NO".to_owned(), |ms| format!("in {}", millis(ms))),
                )
            }
            None => "The snapshot was NOT copied.".to_owned(),
        });
        lines.extend(self.migrated.iter().flat_map(Migrated::report));
        lines.join("\n")
    }

    /// As JSON; what did not come to be is null.
    pub fn json(&self, ok: bool, took: Duration) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Told {
            ok,
            source: Source {
                name: SOURCE,
                max_tick_gap_ms: self.counted.map(|c| ms(c.longest)),
            },
            snapshot: self.snapshot.as_ref().map(|(_, as_told)| as_told),
            clone_job: self.clone.as_ref().map(|(_, as_told)| as_told),
            instant_clone: self.fork.as_ref().map(|(_, as_told, _)| as_told),
            copy_task: self.copied.as_ref().map(|copied| &copied.as_told),
            migration: self
                .migrates
                .then(|| self.migrated.as_ref().map(|migrated| &migrated.as_told)),
            clone: Clone {
                name: self.clone_name(),
                boot_seconds: self.boot().map(seconds),
            },
            seconds: seconds(took),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    ok: bool,
    source: Source,
    snapshot: Option<&'a Value>,
    clone_job: Option<&'a Value>,
    clone: Clone,
    instant_clone: Option<&'a Value>,
    copy_task: Option<&'a Value>,
    /// Left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<Option<&'a Value>>,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    name: &'static str,
    max_tick_gap_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Clone {
    name: Option<String>,
    boot_seconds: Option<f64>,
}
