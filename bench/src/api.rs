//! The API with many machines, and the feed with many listeners.

use crate::report::{Figure, Limit};
use crate::site::{Site, work_dir};
use crate::stats::{Sample, millis};
use crate::{Result, Size};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use server::config::Config;
use server::db;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Requests under way at once, while machines are made.
const ASKING: usize = 32;
/// Between two changes that listeners hear of.
const PACE: Duration = Duration::from_millis(50);

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let site = Site::start(config(dir.path())?).await?;
    let taken = figures(&site, size).await;
    site.close().await?;
    taken
}

/// A simulation in this directory, with an image.
pub fn config(dir: &Path) -> Result<Config> {
    let image = dir.join("image");
    // What the simulation takes for an image: its size, and what it occupies.
    std::fs::write(&image, "1073741824 196608\n")?;
    let mut config = Config::simulated(dir.join("data"));
    config.images = vec![format!("image={}", image.display()).parse()?];
    Ok(config)
}

async fn figures(site: &Site, size: Size) -> Result<Vec<Figure>> {
    let machines = size.pick(10_000, 500);
    make(site, machines).await?;
    let rounds = size.pick(5, 1);
    let mut rates = Vec::new();
    let mut all = Vec::new();
    for _ in 0..rounds {
        let pages = pages(site, machines).await?;
        rates.push(pages.iter().copied().collect::<Sample>().percentile(0.95));
        all.extend(pages);
    }
    let (pages, rounds): (Sample, Sample) = (all.into_iter().collect(), rates.into_iter().collect());

    let (listeners, changes) = size.pick((200, 200), (20, 10));
    let heard = heard(site, listeners, changes).await?;
    Ok(vec![
        Figure::new(
            "listVmsP95Ms",
            pages.percentile(0.95),
            Limit::AtMost(20.0),
            format!(
                "{} pages of 100 of {machines} VMs, median {:.1}, p95 of each round {}",
                pages.len(),
                pages.median(),
                rounds.range(1)
            ),
        ),
        Figure::new(
            "feedP95Ms",
            heard.percentile(0.95),
            Limit::AtMost(100.0),
            format!(
                "{changes} changes to {listeners} listeners, from before the write; median {:.1}, {}",
                heard.median(),
                heard.range(1)
            ),
        ),
    ])
}

/// Makes machines that run, each with a snapshot, as a person would.
pub async fn make(site: &Site, count: usize) -> Result<()> {
    let post = async |n: usize, path: String, body: Value| -> Result<()> {
        let asked = site.post(&path, body).await?;
        let id = crate::site::job_id(&asked)?.parse()?;
        let db = &site.running.server.world().db;
        let mut changes = db.subscribe();
        loop {
            let job = db::jobs::by_id(db, id).await?.ok_or("the job is gone")?.job;
            if job.state == shared::job::JobState::Succeeded {
                return Ok(());
            } else if job.state.is_final() {
                return Err(format!("machine {n}: {job:?}").into());
            }
            // Lagging behind is no loss: the job is read again.
            drop(changes.recv().await);
        }
    };
    stream::iter(0..count)
        .map(async |n| {
            let body = json!({"name": format!("vm-{n:05}"), "cpus": 1, "memoryMib": 128, "start": n % 2 == 0,
                "labels": {"team": format!("team-{}", n % 7)}, "disks": [{"image": "image"}, {"sizeGib": 10}]});
            post(n, "/api/v1/vms".into(), body).await?;
            post(n, format!("/api/v1/vms/vm-{n:05}/snapshots"), json!({})).await
        })
        .buffer_unordered(ASKING)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// How long each page of the list takes, in milliseconds, from the request to its last byte.
async fn pages(site: &Site, machines: usize) -> Result<Vec<f64>> {
    let (mut taken, mut seen, mut token) = (Vec::new(), 0, String::new());
    loop {
        let begin = Instant::now();
        let path = format!("/api/v1/vms?pageSize=100&pageToken={token}");
        let body = site
            .request(reqwest::Method::GET, &path)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        taken.push(millis(begin.elapsed()));
        let page: Value = serde_json::from_slice(&body)?;
        seen += page["vms"].as_array().map_or(0, Vec::len);
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    if seen != machines {
        return Err(format!("{seen} of {machines} VMs were listed").into());
    }
    Ok(taken)
}

/// How long changes take to each listener, in milliseconds, from before the write.
async fn heard(site: &Site, listeners: usize, changes: usize) -> Result<Sample> {
    let (heard, mut arrivals) = mpsc::unbounded_channel();
    let feeds = try_join_all((0..listeners).map(|_| site.listen())).await?;
    let tasks: Vec<_> = feeds
        .into_iter()
        .map(|mut feed| {
            let heard = heard.clone();
            tokio::spawn(async move {
                while let Ok(data) = feed.next("vm").await {
                    if heard.send((Arc::<str>::from(data), Instant::now())).is_err() {
                        break;
                    }
                }
            })
        })
        .collect();
    let server = &site.running.server;
    let vm = db::vms::find(&server.world().db, "vm-00000")
        .await?
        .ok_or("no machine")?
        .id;
    let mut taken = Vec::new();
    let mut pace = tokio::time::interval(PACE);
    for n in 0..changes {
        pace.tick().await;
        let begin = Instant::now();
        server
            .jobs
            .patch_vm(
                vm,
                shared::vm::PatchVm {
                    labels: Some([("change".to_owned(), n.to_string())].into()),
                    ..Default::default()
                },
            )
            .await?;
        let mark = format!("\"change\":\"{n}\"");
        let mut left = listeners;
        while left > 0 {
            let (data, at) = arrivals.recv().await.ok_or("no listener is left")?;
            if data.contains(&mark) {
                taken.push(millis(at - begin));
                left -= 1;
            }
        }
    }
    for task in tasks {
        task.abort();
    }
    Ok(taken.into_iter().collect())
}
