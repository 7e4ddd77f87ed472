//! Clone jobs per second on the simulation, with a history; beside a bare loop of the same transactions.

use crate::report::{Figure, Limit};
use crate::site::{log_to, work_dir};
use crate::stats::Sample;
use crate::{Result, Size};
use futures::{StreamExt, TryStreamExt, stream};
use server::config::Config;
use server::db::{self, Db, jobs::Stored};
use server::jobs::queue::Limits;
use server::jobs::world::Machines;
use server::jobs::{By, Jobs, World};
use shared::clone::{CloneMode, CloneTarget, CloneVm};
use shared::feed::Noun;
use shared::job::{Job, JobState, ResourceRole};
use shared::snapshot::TakeSnapshot;
use shared::vm::{CreateVm, DiskOfImage, Firmware, NewDisk};
use shared::{JobId, VmId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Machines that are cloned.
const SOURCES: usize = 32;
/// Requests under way at once.
const ASKING: usize = 32;
/// A job in this many is looked at closely, for what the feed shows of one.
const LOOKED_AT: usize = 20;

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    log_to(&dir.path().join("log"))?;
    let config = Config::simulated(dir.path());
    let db = Db::open(&config.database()).await?;
    let world = World::open(dir.path(), db, Machines::Simulated, Path::new("offshoot")).await?;
    let image = dir.path().join("image");
    // What the simulation takes for an image: its size, and what it occupies.
    std::fs::write(&image, "1073741824 196608\n")?;
    world.register_image(&"image".parse()?, &image).await?;
    let limits = Limits {
        per_host: config.jobs_per_host as usize,
        per_vm: config.jobs_per_vm as usize,
    };
    let jobs = Jobs::start(world, limits, None).await?;

    let sources = sources(&jobs).await?;
    let shown = shown(&jobs, sources[0]).await?;
    fill(&jobs, sources[0], size.pick(100_000, 1_000)).await?;
    let count = size.pick(3_000, 500);
    let mut rates = Vec::new();
    for _ in 0..size.pick(5, 2) {
        rates.push(rate(&jobs, &sources, count).await?);
    }
    jobs.stop().await;
    drop(jobs);

    let mut bare = Vec::new();
    for _ in 0..size.pick(5, 2) {
        bare.push(bare_rate(&config.database(), &shown, count).await?);
    }
    let (rates, bare): (Sample, Sample) = (rates.into_iter().collect(), bare.into_iter().collect());
    let runs = format!("median of {} × {count} jobs", rates.len());
    Ok(vec![
        Figure::new(
            "jobsPerSecond",
            rates.median(),
            Limit::AtLeast(300.0),
            format!("{runs}, {}", rates.range(0)),
        ),
        Figure::new(
            "sqliteRatio",
            rates.median() / bare.median(),
            Limit::AtLeast(0.4),
            format!(
                "bare: {} state changes a job, {} jobs/s",
                shown.len(),
                bare.range(0)
            ),
        ),
        Figure::new("bareJobsPerSecond", bare.median(), Limit::None, runs),
        Figure::new(
            "changesPerJob",
            shown.len() as f64,
            Limit::None,
            "state changes of a clone job that the feed shows",
        ),
    ])
}

fn by() -> By {
    By("bench".into())
}

fn request() -> CloneVm {
    CloneVm {
        clone_job_id: None,
        snapshot: None,
        snapshot_now: None,
        mode: CloneMode::Linked,
        target: Some(CloneTarget {
            start: true,
            boot_timeout_seconds: shared::clone::DEFAULT_BOOT_TIMEOUT_SECONDS,
            ..CloneTarget::default()
        }),
        disks_only: None,
        request_id: None,
    }
}

/// Machines that run, each with a snapshot.
async fn sources(jobs: &Jobs) -> Result<Vec<VmId>> {
    let mut sources = Vec::new();
    for n in 0..SOURCES {
        let name: shared::Name = format!("source-{n}").parse()?;
        let request = CreateVm {
            name: name.clone(),
            cpus: 1,
            memory_mib: 128,
            firmware: Firmware::Bios,
            disks: vec![NewDisk::Image(DiskOfImage {
                image: "image".into(),
                size_gib: None,
            })],
            network_interfaces: None,
            labels: Default::default(),
            cloud_init: None,
            start: true,
            description: String::new(),
            autostart: None,
            storage: None,
            request_id: None,
        };
        ended(jobs, jobs.create_vm(request, by()).await?.id).await?;
        let vm = db::vms::find(&jobs.world().db, name.as_str())
            .await?
            .ok_or("no source")?
            .id;
        ended(jobs, jobs.snapshot(vm, TakeSnapshot::default(), by()).await?.id).await?;
        sources.push(vm);
    }
    Ok(sources)
}

async fn ended(jobs: &Jobs, id: JobId) -> Result<Stored> {
    let db = &jobs.world().db;
    let mut changes = db.subscribe();
    loop {
        let stored = db::jobs::by_id(db, id).await?.ok_or("the job is gone")?;
        match stored.job.state {
            JobState::Succeeded => return Ok(stored),
            state if state.is_final() => return Err(format!("{:?}", stored.job).into()),
            // Lagging behind is no loss: the job is read again.
            _ => drop(changes.recv().await),
        }
    }
}

