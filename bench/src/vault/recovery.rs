//! Instant recovery: how soon the guest of a copy has read its disk from there.

use crate::clone::{create, guest};
use crate::report::{Figure, Limit};
use crate::site::{Site, job_id};
use crate::stats::{Sample, millis};
use crate::{Result, Size};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many copies there are of the machine: the oldest and the newest are tried.
const COPIES: usize = 6;
/// How long a guest may take to read its disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked for.
const ASK: Duration = Duration::from_millis(5);

/// Takes the figure.
pub async fn take(dir: &Path, size: Size) -> Result<Figure> {
    let demo = guest("build.sh").await?;
    let mut config = Config::simulated(dir.join("data"));
    config.sim = false;
    config.images = vec![format!("demo={}", demo.display()).parse()?];
    let site = Site::start(config).await?;
    let taken = recovered(&site, dir, size).await;
    site.close().await?;
    taken
}

async fn recovered(site: &Site, dir: &Path, size: Size) -> Result<Figure> {
    create(site, "source", "demo", 256, json!({})).await?;
    let target = json!({"name": "there", "local": {"path": dir.join("there")}, "passphrase": "a passphrase of the bench"});
    site.post("/api/v1/targets", target).await?;
    let mut copies = Vec::new();
    for _ in 0..COPIES {
        let asked = json!({"target": "there"});
        let job = site
            .job(Method::POST, "/api/v1/vms/source/copyTasks", Some(asked))
            .await?;
        let copy = job["outcome"]["copy"]["copy"]
            .as_str()
            .ok_or("no copy was made")?;
        copies.push(copy.to_owned());
    }
    let (mut oldest, mut newest) = (Vec::new(), Vec::new());
    for n in 0..size.pick(10, 2) {
        oldest.push(once(site, &copies[0], &format!("old-{n}")).await?);
        newest.push(once(site, &copies[COPIES - 1], &format!("new-{n}")).await?);
    }
    let (oldest, newest): (Sample, Sample) = (oldest.into_iter().collect(), newest.into_iter().collect());
    let noise = format!(
        "the oldest of {COPIES} copies, {}; the newest {:.0}, {}",
        oldest.range(0),
        newest.median(),
        newest.range(0)
    );
    Ok(Figure::new(
        "instantRecoveryMs",
        oldest.median().max(newest.median()),
        Limit::AtMost(1000.0),
        noise,
    )
    .aim(200.0))
}

/// From the request until the guest has read its disk, in milliseconds.
async fn once(site: &Site, copy: &str, name: &str) -> Result<f64> {
    let mut feed = site.listen().await?;
    let begin = Instant::now();
    let path = format!("/api/v1/copies/{copy}/restore");
    let asked = json!({"vm": {"name": name, "start": true, "instant": true}});
    let job = site.post(&path, asked).await?;
    let vm = feed.until("vm", |vm| vm["name"] == name).await?;
    let id = vm["id"].as_str().ok_or("a machine without an id")?.to_owned();
    let run = site.running.server.config.data_dir.join("run").join(&id);
    let read = tokio::task::spawn_blocking(move || reads(&run.join("watch")));
    read.await??;
    let taken = millis(begin.elapsed());
    let id = job_id(&job)?.to_owned();
    feed.until("job", |job| job["id"] == id.as_str() && !job["endTime"].is_null())
        .await?;
    crate::clone::stop(site, name).await?;
    site.job(Method::DELETE, &format!("/api/v1/vms/{name}"), None)
        .await?;
    Ok(taken)
}

/// Returns when the machine of this monitor has read its first disk.
pub fn reads(monitor: &Path) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if has_read(monitor).unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(ASK);
    }
    Err("the guest has not read its disk".into())
}

fn has_read(monitor: &Path) -> Result<bool> {
    let devices = ask(monitor, &json!({"execute": "query-blockstats"}))?;
    let read = |device: &Value| device["stats"]["rd_operations"].as_u64().unwrap_or(0) > 0;
    Ok(devices.as_array().is_some_and(|all| all.iter().any(read)))
}

/// What a machine's monitor answers.
pub fn ask(monitor: &Path, command: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    lines.next().ok_or("the monitor is silent")??;
    writeln!(stream, "{}", json!({"execute": "qmp_capabilities"}))?;
    writeln!(stream, "{command}")?;
    for line in lines {
        let answer: Value = serde_json::from_str(&line?)?;
        if let Some(error) = answer.get("error") {
            return Err(format!("{command}: {error}").into());
        }
        match answer.get("return") {
            // Of the first command, which only opens the talk.
            Some(Value::Object(said)) if said.is_empty() => {}
            Some(said) => return Ok(said.clone()),
            // An event.
            None => {}
        }
    }
    Err("the monitor has closed".into())
}
