//! How qemu-img is run, and what it says.

use super::room::Promise;
use super::{DiskError, Progress, space};
use std::io;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

#[derive(serde::Deserialize)]
struct Measure {
    required: u64,
}

/// A qemu-img that ends with whoever waits for it, and speaks English.
pub(super) fn qemu_img(args: &[&str]) -> Command {
    let mut command = Command::new("qemu-img");
    command
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(super) async fn run(op: &'static str, path: &Path, command: &mut Command) -> Result<Vec<u8>, DiskError> {
    let out = command.output().await.map_err(spawn_error)?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let why = said(&String::from_utf8_lossy(&out.stderr));
    Err(DiskError::Tool {
        op,
        path: path.to_owned(),
        why,
    })
}

pub(super) fn spawn_error(e: io::Error) -> DiskError {
    match e.kind() {
        io::ErrorKind::NotFound => DiskError::NotInstalled,
        _ => DiskError::io("run", Path::new("qemu-img"))(e),
    }
}

/// What qemu-img said, on one line and without its name.
pub(super) fn said(stderr: &str) -> String {
    let lines = stderr.lines().map(|l| l.trim_start_matches("qemu-img: ").trim());
    let lines: Vec<_> = lines.filter(|l| !l.is_empty()).collect();
    match lines.as_slice() {
        [] => "qemu-img failed and said nothing".into(),
        // Of a damaged file it has something to say of each cluster.
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}; {second}; {third}; and {} lines more", rest.len())
        }
        all => all.join("; "),
    }
}

async fn text(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What was read until the pipe broke is all there is to say.
        let _ = from.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads `    (12.34/100%)`, one after the other on the same line.
async fn percentages(from: Option<impl AsyncRead + Unpin>, mut tell: impl FnMut(f64)) {
    let Some(mut from) = from else { return };
    let (mut line, mut buf) = (String::new(), [0; 256]);
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        for &b in &buf[..n] {
            if b != b'\r' && b != b'\n' {
                line.push(char::from(b));
                continue;
            }
            let number = line.trim().strip_prefix('(').and_then(|l| l.split('/').next());
            if let Some(percent) = number.and_then(|n| n.parse().ok()) {
                tell(percent);
            }
            line.clear();
        }
    }
}

pub(super) fn measured(out: &[u8], path: &Path) -> Result<u64, DiskError> {
    let Measure { required } = serde_json::from_slice(out).map_err(|e| DiskError::Tool {
        op: "measure",
        path: path.to_owned(),
        why: e.to_string(),
    })?;
    Ok(required)
}

/// Runs qemu-img, which says how far it is in what comes to `total` bytes.
pub(super) async fn watched(
    op: &'static str,
    to: &Path,
    command: &mut Command,
    promise: &Promise,
    total: u64,
    progress: Progress<'_>,
) -> Result<(), DiskError> {
    let mut child = command.spawn().map_err(spawn_error)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut last = 0;
    let told = percentages(stdout, |percent| {
        let done = (total as f64 * percent / 100.0) as u64;
        if done > last {
            promise.keep(done - last);
            progress(done, total);
            last = done;
        }
    });
    let (_, why) = tokio::join!(told, text(stderr));
    let status = child.wait().await.map_err(DiskError::io(op, to))?;
    if !status.success() {
        let dir = to.parent().unwrap_or(Path::new("."));
        return Err(if why.contains("No space left on device") {
            DiskError::NoSpace {
                need: total,
                free: space(dir)?.free,
                dir: dir.to_owned(),
            }
        } else {
            DiskError::Tool {
                op,
                path: to.to_owned(),
                why: said(&why),
            }
        });
    }
    if last < total {
        progress(total, total);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_percentages_as_they_come() {
        let mut seen = Vec::new();
        let text: &[u8] = b"    (0.00/100%)\r    (1.01/100%)\r    (100.00/100%)\r\n";
        percentages(Some(text), |p| seen.push(p)).await;
        assert_eq!(seen, [0.0, 1.01, 100.0]);
    }
}
