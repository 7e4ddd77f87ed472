//! The guest's files and programs, inside of guestfish's machine, and the record of what was done to them.

use super::{AdaptError, Refusal};
use crate::FilesError;
use crate::name::{escape, quote};
use crate::session::Session;
use std::time::{Duration, Instant};

/// Longest time of one answer.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest time of a program of the guest: an initramfs without KVM takes minutes.
const PROGRAM: Duration = Duration::from_secs(600);
/// Most bytes of the whole log, and of it for what one command said.
const LOG: usize = 256 << 10;
const SAID: usize = 4 << 10;
/// Most bytes of a file that is edited.
const FILE: u64 = 1 << 20;

/// The guest at work. Where `dry`, nothing is written: what would be done is told all the same.
pub(super) struct Guest {
    pub(super) session: Session,
    pub(super) dry: bool,
    pub(super) done: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) log: String,
    /// Files came that had not been there: SELinux has no label for them.
    pub(super) new_files: bool,
}

impl Guest {
    pub(super) fn new(session: Session, dry: bool) -> Self {
        Self {
            session,
            dry,
            done: Vec::new(),
            warnings: Vec::new(),
            log: String::new(),
            new_files: false,
        }
    }

    pub(super) fn did(&mut self, what: impl Into<String>) {
        self.done.push(what.into());
    }

    pub(super) fn warn(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.warnings.contains(&what) {
            self.warnings.push(what);
        }
    }

    fn note(&mut self, command: &str, said: &str) {
        if self.log.len() >= LOG {
            return;
        }
        self.log.push_str("> ");
        self.log.push_str(&middle_cut(command, SAID));
        self.log.push('\n');
        let said = said.trim_end();
        if !said.is_empty() {
            self.log.push_str(&middle_cut(said, SAID));
            self.log.push('\n');
        }
        if self.log.len() >= LOG {
            self.log.push_str("(the log ends here: it is long enough)\n");
        }
    }

    /// A command of guestfish, of which the first word is not quoted and the others are. What it says.
    pub(super) async fn ask(&mut self, op: &str, words: &[&str]) -> Result<String, AdaptError> {
        self.ask_for(op, words, LIMIT).await
    }

    async fn ask_for(&mut self, op: &str, words: &[&str], limit: Duration) -> Result<String, AdaptError> {
        let (command, rest) = words.split_first().unwrap_or((&"", &[]));
        let mut line = (*command).to_owned();
        for word in rest {
            line.push(' ');
            line.push_str(&quote(word.as_bytes()));
        }
        let start = Instant::now();
        let result = self.session.run(op, &line, limit).await;
        let mut shown = words.join(" ");
        // What takes its time is told.
        let took = start.elapsed().as_secs();
        if took > 0 {
            shown.push_str(&format!(" ({took} s)"));
        }
        match result {
            Ok(said) => {
                let said = String::from_utf8_lossy(&said.bytes).into_owned();
                self.note(&shown, &said);
                Ok(said)
            }
            Err(e) => {
                self.note(&shown, &e.to_string());
                Err(of_files(e, rest.first().copied().unwrap_or_default()))
            }
        }
    }

