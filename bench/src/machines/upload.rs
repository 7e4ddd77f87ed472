//! An image uploaded by the command, beside `curl` that sends the same file to a server which writes it to a file and does
//! no more. Both end when what was sent is on the disk for certain.

use crate::report::{Figure, Limit};
use crate::site::{Site, work_dir};
use crate::stats::Sample;
use crate::{Result, Size};
use serde_json::{Value, json};
use server::config::Config;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// Takes the figures of uploads.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let site = Site::start(Config::simulated(dir.path().join("data"))).await?;
    let taken = figures(&site, dir.path(), size).await;
    site.close().await?;
    taken
}

async fn figures(site: &Site, dir: &Path, size: Size) -> Result<Vec<Figure>> {
    let (image, mib) = (dir.join("image"), size.pick(1024, 64));
    write_image(&image, mib)?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    // In turn, so that what else goes on meets both.
    for _ in 0..size.pick(7, 2) {
        ours.push(upload(site, &image, mib).await?);
        plain.push(curl(&image, &dir.join("copy")).await?);
    }
    let (ours, plain): (Sample, Sample) = (ours.into_iter().collect(), plain.into_iter().collect());
    let noise = format!(
        "{mib} MiB, {} of each in turn, medians {:.2} s and {:.2} s",
        ours.len(),
        ours.median(),
        plain.median()
    );
    Ok(vec![Figure::new(
        "uploadRatio",
        ours.median() / plain.median(),
        Limit::AtMost(1.5),
        noise,
    )])
}

/// Bytes that no file system makes smaller.
fn write_image(path: &Path, mib: usize) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..mib {
        let mut piece = Vec::with_capacity(1 << 20);
        while piece.len() < 1 << 20 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            piece.extend(random.to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    Ok(file.sync_all()?)
}

/// Seconds from the first request until all has arrived and is on the disk.
async fn upload(site: &Site, image: &Path, mib: usize) -> Result<f64> {
    let begin = Instant::now();
    let request = json!({"name": "bench", "sizeBytes": mib << 20});
    let upload: Value = site.post("/api/v1/uploads", request).await?;
    let id = upload["id"].as_str().ok_or("no upload")?;
    let to = format!("{}/api/v1/uploads/{id}/content?offset=0", site.url);
    let token = format!("Authorization: Bearer {}", site.token);
    let mut command = Command::new("curl");
    command
        .args(["-sSf", "-X", "PATCH", "-H", &token, "-H", "Expect:", "-T"])
        .arg(image)
        .arg(&to);
    run(command).await?;
    let file = site.running.server.world().data_dir.join("uploads").join(id);
    tokio::fs::File::open(&file).await?.sync_all().await?;
    let took = begin.elapsed().as_secs_f64();
    site.request(reqwest::Method::DELETE, &format!("/api/v1/uploads/{id}"))
        .send()
        .await?
        .error_for_status()?;
    Ok(took)
}

async fn run(mut command: Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("curl: {status}").into())
    }
}

/// Seconds that `curl` takes to send the file to one that only writes it.
async fn curl(image: &Path, to: &Path) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let to = to.to_owned();
    let receiver = tokio::task::spawn_blocking(move || receive(&listener, &to));
    let begin = Instant::now();
    let mut command = Command::new("curl");
    command.args(["-sSf", "-H", "Expect:", "-T"]).arg(image).arg(&url);
    run(command).await?;
    receiver.await??;
    Ok(begin.elapsed().as_secs_f64())
}

/// One request, by plain calls and nothing else in between.
fn receive(listener: &TcpListener, to: &Path) -> Result<()> {
    let (stream, _) = listener.accept()?;
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse()?;
        }
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    let mut file = std::fs::File::create(to)?;
    let mut piece = vec![0; 1 << 20];
    while length > 0 {
        let most = piece.len().min(length);
        let part = piece.get_mut(..most).unwrap_or_default();
        let read = stream.read(part)?;
        if read == 0 {
            return Err("curl has ended early".into());
        }
        file.write_all(part.get(..read).unwrap_or_default())?;
        length -= read;
    }
    file.sync_all()?;
    Ok(stream
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?)
}
