//! How long a guest stands still when its disks are frozen: by its own ticks, a thousand a second, as they arrive here.

use crate::report::{Figure, Limit};
use crate::site::Site;
use crate::stats::{Sample, millis};
use crate::{Result, Size, clone};
use reqwest::Method;
use serde_json::json;
use server::db;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const VM: &str = "ticking";
/// Longest pause, in milliseconds.
const LIMIT: f64 = 15.0;
/// How long is listened to before a snapshot and behind it.
const MARGIN: Duration = Duration::from_millis(50);
/// Between two snapshots, for the host to come to rest.
const REST: Duration = Duration::from_millis(500);

/// So many ticks after its start the guest is at rest.
const SETTLED: usize = 5_000;
/// How long a guest may take to get there.
const BOOTS_WITHIN: Duration = Duration::from_secs(90);

/// Takes the figures of the pause.
pub async fn take(site: &Site, size: Size) -> Result<Vec<Figure>> {
    clone::create(site, VM, "demo", 128, json!({"metaData": "tick: 1000\n"})).await?;
    let world = site.running.server.world();
    let vm = db::vms::find(&world.db, VM)
        .await?
        .ok_or("no ticking machine")?
        .id;
    let mut ticks = Ticks::listen(&world.data_dir.join("run").join(vm.to_string()).join("serial"))?;
    ticks.settle().await?;

    let (mut taken, mut spans) = (Vec::new(), Vec::new());
    let mut qmp = Vec::new();
    for _ in 0..size.pick(40, 5) {
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        tokio::time::sleep(MARGIN).await;
        let job = site
            .job(
                Method::POST,
                &format!("/api/v1/vms/{VM}/snapshots"),
                Some(json!({})),
            )
            .await?;
        tokio::time::sleep(MARGIN).await;
        taken.push((begin, Instant::now()));
        spans.push(begin.elapsed());
        let resources = job["resources"].as_array().into_iter().flatten();
        let id = resources
            .filter(|r| r["noun"] == "snapshot")
            .find_map(|r| r["id"].as_str())
            .ok_or("no snapshot")?;
        let snapshot = site.get(&format!("/api/v1/vms/{VM}/snapshots/{id}")).await?;
        qmp.push(snapshot["pauseMicros"].as_f64().ok_or("no pauseMicros")? / 1000.0);
    }
    // The same spans of time with nothing in them: what the host does to the ticks by itself.
    let mut idle = Vec::new();
    for span in spans {
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        tokio::time::sleep(span).await;
        idle.push((begin, Instant::now()));
    }
    clone::stop(site, VM).await?;

    let arrivals = ticks.all();
    let gaps = |spans: &[(Instant, Instant)]| -> Vec<Vec<f64>> {
        spans
            .iter()
            .map(|&(from, to)| gaps(&arrivals, from, to))
            .collect()
    };
    let (busy, idle) = (gaps(&taken), gaps(&idle));
    if busy.iter().chain(&idle).any(|gaps| gaps.len() < 20) {
        return Err("the guest does not tick a thousand times a second".into());
    }
    let every: Sample = idle.iter().flatten().copied().collect();
    let longest = |gaps: &Vec<f64>| gaps.iter().copied().fold(0.0, f64::max) - every.median();
    let (pause, noise): (Sample, Sample) = (
        busy.iter().map(longest).collect(),
        idle.iter().map(longest).collect(),
    );
    let qmp: Sample = qmp.into_iter().collect();
    let noise_p95 = noise.percentile(0.95);
    let mut figure = Figure::new(
        "snapshotPauseP95Ms",
        pause.percentile(0.95),
        Limit::AtMost(LIMIT),
        format!(
            "{} snapshots, median {:.1}, {}; idle tick every {:.2}, noise p95 {noise_p95:.1}",
            pause.len(),
            pause.median(),
            pause.range(1),
            every.median()
        ),
    );
    if noise_p95 >= LIMIT / 3.0 {
        figure.void = Some(format!("noise p95 {noise_p95:.1}, must be under {}", LIMIT / 3.0));
    }
    Ok(vec![
        figure,
        Figure::new(
            "snapshotPauseNoiseP95Ms",
            noise_p95,
            Limit::None,
            format!(
                "{} spans without a snapshot, median {:.1}, {}",
                noise.len(),
                noise.median(),
                noise.range(1)
            ),
        ),
        Figure::new(
            "snapshotPauseQmpP95Ms",
            qmp.percentile(0.95),
            Limit::None,
            format!(
                "`pauseMicros`, by QMP events: median {:.1}, {}",
                qmp.median(),
                qmp.range(1)
            ),
        ),
    ])
}

/// Between ticks that follow each other within a span of time, in milliseconds.
pub fn gaps(arrivals: &[Instant], from: Instant, to: Instant) -> Vec<f64> {
    let within: Vec<_> = arrivals.iter().filter(|at| (from..to).contains(*at)).collect();
    within
        .windows(2)
        .map(|pair| millis(*pair[1] - *pair[0]))
        .collect()
}

/// The ticks of a guest as they arrive, until its machine ends.
pub struct Ticks {
    all: Arc<Mutex<Vec<Instant>>>,
    count: watch::Receiver<usize>,
}

impl Ticks {
    /// Reads them from the serial port's socket, in a thread of its own: nothing else delays them.
    pub fn listen(socket: &Path) -> Result<Self> {
        let serial = BufReader::new(UnixStream::connect(socket)?);
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let ticks = arrivals.clone();
        let (counted, count) = watch::channel(0);
        std::thread::spawn(move || {
            // Lines that are not UTF-8 were torn: they are no ticks.
            for line in serial.split(b'\n').map_while(std::io::Result::ok) {
                if line.starts_with(b"offshoot-guest ") {
                    let now = Instant::now();
                    ticks.lock().unwrap_or_else(PoisonError::into_inner).push(now);
                    counted.send_modify(|n| *n += 1);
                }
            }
        });
        Ok(Self { all: arrivals, count })
    }

    /// Until the guest has booted, and has ticked for some seconds.
    pub async fn settle(&mut self) -> Result<()> {
        let enough = self.count.wait_for(|n| *n >= SETTLED);
        tokio::time::timeout(BOOTS_WITHIN, enough)
            .await
            .map_err(|_| "the guest does not tick")?
            .map_err(|_| "the ticking machine has ended")?;
        Ok(())
    }

    pub fn all(&self) -> Vec<Instant> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
