//! `offshoot vm console`: the serial line of a machine in this terminal.

use super::{Api, Failure};
use futures::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use shared::api::encode;
use shared::console::{Note, OFF};
use std::io::{IsTerminal, Read, Write};
use std::thread;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Ctrl-]: leaves. Everything else is the guest's.
const LEAVE: u8 = 0x1d;
/// How much is read of the keyboard at once, in bytes.
const TYPED: usize = 1024;

/// A terminal that hands every key on; it is as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    /// Of standard input, if that is a terminal.
    fn begin() -> Result<Option<Self>, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).map_err(|e| format!("cannot ask the terminal: {e}"))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(|e| format!("cannot set the terminal: {e}"))?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Fails only where the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// What is typed here. A thread of its own: nobody waits for it when the program ends.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (to, typed) = mpsc::channel(1);
    thread::spawn(move || {
        let (mut stdin, mut bytes) = (std::io::stdin().lock(), [0; TYPED]);
        while let Ok(n @ 1..) = stdin.read(&mut bytes) {
            if to.blocking_send(bytes[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

/// Connects this terminal until a person leaves, the machine ends, or the server goes.
pub async fn run(api: &Api, vm: &str, last: u64) -> Result<(), Failure> {
    let client = api.client()?;
    let path = format!("/api/v1/vms/{}/console?last={last}", encode(vm));
    let (mut to, mut from) = client.socket(&path).await?.split();
    eprintln!("connected to the serial line of {vm}; Ctrl-] leaves");
    let raw = Raw::begin()?;
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let lost = |e| Failure::from(client.socket_lost(e));
    let shows = async {
        let mut stdout = std::io::stdout();
        loop {
            match from.next().await.transpose().map_err(lost)? {
                Some(Message::Binary(bytes)) => {
                    stdout.write_all(&bytes)?;
                    stdout.flush()?;
                }
                Some(Message::Text(text)) => note(&text),
                Some(Message::Close(why)) => return Ok(why),
                Some(_) => {}
                None => return Err(lost(Error::ConnectionClosed)),
            }
        }
    };
    let types = async {
        let mut typed = keyboard();
        while let Some(mut bytes) = typed.recv().await {
            let leaves = bytes.iter().position(|b| *b == LEAVE);
            bytes.truncate(leaves.unwrap_or(bytes.len()));
            if !bytes.is_empty() {
                to.send(Message::Binary(bytes.into())).await.map_err(lost)?;
            }
            if leaves.is_some() {
                return to.close().await.map_err(lost);
            }
        }
        // What was piped in is at its end: the answers are still to come.
        std::future::pending().await
    };
    let ended = tokio::select! {
        why = shows => why.and_then(|why| farewell(vm, why)),
        left = types => left.map(|()| None),
        _ = terminate.recv() => Ok(None),
        _ = hang_up.recv() => Ok(None),
    };
    let at_terminal = raw.is_some();
    drop(raw);
    if at_terminal {
        eprintln!();
    }
    if let Some(text) = ended? {
        eprintln!("{text}");
    }
    Ok(())
}

/// Told between what the guest says, in a terminal that does not make new lines by itself.
fn note(text: &str) {
    match serde_json::from_str(text) {
        Ok(Note::Skipped(n)) => eprint!("\r\n[{n} bytes are left out here: they came too fast]\r\n"),
        Ok(Note::Cut {}) => eprint!("\r\n[the log was cut here: it had grown too long]\r\n"),
        Ok(Note::Backlog(_)) | Err(_) => {}
    }
}

/// What is said when the server has closed the line.
fn farewell(vm: &str, why: Option<CloseFrame>) -> Result<Option<String>, Failure> {
    match why {
        Some(why) if u16::from(why.code) == OFF => Ok(Some(format!("{vm} is off"))),
        Some(why) => Err(format!("the server has closed the line: {}", why.reason).into()),
        None => Err("the server has closed the line".into()),
    }
}
