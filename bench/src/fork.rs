//! Instant clones of real guests: how long the source stands still, how soon a clone runs, and what its memory costs.

use crate::clone::{create, guest, stop};
use crate::pause::{Ticks, gaps};
use crate::report::{Figure, Limit};
use crate::site::{Site, job_id, work_dir};
use crate::stats::{Sample, millis};
use crate::{Result, Size};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// 256 MiB, ten ticks a second.
const PLAIN: &str = "plain";
/// 256 MiB, a thousand ticks a second.
const TICKING: &str = "ticking";
/// 1 GiB, a thousand ticks a second.
const BIG: &str = "big";
/// What the big one has written, in MiB.
const TOUCHED: u64 = 700;
/// What is not counted: the first of all finds nothing in memory yet.
const WARM_UP: usize = 3;
/// Between two forks, for the host to come to rest.
const REST: Duration = Duration::from_millis(500);
/// How long is listened to before a fork and behind it.
const MARGIN: Duration = Duration::from_millis(50);

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let demo = guest("build.sh").await?;
    let mut config = Config::simulated(dir.path().join("data"));
    config.sim = false;
    config.images = vec![format!("demo={}", demo.display()).parse()?];
    let site = Site::start(config).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let taken = tokio::select! {
        taken = figures(&site, size) => taken,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    };
    site.close().await?;
    taken
}

async fn figures(site: &Site, size: Size) -> Result<Vec<Figure>> {
    let count = size.pick(20, 2);
    let mut all = pauses(site, count).await?;
    create(site, PLAIN, "demo", 256, json!({})).await?;
    settle(site, PLAIN).await?;

    let (mut first, mut answered, mut identified) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..WARM_UP + count {
        let fork = forked(site, PLAIN, json!({"name": format!("first-{n}")})).await?;
        if n >= WARM_UP {
            first.push(ms(&fork["requestToRunningMicros"])?);
            let clone = &fork["clones"][0];
            answered.push(ms(&clone["answeredMicros"])?);
            identified.push(ms(&clone["identifiedMicros"])? - ms(&clone["runningMicros"])?);
        }
    }
    let (first, answered): (Sample, Sample) = (first.into_iter().collect(), answered.into_iter().collect());
    let identified: Sample = identified.into_iter().collect();
    all.push(Figure::new(
        "firstCloneP50Ms",
        first.median(),
        Limit::AtMost(250.0),
        format!("{count} clones, {}", first.range(0)),
    ));
    all.push(Figure::new(
        "firstAnswerP50Ms",
        answered.median(),
        Limit::None,
        format!("until the guest gave a sign, {}", answered.range(0)),
    ));
    all.push(Figure::new(
        "identityP50Ms",
        identified.median(),
        Limit::AtMost(100.0),
        format!(
            "from its running until its guest has name, time and, last, address of its own, by its hook, {}",
            identified.range(0)
        ),
    ));

    forked(
        site,
        PLAIN,
        json!({"name": "kept", "keepPoint": true, "pointName": "point"}),
    )
    .await?;
    let mut again = Vec::new();
    for n in 0..WARM_UP + count {
        let fork = forked(
            site,
            PLAIN,
            json!({"name": format!("again-{n}"), "forkPoint": "point"}),
        )
        .await?;
        if n >= WARM_UP {
            again.push(ms(&fork["requestToRunningMicros"])?);
        }
    }
    let again: Sample = again.into_iter().collect();
    all.push(Figure::new(
        "forkPointP50Ms",
        again.median(),
        Limit::AtMost(60.0),
        format!("{count} clones of one point, {}", again.range(0)),
    ));

    let mut sixteen = Vec::new();
    for n in 0..size.pick(5, 1) {
        let names: Vec<_> = (0..16).map(|k| format!("many-{n}-{k}")).collect();
        let fork = forked(site, PLAIN, json!({"names": names})).await?;
        let clones = fork["clones"].as_array().ok_or("no clones")?;
        let mut last: f64 = 0.0;
        for clone in clones {
            last = last.max(ms(&clone["runningMicros"])?);
        }
        sixteen.push(last);
    }
    let sixteen: Sample = sixteen.into_iter().collect();
    all.push(Figure::new(
        "sixteenMs",
        sixteen.median(),
        Limit::AtMost(1500.0),
        format!(
            "until the last of 16 ran; median of {}, {}",
            sixteen.len(),
            sixteen.range(0)
        ),
    ));
    all.extend(idle(site).await?);
    all.extend(beside(site, first.median()).await?);
    Ok(all)
}

