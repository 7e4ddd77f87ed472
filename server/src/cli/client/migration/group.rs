//! `offshoot migration group …`: what is asked of many machines at once.

use super::super::{Api, Failure, Wait};
use clap::{Args, Subcommand};
use shared::api::{GetGroup, ListGroups, PostGroupAction, PostGroupCutover};
use shared::migrate::groups::{CutOverGroup, Group, GroupAction, GroupResults, GroupVerb, Groups};
use std::fmt::Write;

/// Which machines of a group.
#[derive(Args)]
pub struct Of {
    /// The group's name.
    group: String,
    /// Only those of this wave.
    #[arg(long, value_name = "N")]
    wave: Option<u32>,
}

/// `offshoot migration group …`
#[derive(Subcommand)]
pub enum GroupCommand {
    /// Lists groups, and how far they have come.
    List,
    /// Shows one, wave by wave.
    Show {
        /// Its name.
        group: String,
    },
    /// Starts their cycles.
    Start(#[command(flatten)] Of),
    /// Stops their cycles.
    Pause(#[command(flatten)] Of),
    /// Goes on with their cycles.
    Resume(#[command(flatten)] Of),
    /// Begins a cycle of each.
    Cycle(#[command(flatten)] Of),
    /// Makes a test clone of each, isolated.
    Clone {
        #[command(flatten)]
        of: Of,
        /// Put the clones up for removal after so many hours.
        #[arg(long, value_name = "HOURS")]
        keep_hours: Option<u32>,
    },
    /// Adapts their last uploads again.
    Adapt(#[command(flatten)] Of),
    /// Looks again whether they can be carried over.
    Check(#[command(flatten)] Of),
    /// Gives them more time until they expire.
    Extend(#[command(flatten)] Of),
    /// Cuts them over, wave by wave: those of a wave at the same time. A wave in which one fails is the last.
    CutOver {
        #[command(flatten)]
        of: Of,
        /// How long a guest may take to shut down until its power is taken away.
        #[arg(long, value_name = "SECONDS", default_value_t = CutOverGroup::default().power_off_after_seconds)]
        power_off_after: u32,
        #[command(flatten)]
        wait: Wait,
    },
    /// Ends their migrations after their cutover, and removes what those kept.
    Finalize {
        #[command(flatten)]
        of: Of,
        /// Leave their uploads at the target, as copies like any other.
        #[arg(long)]
        keep_copies: bool,
    },
}

impl GroupCommand {
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let (verb, of, keep_hours, keep_copies) = match self {
            Self::List => return api.show(&ListGroups {}, |all| table(&all)).await,
            Self::Show { group } => return api.show(&GetGroup { group }, |group| shown(&group)).await,
            Self::CutOver {
                of,
                power_off_after,
                wait,
            } => {
                let request = CutOverGroup {
                    wave: of.wave,
                    power_off_after_seconds: power_off_after,
                };
                let group = of.group;
                return api.begin(&PostGroupCutover { group, request }, wait).await;
            }
            Self::Start(of) => (GroupVerb::Start, of, None, false),
            Self::Pause(of) => (GroupVerb::Pause, of, None, false),
            Self::Resume(of) => (GroupVerb::Resume, of, None, false),
            Self::Cycle(of) => (GroupVerb::Cycle, of, None, false),
            Self::Clone { of, keep_hours } => (GroupVerb::Clone, of, keep_hours, false),
            Self::Adapt(of) => (GroupVerb::Adapt, of, None, false),
            Self::Check(of) => (GroupVerb::Check, of, None, false),
            Self::Extend(of) => (GroupVerb::Extend, of, None, false),
            Self::Finalize { of, keep_copies } => (GroupVerb::Finalize, of, None, keep_copies),
        };
        let request = GroupAction {
            verb,
            wave: of.wave,
            keep_hours,
            keep_copies,
        };
        let group = of.group;
        let results = api.client()?.call(&PostGroupAction { group, request }).await?;
        let refused = results.results.iter().filter(|r| r.error.is_some()).count();
        let text = told(&results);
        if api.json {
            crate::cli::say(serde_json::to_string_pretty(&results)?)?;
        } else {
            crate::cli::say(text)?;
        }
        match refused {
            0 => Ok(()),
            n => Err(format!("{n} of {} were refused", results.results.len()).into()),
        }
    }
}

/// What became of it, a line for each machine.
fn told(results: &GroupResults) -> String {
    let line = |r: &shared::migrate::groups::MemberResult| match (&r.error, r.job) {
        (Some(why), _) => format!("{}: {}", r.name, why.message),
        (None, Some(job)) => format!("{}: job {job}", r.name),
        (None, None) => format!("{}: done", r.name),
    };
    results.results.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(group: &Group) -> String {
    let failing = match group.failing {
        0 => String::new(),
        n => format!(", {n} with trouble"),
    };
    format!(
        "{}: {} of {} run where they were to go{failing}",
        group.name, group.moved, group.migrating_vms
    )
}

fn table(all: &Groups) -> String {
    match all.groups.is_empty() {
        true => "no migration names a group".to_owned(),
        false => all.groups.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn shown(group: &Group) -> String {
    let mut text = line(group);
    for wave in &group.waves {
        let states: Vec<_> = wave
            .states
            .iter()
            .map(|(state, n)| format!("{n} {state}"))
            .collect();
        // Writing to a text does not fail.
        let _ = write!(text, "\nwave {}: {}", wave.number, states.join(", "));
    }
    if let Some(job) = group.cutover_job {
        let _ = write!(text, "\ncut over by job {job}");
    }
    text
}
