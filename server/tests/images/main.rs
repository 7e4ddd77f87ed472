//! Images from outside and disks on their way out: the whole way over HTTP, with the real qemu-img.
#![allow(clippy::unwrap_used)]

mod convert;
mod export;
mod hostile;
mod shut_in;
mod upload;
mod url;

#[allow(dead_code)]
#[path = "../http/site.rs"]
mod site;

use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use site::{Answer, Site, send};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Long enough on a busy machine; nothing waits this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server whose disks are real, configured further.
async fn site(more: impl FnOnce(&mut Config, &Path)) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        sim: false,
        program: Some(env!("CARGO_BIN_EXE_offshoot").into()),
        ..Config::simulated(dir.path().join("data"))
    };
    more(&mut config, dir.path());
    Site::start_with(dir, config).await
}

fn data(site: &Site) -> PathBuf {
    site.running.server.world().data_dir.clone()
}

/// Begins an upload of so many bytes.
async fn begin(site: &Site, request: Value) -> Answer {
    site.post("/api/v1/uploads", request).await
}

/// Sends a part.
async fn part(site: &Site, id: &str, offset: usize, bytes: impl Into<reqwest::Body>) -> Answer {
    let path = format!("/api/v1/uploads/{id}/content?offset={offset}");
    send(site.request(Method::PATCH, &path).body(bytes)).await
}

/// Uploads a file whole, and waits for the end of the job that makes an image of it.
async fn upload(site: &Site, name: &str, bytes: Vec<u8>, more: Value) -> Value {
    let mut request = json!({"name": name, "sizeBytes": bytes.len()});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let upload = begin(site, request).await;
    assert_eq!(upload.status, 201, "{upload:?}");
    let id = upload.json()["id"].as_str().unwrap().to_owned();
    let sent = part(site, &id, 0, bytes).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let job = site
        .post(&format!("/api/v1/uploads/{id}/finish"), json!({}))
        .await;
    over(site, &job).await
}

/// Waits for the end of the job that was answered.
async fn over(site: &Site, answer: &Answer) -> Value {
    assert_eq!(answer.status, 202, "{answer:?}");
    let path = format!("/api/v1/jobs/{}", answer.json()["id"].as_str().unwrap());
    let mut changes = site.running.server.world().db.subscribe();
    let wait = async {
        loop {
            let job = site.get(&path).await.json();
            if !job["endTime"].is_null() {
                return job;
            }
            // Lagging behind is no loss: the job is read again.
            drop(changes.recv().await);
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

fn succeeded(job: &Value) {
    assert_eq!(job["state"], "SUCCEEDED", "{job:#}");
}

/// What a job failed with.
fn failed(job: &Value) -> String {
    assert_eq!(job["state"], "FAILED", "{job:#}");
    job["error"]["message"].as_str().unwrap().to_owned()
}

/// Runs qemu-img, which has to succeed.
fn qemu_img(args: &[&str]) {
    let out = Command::new("qemu-img").args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A raw disk of 8 MiB with a boot sector and data here and there.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 8 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    for (n, at) in [0x1000, 0x20_0000, 0x7f_f000].into_iter().enumerate() {
        for (k, byte) in disk[at..at + 4096].iter_mut().enumerate() {
            *byte = (k * 31 + n * 7 + 1) as u8;
        }
    }
    disk
}

/// A file of the test's own with the disk in this format.
fn disk_as(dir: &Path, format: &str, options: &[&str]) -> PathBuf {
    let raw = dir.join("whole");
    std::fs::write(&raw, disk()).unwrap();
    let to = dir.join(format!("disk.{format}"));
    let mut args = vec!["convert", "-f", "raw", "-O", format];
    args.extend(options);
    args.extend([raw.to_str().unwrap(), to.to_str().unwrap()]);
    qemu_img(&args);
    to
}

/// Whether an image's layer reads as the disk does.
async fn reads_as_the_disk(site: &Site, image: &str) {
    let image = site.get(&format!("/api/v1/images/{image}")).await.json();
    assert_eq!(image["virtualBytes"], 8 << 20, "{image}");
    let layer = data(site)
        .join("layers")
        .join(format!("{}.qcow2", image["layer"].as_str().unwrap()));
    let raw = data(site).join("disk.raw");
    std::fs::write(&raw, disk()).unwrap();
    same(&layer, "qcow2", &raw);
    std::fs::remove_file(raw).unwrap();
}

fn same(a: &Path, format: &str, raw: &Path) {
    qemu_img(&[
        "compare",
        "-f",
        format,
        "-F",
        "raw",
        a.to_str().unwrap(),
        raw.to_str().unwrap(),
    ]);
}

/// Everything that an import could leave behind.
async fn left(site: &Site) -> Vec<String> {
    let mut all = Vec::new();
    for path in ["images", "uploads", "exports"] {
        let answer = site.get(&format!("/api/v1/{path}")).await.json();
        all.extend((0..answer["totalSize"].as_u64().unwrap()).map(|n| format!("{path} {n}")));
    }
    for dir in ["layers", "uploads", "exports"] {
        for file in std::fs::read_dir(data(site).join(dir)).unwrap() {
            all.push(format!("{dir}/{}", file.unwrap().file_name().to_string_lossy()));
        }
    }
    all
}