/// Micros of a figure that a job has, in milliseconds.
pub fn ms(micros: &Value) -> Result<f64> {
    Ok(micros.as_f64().ok_or("a job has not told a figure")? / 1000.0)
}

/// Forks a machine; answers what is known when the clones run, and removes them.
async fn forked(site: &Site, vm: &str, request: Value) -> Result<Value> {
    tokio::time::sleep(REST).await;
    let mut feed = site.listen().await?;
    let asked = site
        .post(&format!("/api/v1/vms/{vm}/instantClones"), request)
        .await?;
    let id = job_id(&asked)?.to_owned();
    let job = feed
        .until("job", |job| {
            let steps = job["steps"].as_array().into_iter().flatten();
            let verifies = steps
                .clone()
                .any(|s| s["name"] == "verifying" && s["state"] != "WAITING");
            job["id"] == id.as_str() && (verifies || !job["endTime"].is_null())
        })
        .await?;
    if !job["error"].is_null() {
        return Err(format!("a fork did not succeed: {job}").into());
    }
    let fork = job["outcome"]["fork"].clone();
    for clone in fork["clones"].as_array().into_iter().flatten() {
        remove(site, clone["name"].as_str().ok_or("a clone without a name")?).await?;
    }
    Ok(fork)
}

async fn remove(site: &Site, vm: &str) -> Result<()> {
    stop(site, vm).await?;
    site.job(Method::DELETE, &format!("/api/v1/vms/{vm}"), None)
        .await?;
    Ok(())
}

fn run_dir(site: &Site, vm: &Value) -> Result<PathBuf> {
    let id = vm["id"].as_str().ok_or("no id")?;
    Ok(site.running.server.world().data_dir.join("run").join(id))
}

async fn settle(site: &Site, vm: &str) -> Result<()> {
    let vm = site.get(&format!("/api/v1/vms/{vm}")).await?;
    let log = run_dir(site, &vm)?.join("serial.log");
    let begin = Instant::now();
    // The log of a guest that has just booted: nothing tells of it but the file.
    while std::fs::read(&log).is_ok_and(|log| log.windows(5).filter(|w| w == b"tick=").count() < 50) {
        if begin.elapsed() > Duration::from_secs(90) {
            return Err("the guest does not count".into());
        }
        tokio::time::sleep(MARGIN).await;
    }
    Ok(())
}

/// The pause of a small and of a large guest, by their own ticks.
async fn pauses(site: &Site, count: usize) -> Result<Vec<Figure>> {
    let small = paused(site, TICKING, 256, 0, count).await?;
    let big = paused(site, BIG, 1024, TOUCHED, count).await?;
    let mut p50 = Figure::new(
        "pauseP50Ms",
        small.ticks.median(),
        Limit::AtMost(15.0),
        format!(
            "{count} forks, {}; noise median {:.1}; by QMP median {:.1}, {}",
            small.ticks.range(1),
            small.noise.median(),
            small.qmp.median(),
            small.qmp.range(1)
        ),
    );
    let mut p95 = Figure::new(
        "pauseP95Ms",
        small.ticks.percentile(0.95),
        Limit::AtMost(40.0),
        format!("noise p95 {:.1}", small.noise.percentile(0.95)),
    );
    for (figure, noise) in [
        (&mut p50, small.noise.median()),
        (&mut p95, small.noise.percentile(0.95)),
    ] {
        if noise >= figure.value / 2.0 {
            figure.void = Some(format!("noise {noise:.1}"));
        }
    }
    Ok(vec![
        p50,
        p95,
        Figure::new(
            "pauseRamRatio",
            big.qmp.median() / small.qmp.median(),
            Limit::AtMost(1.5),
            format!(
                "1 GiB, {TOUCHED} MiB touched: by QMP median {:.1}, {}; by ticks median {:.1}",
                big.qmp.median(),
                big.qmp.range(1),
                big.ticks.median()
            ),
        ),
        Figure::new(
            "firstClone1GiBMs",
            big.first.median(),
            Limit::AtMost(1200.0),
            format!("{count} clones, {}", big.first.range(0)),
        ),
    ])
}

