//! A file, or a directory as tar, as a stream of bytes.

use super::entries::{about, find};
use super::error::{FilesError, io};
use super::name::quote;
use super::{Browser, EntryKind, LIMIT, State};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, unfold};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::Instant;

/// As much of a file is read at once; between two pieces others have their turn.
const PIECE: u64 = 1 << 20;
/// Longest time of a directory's download.
const TAR: Duration = Duration::from_secs(6 * 3600);

/// Something that is read while it is sent. Who drops it stops it.
pub struct Download {
    /// The size of a file; `None` for a directory, which comes as tar.
    pub bytes: Option<u64>,
    /// What comes; an error is the last.
    pub body: BoxStream<'static, Result<Bytes, FilesError>>,
}

impl Browser {
    /// A file, from its byte number `from` on, or a directory as tar. Links are followed to the last.
    pub async fn download(&self, device: &str, path: &[u8], from: u64) -> Result<Download, FilesError> {
        let mut state = self.at(device, path).await?;
        let found = find(state.session()?, path).await;
        let entry = state.checked(found)?;
        match entry.kind {
            EntryKind::File => {
                drop(state);
                let body = self.file(device.to_owned(), path.to_owned(), from, entry.bytes);
                Ok(Download {
                    bytes: Some(entry.bytes.saturating_sub(from)),
                    body,
                })
            }
            EntryKind::Directory => Ok(Download {
                bytes: None,
                body: tar(self, state, path)?,
            }),
            _ => Err(FilesError::NotAFile(super::name::escape(path))),
        }
    }

    fn file(
        &self,
        device: String,
        path: Vec<u8>,
        from: u64,
        end: u64,
    ) -> BoxStream<'static, Result<Bytes, FilesError>> {
        let browser = self.clone();
        let pieces = unfold(Some((browser, device, path, from)), move |at| async move {
            let (browser, device, path, from) = at?;
            if from >= end {
                return None;
            }
            let most = PIECE.min(end - from);
            let piece = browser.piece(&device, &path, from, most).await;
            let next = piece.is_ok().then_some((browser, device, path, from + most));
            Some((piece, next))
        });
        pieces.boxed()
    }

    async fn piece(&self, device: &str, path: &[u8], from: u64, most: u64) -> Result<Bytes, FilesError> {
        let mut state = self.at(device, path).await?;
        let command = format!("download-offset {} - {from} {most}", quote(path));
        let read = state.session()?.run("read a file", &command, LIMIT).await;
        let read = state.checked(read).map_err(|e| about(path, e))?;
        if read.bytes.len() as u64 != most {
            return Err(FilesError::Refused {
                op: "read a file".to_owned(),
                why: format!("{} of {most} bytes came at {from}", read.bytes.len()),
            });
        }
        Ok(read.bytes.into())
    }
}

/// The directory goes through a pipe with a name, whose reader may go away: guestfish then stops, and is of use for others.
fn tar(
    browser: &Browser,
    mut state: OwnedMutexGuard<State>,
    path: &[u8],
) -> Result<BoxStream<'static, Result<Bytes, FilesError>>, FilesError> {
    let fifo = state.session()?.path("tar");
    let _ = std::fs::remove_file(&fifo);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).map_err(|e| io("make the pipe", &fifo)(e.into()))?;
    let mut reader = pipe::OpenOptions::new()
        .open_receiver(&fifo)
        .map_err(io("open the pipe", &fifo))?;
    let (sender, receiver) = mpsc::channel(1);
    let command = format!(
        "tar-out {} {} numericowner:true",
        quote(path),
        quote(fifo.as_os_str().as_encoded_bytes())
    );
    let path = path.to_owned();
    let closed = browser.inner.closed.clone();
    tokio::spawn(async move {
        let read = async {
            let mut piece = vec![0; 256 << 10];
            while let Ok(read @ 1..) = reader.read(&mut piece).await {
                if sender
                    .send(Ok(Bytes::copy_from_slice(&piece[..read])))
                    .await
                    .is_err()
                {
                    break;
                }
            }
            drop(reader);
        };
        let Ok(session) = state.session() else { return };
        let result = {
            let written = session.run("read a directory", &command, TAR);
            tokio::pin!(read, written);
            tokio::select! {
                () = closed.cancelled() => Err(FilesError::Ended),
                () = &mut read => written.await,
                // What failed may never have opened the pipe.
                result = &mut written => {
                    if result.is_ok() {
                        read.await;
                    }
                    result
                }
            }
        };
        let _ = std::fs::remove_file(&fifo);
        state.used = Instant::now();
        let checked = state.checked(result);
        drop(state);
        if let Err(e) = checked {
            // Nobody to be told where the reader has gone.
            let _ = sender.send(Err(about(&path, e))).await;
        }
    });
    // The browser stays open as long as somebody reads.
    let stream = unfold(
        (receiver, browser.clone()),
        |(mut receiver, browser)| async move { receiver.recv().await.map(|piece| (piece, (receiver, browser))) },
    );
    Ok(stream.boxed())
}
