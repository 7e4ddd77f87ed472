//! Following a job to its end.

use super::feed::Feed;
use super::http::{Client, ClientError};
use indicatif::{ProgressBar, ProgressStyle};
use shared::api::GetJob;
use shared::feed::{Noun, RESET};
use shared::job::{Job, StepState};
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a server may be away before following is given up; it may be restarting.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after a lost link the job is asked for again, and the feed too.
const AGAIN: Duration = Duration::from_secs(1);
/// What is shown of a step's message, in characters.
const MESSAGE: usize = 70;

/// Returns the job when it is over; `seen` is told every version on the way, the given one first.
///
/// The feed tells of changes. Whenever its link is lost the job is asked for instead: also by a caller who may not
/// listen, and over a restart of the server.
pub async fn to_end(client: &Client, mut job: Job, mut seen: impl FnMut(&Job)) -> Result<Job, ClientError> {
    let get = GetJob {
        id: job.id.to_string(),
    };
    let mut away: Option<Instant> = None;
    seen(&job);
    loop {
        if !job.state.is_final()
            && let Ok(feed) = Feed::open(client, job.generation).await
        {
            listen(feed, &mut job, &mut seen).await;
        }
        if job.state.is_final() {
            return Ok(job);
        }
        match client.call(&get).await {
            Ok(newer) => {
                away = None;
                job = newer;
                seen(&job);
                if job.state.is_final() {
                    return Ok(job);
                }
            }
            Err(e) if e.may_pass() => {
                if away.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(ClientError::LostJob {
                        job: job.id,
                        source: Box::new(e),
                    });
                }
            }
            Err(e) => return Err(e),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens until the job is over or the link is lost.
async fn listen(mut feed: Feed, job: &mut Job, seen: &mut impl FnMut(&Job)) {
    while let Some(event) = feed.next().await {
        if event.name == RESET {
            return;
        }
        if event.name != Noun::Job.word() {
            continue;
        }
        // Other jobs too; and one that this version cannot read is asked for later.
        match serde_json::from_str::<Job>(&event.data) {
            Ok(newer) if newer.id == job.id && newer.generation > job.generation => {
                *job = newer;
                seen(job);
                if job.state.is_final() {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Shows how far a job is, on standard error: a bar on a terminal, else a line for each change.
pub struct Progress {
    bar: Option<ProgressBar>,
    said: String,
}

impl Progress {
    /// With a bar, or with lines.
    pub fn new(terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            said: String::new(),
        }
    }

    /// Shows this version of it.
    pub fn update(&mut self, job: &Job) {
        let line = line(job);
        let Some(bar) = &self.bar else {
            if line != self.said {
                // There is nobody left to tell if standard error is closed.
                _ = writeln!(std::io::stderr(), "{line}");
                self.said = line;
            }
            return;
        };
        let bytes = job
            .current_step()
            .and_then(|s| Some((s.done_bytes?, s.total_bytes?)));
        let template = match bytes {
            Some(_) => "{spinner} {msg} [{bar:24}] {bytes} of {total_bytes}, {elapsed}",
            None => "{spinner} {msg}, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if let Some((done, total)) = bytes {
            bar.set_length(total);
            bar.set_position(done);
        }
        bar.set_message(line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A job in one line: what it does, how far it is, what it is at.
fn line(job: &Job) -> String {
    let mut line = format!("{}: {}", super::job::what(job), super::job::word(job.state));
    if let Some(step) = job.current_step() {
        let asked = job.steps.iter().filter(|s| s.state != StepState::Skipped);
        let at = asked.clone().take_while(|s| s.name != step.name).count() + 1;
        line.push_str(&format!(", step {at} of {}, {}", asked.count(), step.name));
        if let Some(message) = &step.message {
            let short: String = message.chars().take(MESSAGE).collect();
            line.push_str(&format!(": {short}"));
        }
    }
    let blocked = job.blocked.as_ref().map(|s| s.message.as_str());
    for why in [job.hold_reason.as_deref(), blocked].into_iter().flatten() {
        line.push_str(&format!(": {why}"));
    }
    line
}