struct Paused {
    ticks: Sample,
    noise: Sample,
    qmp: Sample,
    first: Sample,
}

async fn paused(site: &Site, name: &str, memory_mib: u32, touched: u64, count: usize) -> Result<Paused> {
    create(
        site,
        name,
        "demo",
        memory_mib,
        json!({"metaData": "tick: 1000\n"}),
    )
    .await?;
    let vm = site.get(&format!("/api/v1/vms/{name}")).await?;
    let dir = run_dir(site, &vm)?;
    let mut ticks = Ticks::listen(&dir.join("serial"))?;
    ticks.settle().await?;
    if touched > 0 {
        let begin = Instant::now();
        let path = dir.join("agent");
        tokio::task::spawn_blocking(move || touch(&path, touched)).await??;
        // It writes for a while, and then rests.
        while memory(site, &vm).await? < touched << 20 {
            if begin.elapsed() > Duration::from_secs(120) {
                return Err("the guest does not write its memory".into());
            }
            tokio::time::sleep(REST).await;
        }
        tokio::time::sleep(4 * REST).await;
    }
    let (mut spans, mut qmp, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..WARM_UP + count {
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        tokio::time::sleep(MARGIN).await;
        let fork = frozen(site, name, n).await?;
        tokio::time::sleep(MARGIN).await;
        let end = Instant::now();
        remove(site, &format!("{name}-{n}")).await?;
        if n >= WARM_UP {
            spans.push((begin, end));
            qmp.push(ms(&fork["sourcePauseMicros"])?);
            first.push(ms(&fork["requestToRunningMicros"])?);
        }
    }
    let mut idle = Vec::new();
    for &(from, to) in &spans {
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        tokio::time::sleep(to - from).await;
        idle.push((begin, Instant::now()));
    }
    let arrivals = ticks.all();
    remove(site, name).await?;
    let longest = |spans: &[(Instant, Instant)]| -> Sample {
        let every: Sample = idle.iter().flat_map(|&(a, b)| gaps(&arrivals, a, b)).collect();
        spans
            .iter()
            .map(|&(a, b)| gaps(&arrivals, a, b).into_iter().fold(0.0, f64::max) - every.median())
            .collect()
    };
    Ok(Paused {
        ticks: longest(&spans),
        noise: longest(&idle),
        qmp: qmp.into_iter().collect(),
        first: first.into_iter().collect(),
    })
}

/// Forks a machine and leaves the clone; answers what is known when it runs.
async fn frozen(site: &Site, vm: &str, n: usize) -> Result<Value> {
    let mut feed = site.listen().await?;
    let request = json!({"name": format!("{vm}-{n}")});
    let asked = site
        .post(&format!("/api/v1/vms/{vm}/instantClones"), request)
        .await?;
    let id = job_id(&asked)?.to_owned();
    let job = feed
        .until("job", |job| {
            job["id"] == id.as_str()
                && (!job["outcome"]["fork"]["requestToRunningMicros"].is_null() || !job["endTime"].is_null())
        })
        .await?;
    Ok(job["outcome"]["fork"].clone())
}

/// What a machine's guest has in use, in bytes.
async fn memory(site: &Site, vm: &Value) -> Result<u64> {
    let id = vm["id"].as_str().ok_or("no id")?;
    let family = site.get(&format!("/api/v1/vms/{id}/family")).await?;
    let used = family["members"][0]["memory"]["privateBytes"].as_u64();
    Ok(used.unwrap_or_default())
}

/// Has a guest write so much memory.
fn touch(agent: &std::path::Path, mib: u64) -> Result<()> {
    let mut stream = UnixStream::connect(agent)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let script = format!("scribble {mib} 1");
    let run = json!({"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", script]}});
    writeln!(stream, "{run}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.contains("\"return\"") {
        Ok(())
    } else {
        Err(format!("the guest agent refuses: {answer}").into())
    }
}