    /// The same where a refusal only says that there is nothing.
    pub(super) async fn maybe(&mut self, words: &[&str]) -> Result<Option<String>, AdaptError> {
        match self.ask("look", words).await {
            Ok(said) => Ok(Some(said.trim().to_owned()).filter(|s| !s.is_empty())),
            Err(AdaptError::Host(FilesError::Refused { .. })) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn is(&mut self, words: &[&str]) -> Result<bool, AdaptError> {
        Ok(self.maybe(words).await?.as_deref() == Some("true"))
    }

    /// Whether there is a file, or something else of that name.
    pub(super) async fn exists(&mut self, path: &str) -> Result<bool, AdaptError> {
        self.is(&["exists", path]).await
    }

    pub(super) async fn is_dir(&mut self, path: &str) -> Result<bool, AdaptError> {
        self.is(&["is-dir", path]).await
    }

    /// The names in a directory that end like this; none where there is no such directory.
    pub(super) async fn names(&mut self, dir: &str, ending: &str) -> Result<Vec<String>, AdaptError> {
        if !self.is_dir(dir).await? {
            return Ok(Vec::new());
        }
        let names = self.ask("list", &["ls", dir]).await?;
        let names = names
            .lines()
            .filter(|n| n.ends_with(ending) && !n.starts_with('.'));
        Ok(names.map(str::to_owned).collect())
    }

    /// A text file; `None` where there is none, or none that is text of a size to be edited.
    pub(super) async fn read(&mut self, path: &str) -> Result<Option<String>, AdaptError> {
        if !self.is(&["is-file", path, "followsymlinks:true"]).await? {
            return Ok(None);
        }
        let size = self.ask("read the size of a file", &["filesize", path]).await?;
        if size.trim().parse::<u64>().map_or(true, |size| size > FILE) {
            self.warn(format!("{path} is too long to be edited"));
            return Ok(None);
        }
        let op = format!("read {path}");
        let command = format!("read-file {}", quote(path.as_bytes()));
        let read = self.session.run(&op, &command, LIMIT).await;
        let bytes = read.map_err(|e| of_files(e, path))?.bytes;
        self.note(&format!("read-file {path}"), "");
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(e) => {
                self.warn(format!(
                    "{path} is not UTF-8, and was left alone: {}",
                    escape(&e.as_bytes()[..16.min(e.as_bytes().len())])
                ));
                Ok(None)
            }
        }
    }

    /// Writes a text file. Mode and owner of one that is there stay.
    pub(super) async fn write(&mut self, path: &str, text: &str) -> Result<(), AdaptError> {
        if !self.dry {
            self.new_files |= !self.exists(path).await?;
            self.ask("write a file", &["write", path, text]).await?;
        }
        Ok(())
    }

    /// Edits a text file if it is there. Whether it was changed.
    pub(super) async fn edit(
        &mut self,
        path: &str,
        edit: impl FnOnce(&str) -> String,
    ) -> Result<bool, AdaptError> {
        let Some(before) = self.read(path).await? else {
            return Ok(false);
        };
        let after = edit(&before);
        if after == before {
            return Ok(false);
        }
        self.write(path, &after).await?;
        Ok(true)
    }

    /// A command that changes something: none where it is only looked at.
    pub(super) async fn act(&mut self, op: &str, words: &[&str]) -> Result<(), AdaptError> {
        if !self.dry {
            self.ask(op, words).await?;
        }
        Ok(())
    }

    /// Runs a line of shell in the guest that only looks, and says its output whatever its end.
    pub(super) async fn look(&mut self, line: &str) -> Result<String, AdaptError> {
        let line = format!("{{ {line}\n}} 2>/dev/null </dev/null; true");
        self.shell("look", &line).await
    }

    async fn shell(&mut self, what: &str, line: &str) -> Result<String, AdaptError> {
        match self.ask_for(what, &["sh", line], PROGRAM).await {
            // The shell itself did not run, or was ended.
            Err(AdaptError::Host(FilesError::Refused { op, why })) => {
                Err(Refusal::Program { what: op, why }.into())
            }
            result => result,
        }
    }

    /// Runs a line of shell in the guest. Refused where it fails, with the end of what it said.
    pub(super) async fn program(&mut self, what: &str, line: &str) -> Result<(), AdaptError> {
        if self.dry {
            return Ok(());
        }
        // Of one that fails, guestfish tells only what came on the error stream.
        let line = format!("{{ {line}\n}} 2>&1 </dev/null; echo \"status $?\"");
        let said = self.shell(what, &line).await?;
        let said = said.trim_end();
        let (said, status) = said.rsplit_once("status ").unwrap_or((said, "?"));
        if status == "0" {
            return Ok(());
        }
        let what = what.to_owned();
        if said.contains("No space left on device") {
            let why = format!("{what} found no room");
            return Err(Refusal::NoSpace {
                path: "a file system".into(),
                why,
            }
            .into());
        }
        let lines: Vec<_> = said.trim().lines().rev().take(5).collect();
        let why = lines.into_iter().rev().collect::<Vec<_>>().join(" / ");
        Err(Refusal::Program { what, why }.into())
    }

    /// Whether one of these programs is there; its path.
    pub(super) async fn which(&mut self, name: &str) -> Result<Option<String>, AdaptError> {
        for dir in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            let path = format!("{dir}/{name}");
            if self.exists(&path).await? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// What a failure of guestfish is to who adapts.
pub(super) fn of_files(e: FilesError, about: &str) -> AdaptError {
    match e {
        FilesError::Refused { op, why } if why.contains("No space left on device") => {
            let why = format!("{op}: {why}");
            Refusal::NoSpace {
                path: about.to_owned(),
                why,
            }
            .into()
        }
        FilesError::TimedOut { op, limit } => AdaptError::TimedOut { op, limit },
        e => AdaptError::Host(e),
    }
}

/// Beginning and end of what is too long.
fn middle_cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut head = most / 2;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - most / 2;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{} … {}", &text[..head], &text[tail..])
}
