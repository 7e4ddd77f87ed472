//! `offshoot job …`, and what is said of jobs.

use super::http::{self};
use super::table::{Table, bytes, millis};
use super::{Api, Failure, List, Wait, copy, target};
use clap::Subcommand;
use shared::api::{CancelJob, GetJob, GetJobLog, ListJobs, ListQuery, RetryJob};
use shared::feed::Noun;
use shared::job::{Job, JobSpec, JobState, ResourceRole, Step};
use shared::{Name, Status};
use std::fmt::Write;

/// `offshoot job …`
#[derive(Subcommand)]
pub enum JobCommand {
    /// Lists jobs, newest first.
    List(#[command(flatten)] List),
    /// Shows one, with its steps.
    Show {
        /// Its id.
        job: String,
    },
    /// Prints its log.
    Log {
        /// Its id.
        job: String,
        #[command(flatten)]
        list: List,
    },
    /// Cancels it: what it made is deleted again.
    Cancel {
        /// Its id.
        job: String,
    },
    /// Tries one that failed or was cancelled again, as a new job.
    Retry {
        /// Its id.
        job: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Follows it to its end, and fails if it does.
    Wait {
        /// Its id.
        job: String,
    },
}

impl JobCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListJobs { query }, |page| {
                    let mut table = Table::new(["ID", "WHAT", "STATE", "CREATED", "TOOK", "BY"]);
                    for job in &page.jobs {
                        table.row([
                            job.id.to_string(),
                            what(job),
                            job.state.to_string(),
                            job.create_time.to_string(),
                            took(job).map(millis).unwrap_or_default(),
                            job.created_by.clone(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { job } => api.show(&GetJob { id: job }, |job| shown(&job)).await,
            Self::Log { job, list } => {
                let query = ListQuery::from(list);
                api.show(&GetJobLog { id: job, query }, |page| {
                    let lines = page.lines.iter().map(|l| format!("{}  {}", l.time, l.text));
                    lines.collect::<Vec<_>>().join("\n")
                })
                .await
            }
            Self::Cancel { job } => api.show(&CancelJob { id: job }, |job| begun(&job)).await,
            Self::Retry { job, wait } => api.begin(&RetryJob { id: job }, wait).await,
            Self::Wait { job } => {
                let client = api.client()?;
                let call = GetJob { id: job };
                let job = http::read(&client.text(&call).await?)?;
                let job = api.follow(&client, job).await?;
                api.ended(&client, &job, &call).await
            }
        }
    }
}

/// A state as it stands in a sentence.
pub fn word(state: JobState) -> String {
    state.word().to_lowercase().replace('_', " ")
}

/// What a job does to which thing, in a few words.
pub fn what(job: &Job) -> String {
    let kind = job.kind.word().to_lowercase().replace('_', " ");
    let name = |role| job.resources.iter().find(|r| r.role == role).map(|r| &r.name);
    let text = |name: Option<&Name>| name.map(ToString::to_string).unwrap_or_default();
    let (source, mut product) = (name(ResourceRole::Source), name(ResourceRole::Product));
    let snapshot = job.resource(ResourceRole::Source, Noun::Snapshot);
    match (&*job.spec, snapshot) {
        (JobSpec::DeleteSnapshot(_), Some(gone)) => {
            return format!("{kind} {} of {}", gone.name, text(source));
        }
        // What is kept of it before is no goal.
        (JobSpec::RevertVm(_), _) => {
            let to = snapshot.map(|s| format!(" to {}", s.name));
            return format!("{kind} {}{}", text(source), to.unwrap_or_default());
        }
        // It is made later: of an image, when the file is found to be good.
        (JobSpec::ImportImage(spec), _) => product = Some(&spec.name),
        (JobSpec::ImageOfSnapshot(spec), _) => product = Some(&spec.name),
        (JobSpec::CreateVm(request), _) => product = Some(&request.name),
        (JobSpec::CopySnapshot(spec), _) => {
            let cycle = spec.migration.as_ref().map(|of| format!("cycle {}", of.number));
            let kind = cycle.unwrap_or(kind);
            return format!("{kind} of {} → {}", spec.vm_name, spec.target_name);
        }
        (JobSpec::CutOver(spec), _) => {
            let made = job.resource(ResourceRole::Product, Noun::Vm);
            let to = made.map(|vm| format!(" → {}", vm.name));
            return format!("{kind} {}{}", spec.name, to.unwrap_or_default());
        }
        (JobSpec::FinalizeMigration(spec), _) => return format!("{kind} {}", spec.name),
        (JobSpec::RestoreCopy(spec), _) => {
            // What a cutover has made is no test.
            let test = spec.migration.as_ref().is_some_and(|of| of.cutover.is_none());
            let kind = if test { "test clone" } else { kind.as_str() };
            let request = &spec.request;
            let new = request.vm.as_ref().map(|vm| vm.name.as_str());
            let over = request.over.as_ref().map(|over| over.vm.as_str());
            let beside = request.disks.as_ref().map(|disks| disks.vm.as_str());
            let to = new.or(over).or(beside).map(|to| format!(" → {to}"));
            return format!("{kind} of {}{}", spec.of, to.unwrap_or_default());
        }
        (JobSpec::BootCopy(spec), _) => return format!("{kind} of {}", spec.of),
        (JobSpec::VerifyTarget(spec), _) => return format!("{kind} {}", spec.target_name),
        (JobSpec::PruneTarget(spec), _) => return format!("{kind} {}", spec.target_name),
        _ => {}
    }
    match (source, product) {
        (Some(source), Some(product)) => format!("{kind} {source} → {product}"),
        (one, None) | (None, one) => format!("{kind} {}", text(one)).trim_end().to_owned(),
    }
}

/// How long it has taken from when it was asked, in milliseconds, if it is over.
fn took(job: &Job) -> Option<u64> {
    u64::try_from(job.end_time?.since(job.create_time) / 1000).ok()
}

/// What is said of a job that has begun.
pub fn begun(job: &Job) -> String {
    format!(
        "{}: {}, job {}\nfollow it: offshoot job wait {}",
        what(job),
        word(job.state),
        job.id,
        job.id
    )
}

/// What stood still for a job.
fn froze(job: &Job) -> &'static str {
    match &*job.spec {
        JobSpec::InstantCloneVm(_) => "the source",
        JobSpec::CloneVm(_) => "the source's disks",
        JobSpec::TakeSnapshot(spec) if spec.request.memory => "the guest",
        JobSpec::CopySnapshot(spec) if spec.request.memory => "the guest",
        _ => "its disks",
    }
}

/// What is said of a job that has succeeded.
pub fn success(job: &Job) -> Option<String> {
    if job.state != JobState::Succeeded {
        return None;
    }
    let took = took(job)
        .map(|ms| format!(" in {}", millis(ms)))
        .unwrap_or_default();
    let mut text = format!("{}: succeeded{took}", what(job));
    if let Some(proof) = &job.outcome.proof {
        let _ = write!(text, "; proof of boot: {}", proof.strength);
        if let Some(ms) = proof.boot_millis {
            let _ = write!(text, " after {}", millis(ms));
        }
    }
    if let Some(micros) = job.outcome.pause_micros {
        let _ = write!(
            text,
            "; {} stood still for {:.1} ms",
            froze(job),
            micros as f64 / 1000.0
        );
    }
    if let Some(ms) = job.outcome.downtime_millis {
        let _ = write!(text, "; nothing of it ran for {}", millis(ms));
    }
    if let Some(progress) = &job.outcome.copy {
        text.push_str(&copy::task::outcome(progress));
    }
    if let Some(vault) = &job.outcome.vault {
        text.push_str(&target::outcome(vault));
    }
    Some(text)
}

/// A job that did not succeed, or did not find what it should.
#[derive(Debug, thiserror::Error)]
#[error("{what} {how}; its log says more: offshoot job log {id}")]
pub struct JobFailed {
    what: String,
    how: String,
    id: shared::JobId,
}

/// Fails if the job did, or if it has found damage.
pub fn check(job: &Job) -> Result<(), JobFailed> {
    let damaged = job.outcome.vault.as_ref().filter(|vault| vault.damaged > 0);
    let how = match (job.state, &job.error) {
        (JobState::Succeeded, _) => match damaged {
            // It has looked, which was its work; whoever asked waits for another answer.
            Some(vault) => format!("found that {}", target::hurt(vault.damaged, vault.hurt_copies)),
            None => return Ok(()),
        },
        (JobState::Failed, Some(error)) => format!("failed: {}", with_trace(error)),
        (state, _) => format!("ended {}", state.word()),
    };
    Err(JobFailed {
        what: what(job),
        how,
        id: job.id,
    })
}

fn with_trace(status: &Status) -> String {
    match status.trace_id() {
        Some(id) => format!("{status} (trace id {id})"),
        None => status.to_string(),
    }
}

fn shown(job: &Job) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<9} {value}");
        }
    };
    field("job", job.id.to_string());
    field("what", what(job));
    field("state", job.state.to_string());
    field("by", job.created_by.clone());
    field("created", job.create_time.to_string());
    field("ended", job.end_time.map(|t| t.to_string()).unwrap_or_default());
    field("took", took(job).map(millis).unwrap_or_default());
    field(
        "retry of",
        job.retry_of.map(|id| id.to_string()).unwrap_or_default(),
    );
    field("error", job.error.as_ref().map(with_trace).unwrap_or_default());
    field(
        "blocked",
        job.blocked.as_ref().map(with_trace).unwrap_or_default(),
    );
    field("on hold", job.hold_reason.clone().unwrap_or_default());
    if let Some(proof) = &job.outcome.proof {
        let after = proof.boot_millis.map(|ms| format!(" after {}", millis(ms)));
        field(
            "proof",
            format!("{}{}", proof.strength, after.unwrap_or_default()),
        );
        field("matched", proof.matched.clone().unwrap_or_default());
    }
    let mut table = Table::new(["STEP", "STATE", "TOOK", "BYTES", "MESSAGE"]);
    for step in &job.steps {
        table.row(step_row(step));
    }
    format!("{text}\n{table}")
}

fn step_row(step: &Step) -> [String; 5] {
    let took = match (step.start_time, step.end_time) {
        (Some(start), Some(end)) => u64::try_from(end.since(start) / 1000).map(millis).ok(),
        _ => None,
    };
    let of = match (step.done_bytes, step.total_bytes) {
        (Some(done), Some(total)) => format!("{} of {}", bytes(done), bytes(total)),
        (Some(done), None) => bytes(done),
        (None, _) => String::new(),
    };
    [
        step.name.clone(),
        step.state.to_string(),
        took.unwrap_or_default(),
        of,
        step.message.clone().unwrap_or_default(),
    ]
}