/// What the feed shows of one clone job: every change that is committed, those of one thing in one transaction once.
/// Each with the row as it is then.
async fn shown(jobs: &Jobs, source: VmId) -> Result<Vec<(Noun, String)>> {
    let db = &jobs.world().db;
    let mut longest = Vec::new();
    for _ in 0..LOOKED_AT {
        let mut changes = db.subscribe();
        let job = jobs.clone_vm(source, request(), by()).await?.id;
        let (mut shown, mut over) = (Vec::new(), false);
        while !over {
            let batch = changes.recv().await?;
            let mut seen = HashSet::new();
            for change in batch.iter().filter(|c| seen.insert((c.noun, &c.id))) {
                let row = match change.noun {
                    Noun::Job => {
                        let stored = db::jobs::by_id(db, job).await?.ok_or("the job is gone")?;
                        over |= stored.job.state.is_final();
                        format!("{}{}", serde_json::to_string(&stored.job)?, stored.data)
                    }
                    _ => {
                        let vm = db::vms::by_id(db, change.id.parse()?)
                            .await?
                            .ok_or("the VM is gone")?;
                        serde_json::to_string(&vm)?
                    }
                };
                shown.push((change.noun, row));
            }
        }
        // Where two commits came as one, a job shows fewer.
        if shown.len() > longest.len() {
            longest = shown;
        }
    }
    Ok(longest)
}

/// Gives the server a past: jobs as they are, many times over, each with ids and times of its own.
async fn fill(jobs: &Jobs, source: VmId, count: usize) -> Result<()> {
    let db = &jobs.world().db;
    let stored = ended(jobs, jobs.clone_vm(source, request(), by()).await?.id).await?;
    let (log, ..) = db::jobs::read_log(db, stored.job.id, 0, 1000).await?;
    for first in (0..count).step_by(1000) {
        let (stored, log) = (stored.clone(), log.clone());
        db.write(move |tx| {
            Box::pin(async move {
                for n in first..(first + 1000).min(count) {
                    let job = past(&stored.job, n);
                    let begun = Job {
                        state: JobState::Queued,
                        end_time: None,
                        ..job.clone()
                    };
                    db::jobs::insert(tx, &begun, None).await?;
                    db::jobs::save(tx, &job, &stored.data).await?;
                    db::jobs::log(tx, job.id, &log).await?;
                }
                Ok(())
            })
        })
        .await?;
    }
    Ok(())
}

/// The job as if it had run `n` minutes before, for another product.
fn past(job: &Job, n: usize) -> Job {
    let ago = |t: shared::Timestamp| t.plus_micros(-60_000_000 * (n as i64 + 1));
    let mut job = job.clone();
    let millis = ago(job.create_time).micros() as u64 / 1000;
    let [random @ .., _, _, _, _, _, _] = Uuid::new_v4().into_bytes();
    job.id = JobId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid());
    job.create_time = ago(job.create_time);
    job.state_time = ago(job.state_time);
    (job.start_time, job.end_time) = (job.start_time.map(ago), job.end_time.map(ago));
    for step in &mut job.steps {
        (step.start_time, step.end_time) = (step.start_time.map(ago), step.end_time.map(ago));
    }
    for product in job
        .resources
        .iter_mut()
        .filter(|r| r.role == ResourceRole::Product)
    {
        product.id = Uuid::now_v7().to_string();
    }
    job
}

/// Jobs per second, from the first request until the last job has succeeded.
async fn rate(jobs: &Jobs, sources: &[VmId], count: usize) -> Result<f64> {
    let begin = Instant::now();
    let asked: Vec<JobId> = stream::iter(0..count)
        .map(|n| async move {
            jobs.clone_vm(sources[n % sources.len()], request(), by())
                .await
                .map(|job| job.id)
        })
        .buffer_unordered(ASKING)
        .try_collect()
        .await?;
    let db = &jobs.world().db;
    let mut look = tokio::time::interval(Duration::from_millis(5));
    while db::jobs::counts(db, db::now(), &shared::access::rights::Sees::All)
        .await?
        .0
        > 0
    {
        look.tick().await;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    for id in asked {
        ended(jobs, id).await?;
    }
    Ok(rate)
}

/// Jobs per second of a loop that does nothing but one transaction for each change that the feed shows of a job: the
/// row, and its generation. In the same file, with the same history in it.
async fn bare_rate(file: &Path, shown: &[(Noun, String)], count: usize) -> Result<f64> {
    let mut conn = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS bare (noun TEXT, id TEXT, row TEXT, PRIMARY KEY (noun, id))")
        .execute(&mut conn)
        .await?;
    let mut generation: i64 = sqlx::query_scalar("SELECT MAX(generation) FROM changes")
        .fetch_one(&mut conn)
        .await?;
    let begin = Instant::now();
    for _ in 0..count {
        let id = Uuid::now_v7().to_string();
        for (noun, row) in shown {
            generation += 1;
            sqlx::query(
                "BEGIN IMMEDIATE;
                 INSERT INTO bare (noun, id, row) VALUES ($1, $2, $3)
                     ON CONFLICT (noun, id) DO UPDATE SET row = excluded.row;
                 INSERT INTO changes (noun, id, generation, deleted) VALUES ($1, $2, $4, 0)
                     ON CONFLICT (noun, id) DO UPDATE SET generation = excluded.generation;
                 COMMIT",
            )
            .bind(noun.word())
            .bind(&id)
            .bind(row)
            .bind(generation)
            .execute(&mut conn)
            .await?;
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    let written: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM bare")
        .fetch_one(&mut conn)
        .await?;
    conn.close().await?;
    if written == 0 {
        return Err("the bare loop has written nothing".into());
    }
    Ok(rate)
}
