//! Secrets that a command needs. They never stand on the command line, where every process of the host could read them.

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// Longest file with a secret in it, in bytes.
const MOST: u64 = 64 << 10;

/// Why there is no secret.
// What was given as a file's name may be the secret itself, so no error repeats it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SecretError {
    #[error("cannot read what {option} names")]
    Read {
        option: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("there is nothing in what {0} names")]
    Empty(&'static str),
    #[error("there is more than one line in what {0} names")]
    Lines(&'static str),
    #[error("there is no age identity in what {0} names: a line that begins with AGE-SECRET-KEY-1")]
    Identity(&'static str),
    #[error("{0} is set to what is no text")]
    Variable(&'static str),
    #[error(
        "{option} is needed: a file, or - for standard input; {variable} in the environment does as well"
    )]
    Missing {
        option: &'static str,
        variable: &'static str,
    },
    #[error("that was not the same twice")]
    Twice,
    #[error("cannot ask at the terminal")]
    Ask(#[source] io::Error),
}

/// Where one secret may come from.
#[derive(Debug)]
pub struct Source {
    /// What is asked for at a terminal.
    pub prompt: &'static str,
    /// The option that names a file.
    pub option: &'static str,
    /// The variable of the environment.
    pub variable: &'static str,
}

impl Source {
    /// The secret, if a file or the environment has it; the file is asked first.
    pub fn given(&self, file: Option<&Path>) -> Result<Option<String>, SecretError> {
        if let Some(file) = file {
            return self.of(file).map(Some);
        }
        match std::env::var(self.variable) {
            Ok(secret) if !secret.is_empty() => Ok(Some(secret)),
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::Variable(self.variable)),
        }
    }

    /// The secret that a file has, in its only line.
    pub fn of(&self, file: &Path) -> Result<String, SecretError> {
        let text = text(self.option, self.prompt, file)?;
        let line = text.trim_end_matches(['\r', '\n']);
        match line {
            "" => Err(SecretError::Empty(self.option)),
            _ if line.contains('\n') => Err(SecretError::Lines(self.option)),
            _ => Ok(line.to_owned()),
        }
    }

    /// The secret: what is not given is asked for at a terminal.
    pub fn wanted(&self, file: Option<&Path>) -> Result<String, SecretError> {
        match self.given(file)? {
            Some(secret) => Ok(secret),
            None => self.asked(),
        }
    }

    /// One that is new: what is asked for at a terminal is asked for twice.
    pub fn fresh(&self, file: Option<&Path>) -> Result<String, SecretError> {
        if let Some(secret) = self.given(file)? {
            return Ok(secret);
        }
        let secret = self.asked()?;
        match ask("Once more").map_err(SecretError::Ask)? == secret {
            true => Ok(secret),
            false => Err(SecretError::Twice),
        }
    }

    fn asked(&self) -> Result<String, SecretError> {
        let (option, variable) = (self.option, self.variable);
        if !io::stdin().is_terminal() {
            return Err(SecretError::Missing { option, variable });
        }
        ask(self.prompt).map_err(SecretError::Ask)
    }
}

/// The age identity in a file as `age-keygen` writes it.
pub fn identity(option: &'static str, file: &Path) -> Result<String, SecretError> {
    let text = text(option, "Identity", file)?;
    let mut lines = text.lines().map(str::trim);
    let found = lines.find(|line| line.starts_with("AGE-SECRET-KEY-1"));
    found.map(str::to_owned).ok_or(SecretError::Identity(option))
}

/// What a file says, or standard input if its name is `-`.
fn text(option: &'static str, prompt: &str, file: &Path) -> Result<String, SecretError> {
    let mut text = String::new();
    let read = if file != Path::new("-") {
        std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text))
    } else if io::stdin().is_terminal() {
        ask(prompt).map(|line| {
            text = line;
            text.len()
        })
    } else {
        io::stdin().take(MOST).read_to_string(&mut text)
    };
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(SecretError::Read { option, source }),
    }
}

/// One line of standard input; on a terminal it asks, and does not show what is typed.
pub fn ask(prompt: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        let shown = tcgetattr(&stdin)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // Before it asks: what is typed at once is not shown either.
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
        let read = write!(io::stderr(), "{prompt}: ").and_then(|()| stdin.read_line(&mut line));
        tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
        read?;
        writeln!(io::stderr())?;
    } else {
        stdin.read_line(&mut line)?;
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const PASSPHRASE: Source = Source {
        prompt: "Passphrase",
        option: "--passphrase-file",
        variable: "OFFSHOOT_NO_SUCH_VARIABLE",
    };

    fn file(dir: &tempfile::TempDir, text: &[u8]) -> PathBuf {
        let path = dir.path().join("secret");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_file_has_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &[u8]| PASSPHRASE.of(&file(&dir, text));
        assert_eq!(of(b"correct horse\n").unwrap(), "correct horse");
        assert_eq!(of(b" spaces stay \r\n").unwrap(), " spaces stay ");
        assert!(matches!(of(b"\n"), Err(SecretError::Empty(_))));
        assert!(matches!(of(b"one\ntwo\n"), Err(SecretError::Lines(_))));
        assert!(matches!(of(b"\xff\xfe"), Err(SecretError::Read { .. })));
        assert!(PASSPHRASE.given(None).unwrap().is_none());
    }

    #[test]
    fn an_identity_is_found_among_comments() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| identity("--identity-file", &file(&dir, text.as_bytes()));
        let written = "# created: 2026-01-31\n# public key: age1abc\nAGE-SECRET-KEY-1XYZ\n";
        assert_eq!(of(written).unwrap(), "AGE-SECRET-KEY-1XYZ");
        assert!(matches!(of("age1abc\n"), Err(SecretError::Identity(_))));
    }

    #[test]
    fn no_error_repeats_what_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let secret = "hunter2-hunter2";
        let wrong = [
            PASSPHRASE.of(Path::new(secret)).unwrap_err(),
            PASSPHRASE
                .of(&file(&dir, format!("{secret}\n{secret}\n").as_bytes()))
                .unwrap_err(),
            identity("--identity-file", Path::new(secret)).unwrap_err(),
            identity("--identity-file", &file(&dir, secret.as_bytes())).unwrap_err(),
        ];
        for error in wrong {
            let said = format!("{error:?} {}", crate::db::chain(&error));
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