/// What an idle clone has written after ten seconds.
async fn idle(site: &Site) -> Result<Vec<Figure>> {
    let source = site.get(&format!("/api/v1/vms/{PLAIN}")).await?;
    let used = memory(site, &source).await? as f64;
    let request = json!({"name": "idle"});
    let job = site
        .job(
            Method::POST,
            &format!("/api/v1/vms/{PLAIN}/instantClones"),
            Some(request),
        )
        .await?;
    let later = &job["outcome"]["fork"]["clones"][0]["memoryLater"];
    let bytes = |key: &str| later[key].as_f64().ok_or("no memory has been measured");
    let (own, process) = (bytes("privateBytes")?, bytes("processPrivateBytes")?);
    remove(site, "idle").await?;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    Ok(vec![
        Figure::new(
            "idlePrivateRatio",
            own / used,
            Limit::AtMost(0.05),
            format!(
                "{:.1} MiB of {:.1} MiB that the source has in use",
                mib(own),
                mib(used)
            ),
        ),
        Figure::new(
            "idleProcessPrivateMib",
            mib(process),
            Limit::None,
            "the whole process",
        ),
    ])
}

/// How long QEMU takes to save a whole machine into its disk, and to go back to that, in milliseconds.
fn save_and_load(monitor: &std::path::Path) -> Result<(f64, f64)> {
    let mut stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    lines.next().ok_or("the monitor is silent")??;
    let mut ask = |command: Value| -> Result<f64> {
        let begin = Instant::now();
        writeln!(stream, "{command}")?;
        for line in lines.by_ref() {
            let answer: Value = serde_json::from_str(&line?)?;
            match (&answer["return"], answer["event"].is_null()) {
                (_, false) => {}
                // What a person's command answers is what went wrong.
                (Value::String(why), true) if !why.is_empty() => return Err(why.clone().into()),
                (Value::Null, true) => return Err(answer.to_string().into()),
                _ => return Ok(millis(begin.elapsed())),
            }
        }
        Err("the monitor is gone".into())
    };
    let line = |line| json!({"execute": "human-monitor-command", "arguments": {"command-line": line}});
    ask(json!({"execute": "qmp_capabilities"}))?;
    Ok((ask(line("savevm bench"))?, ask(line("loadvm bench"))?))
}

/// What people do without instant clones, as multiples of the time until the first clone runs.
async fn beside(site: &Site, first: f64) -> Result<Vec<Figure>> {
    // From power-on until the agent answers.
    let body = json!({"snapshotNow": {}, "target": {"name": "linked", "start": true}});
    let begin = Instant::now();
    let job = site
        .job(
            Method::POST,
            &format!("/api/v1/vms/{PLAIN}/cloneJobs"),
            Some(body),
        )
        .await?;
    let linked = millis(begin.elapsed());
    let boot = job["outcome"]["proof"]["bootMillis"]
        .as_f64()
        .ok_or("no boot was seen")?;
    remove(site, "linked").await?;
    let vm = site.get(&format!("/api/v1/vms/{PLAIN}")).await?;
    let monitor = run_dir(site, &vm)?.join("watch");
    let (save, load) = tokio::task::spawn_blocking(move || save_and_load(&monitor)).await??;
    Ok(vec![
        Figure::new(
            "saveLoadRatio",
            (save + load) / first,
            Limit::None,
            format!(
                "{save:.0} ms for QEMU's savevm, with the guest standing still, and {load:.0} ms for loadvm in the same process"
            ),
        ),
        Figure::new(
            "coldBootRatio",
            boot / first,
            Limit::None,
            format!("{boot:.0} ms from power-on until the guest agent answers"),
        ),
        Figure::new(
            "linkedBootRatio",
            linked / first,
            Limit::None,
            format!("{linked:.0} ms from the request for a linked clone until its agent answers"),
        ),
    ])
}
