//! The snapshot goes to a vault, is looked at there, and booted from there.

use super::show::{SOURCE, Show};
use super::tell;
use crate::cli::Failure;
use crate::cli::client::job;
use serde_json::Value;
use shared::api::{GetCopyTask, GetJob, GetTarget, PostBoot, PostCopyTask, PostTarget, VerifyTargetNow};
use shared::copy::{BootCopy, CopyTask, CreateCopyTask, TaskStatus};
use shared::job::Job;
use shared::target::{CreateTarget, LocalPlace, VerifyTarget};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the demo's target.
pub const TARGET: &str = "demo-vault";

/// What became of the copy.
pub struct Copied {
    /// The task, as it was when its copy had been booted.
    pub task: CopyTask,
    /// The same as the API told it.
    pub as_told: Value,
    /// The job that looked at the vault.
    pub looked: Job,
    /// The job that booted the copy.
    pub booted: Job,
}

impl Copied {
    /// What did not hold.
    pub fn wrong(&self) -> Option<String> {
        let task = &self.task;
        let found = self.looked.outcome.vault.as_deref();
        let proven = task.verified.as_ref().is_some_and(|sign| sign.booted);
        if !matches!(task.status, TaskStatus::Success | TaskStatus::Warning) {
            let why = task.error.clone().unwrap_or_default();
            return Some(format!("the copy ended with {}: {why}", task.status));
        }
        if found.is_none_or(|found| found.damaged > 0) {
            return Some("the vault of the demo is damaged".into());
        }
        if let Err(e) = job::check(&self.booted) {
            return Some(format!("the copy does not boot: {e}"));
        }
        (!proven).then(|| "the copy was not seen to boot".into())
    }
}

/// A passphrase that is kept beside the demo's vault, so that it can be attached elsewhere.
fn passphrase(data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join(format!("{TARGET}.passphrase"));
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok(text.trim().to_owned());
    }
    let words = uuid::Uuid::new_v4().to_string();
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{words}"));
    made.map_err(|e| format!("cannot keep the passphrase in {}: {e}", path.display()))?;
    Ok(words)
}

impl Show<'_> {
    async fn target(&self, data_dir: &Path) -> Result<(), Failure> {
        let target = TARGET.to_owned();
        if self.client.find(&GetTarget { target }).await?.is_some() {
            return Ok(());
        }
        let path = data_dir.join(TARGET);
        let request = CreateTarget {
            name: TARGET.parse()?,
            // What an earlier demo has left there is taken up.
            attach: path.join("config").exists(),
            local: Some(LocalPlace {
                path: path.display().to_string(),
            }),
            s3: None,
            remote: None,
            passphrase: Some(passphrase(data_dir)?),
            recipient: None,
            identity: None,
            bytes_per_second: None,
            at_once: None,
        };
        self.client.call(&PostTarget { request }).await?;
        Ok(())
    }

    /// Copies a snapshot of a machine, looks at the vault, and boots the copy.
    pub async fn copy(&mut self, vm: &str, snapshot: &str, data_dir: &Path) -> Result<(), Failure> {
        let data_dir = std::path::absolute(data_dir)?;
        self.target(&data_dir).await?;
        tell(format_args!("copying the snapshot of {SOURCE} to {TARGET}"));
        let request = CreateCopyTask {
            target: TARGET.into(),
            snapshot: Some(snapshot.to_owned()),
            memory: false,
            quiesce: false,
            boot: false,
            request_id: None,
        };
        let vm = vm.to_owned();
        let task = self.client.call(&PostCopyTask { vm, request }).await?;
        let id = task.id.to_string();
        let job = self.client.call(&GetJob { id: id.clone() }).await?;
        self.follow(job).await?;
        self.done("copy");

        let (target, request) = (TARGET.to_owned(), VerifyTarget::default());
        let job = self.client.call(&VerifyTargetNow { target, request }).await?;
        let looked = self.follow(job).await?;
        self.done("vault looked at");

        let copy = task.copy.unwrap_or(shared::CopyId(task.id.0)).to_string();
        let request = BootCopy::default();
        let job = self.client.call(&PostBoot { copy, request }).await?;
        let booted = self.end(job).await?;
        self.done("copy booted");

        let text = self.client.text(&GetCopyTask { task: id }).await?;
        self.copied = Some(Copied {
            task: serde_json::from_str(&text)?,
            as_told: serde_json::from_str(&text)?,
            looked,
            booted,
        });
        Ok(())
    }
}
