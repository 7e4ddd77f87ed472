//! Policies on a clock that is set by hand: runs, what is missed, windows, retention, and who is told.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use server::db;
use server::inventory::policies as inventory;
use server::jobs::Jobs;
use server::jobs::clock::Clock;
use server::jobs::world::Machines;
use shared::access::rights::Sees;
use shared::api::ListQuery;
use shared::copy::{CopyRun, TaskStatus};
use shared::notice::{ChannelKind, NoticeChannel, NoticeEvent};
use shared::policy::retain::{PreviewRetention, Retention};
use shared::policy::{CreatePolicy, PatchPolicy, Policy, Schedule, VerifyRule, Window};
use shared::vm::Condition;
use shared::{Code, CopyId, NoticeChannelId, Timestamp};
use std::collections::BTreeSet;
use std::path::Path;
use support::{PATIENCE, by, clean_up, copy, create, dir, ended, engine_of, target, until, vm_id};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn engine(dir: &Path, clock: &Clock) -> Jobs {
    engine_of(dir, Machines::Simulated, None, |world| {
        world.clock = clock.clone()
    })
    .await
}

fn policy(cron: Option<&str>, vms: &[&str]) -> CreatePolicy {
    CreatePolicy {
        name: "nightly".parse().unwrap(),
        schedule: cron.map(|cron| Schedule {
            cron: cron.into(),
            time_zone: "UTC".into(),
        }),
        vms: vms.iter().map(|vm| (*vm).to_owned()).collect(),
        label: None,
        targets: vec!["vault".parse().unwrap()],
        retention: Retention::default(),
        memory: false,
        quiesce: false,
        verify: None,
        window: Vec::new(),
        enabled: true,
    }
}

fn window(from: &str, to: &str) -> Vec<Window> {
    vec![Window {
        days: Vec::new(),
        from: from.into(),
        to: to.into(),
        time_zone: "UTC".into(),
    }]
}

async fn machine(jobs: &Jobs, name: &str) {
    let made = jobs.create_vm(create(name, false), by()).await.unwrap();
    ended(jobs, made.id).await;
}

async fn is(jobs: &Jobs) -> Policy {
    inventory::policy(jobs.world(), "nightly").await.unwrap()
}

async fn runs(jobs: &Jobs) -> Vec<CopyRun> {
    let query = ListQuery {
        order_by: Some("time".into()),
        ..ListQuery::default()
    };
    inventory::runs(jobs.world(), &query, &Sees::All)
        .await
        .unwrap()
        .items
}

/// Waits until the runs, oldest first, are as wanted.
async fn runs_when(jobs: &Jobs, wanted: impl Fn(&[CopyRun]) -> bool) -> Vec<CopyRun> {
    let mut changes = jobs.world().db.subscribe();
    let wait = async {
        loop {
            let runs = runs(jobs).await;
            if wanted(&runs) {
                return runs;
            }
            // Lagging behind is no loss: the runs are read again.
            drop(changes.recv().await);
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(runs) => runs,
        Err(_) => panic!("runs are not as wanted: {:#?}", runs(jobs).await),
    }
}

fn statuses(runs: &[CopyRun]) -> Vec<TaskStatus> {
    runs.iter().map(|run| run.status).collect()
}

/// Waits until there are runs that are so.
async fn are(jobs: &Jobs, wanted: &[TaskStatus]) -> Vec<CopyRun> {
    let all_there = |run: &CopyRun| !run.tasks.is_empty();
    runs_when(jobs, |runs| {
        statuses(runs) == wanted && runs.iter().all(all_there)
    })
    .await
}

async fn error(jobs: &Jobs, run: &CopyRun) -> String {
    let job = db::jobs::by_id(&jobs.world().db, run.tasks[0].id).await.unwrap();
    job.unwrap().job.error.unwrap().message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_a_run_with_a_task_for_each_machine_and_target() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T01:59:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "named").await;
    let mut labelled = create("labelled", false);
    labelled.labels.insert("tier".into(), "gold".into());
    let made = jobs.create_vm(labelled, by()).await.unwrap();
    ended(&jobs, made.id).await;
    machine(&jobs, "neither").await;
    target(&jobs, "vault").await;
    target(&jobs, "other").await;
    let mut request = policy(Some("0 2 * * *"), &["named"]);
    request.label = Some("tier=gold".into());
    request.targets.push("other".parse().unwrap());
    request.verify = Some(VerifyRule { boot_every: 2 });
    jobs.create_policy(request).await.unwrap();
    assert_eq!(is(&jobs).await.next_time, Some(at("2030-01-01T02:00:00Z")));
    assert!(runs(&jobs).await.is_empty());

    clock.set(at("2030-01-01T02:00:00Z"));
    let runs = are(&jobs, &[TaskStatus::Success]).await;
    let run = &runs[0];
    assert_eq!(run.time, at("2030-01-01T02:00:00Z"));
    let of: Vec<_> = run
        .tasks
        .iter()
        .map(|task| (task.vm_name.as_str(), task.target_name.as_str()))
        .collect();
    let expected = [
        ("labelled", "vault"),
        ("labelled", "other"),
        ("named", "vault"),
        ("named", "other"),
    ];
    assert_eq!(of, expected);
    let stored: u64 = run.tasks.iter().map(|task| task.stats.stored_bytes).sum();
    let logical: i64 = run
        .tasks
        .iter()
        .map(|task| task.stats.seed.logical_size_bytes.unwrap())
        .sum();
    assert!(logical > 0);
    assert_eq!(run.stats.stored_bytes, stored);
    assert_eq!(run.stats.seed.logical_size_bytes, Some(logical));
    assert_eq!(is(&jobs).await.next_time, Some(at("2030-01-02T02:00:00Z")));
    let boots = "SELECT COUNT(*) FROM jobs WHERE kind = 'BOOT_COPY'";
    let booted: i64 = sqlx::query_scalar(boots)
        .fetch_one(jobs.world().db.read())
        .await
        .unwrap();
    assert_eq!(booted, 0, "every second copy is booted, and this is the first");

    // What is gone is left out, and a target that a policy names stays.
    let gone = jobs
        .delete_vm(vm_id(&jobs, "labelled").await, by())
        .await
        .unwrap();
    ended(&jobs, gone.id).await;
    let refused = jobs.world().copies.detach("other").await;
    let refused = shared::Status::from(refused.unwrap_err());
    assert_eq!(refused.code, Code::FailedPrecondition);
    assert!(refused.message.contains("policy nightly"), "{refused}");
    clock.set(at("2030-01-02T02:00:00Z"));
    let runs = are(&jobs, &[TaskStatus::Success, TaskStatus::Success]).await;
    assert_eq!(runs[1].tasks.len(), 2);
    for task in &runs[1].tasks {
        let job = ended(&jobs, task.id).await;
        let wanted: i64 = sqlx::query_scalar(boots)
            .fetch_one(jobs.world().db.read())
            .await
            .unwrap();
        assert!(wanted > 0, "{job:#?}");
    }

    // A machine that cannot be copied has tasks for all that, and they say why.
    let id = vm_id(&jobs, "named").await;
    let broken = jobs.world().db.write(move |tx| {
        Box::pin(async move {
            let error = shared::Status::new(Code::Internal, "its process is lost");
            db::vms::set_condition(tx, id, Condition::Error { error }).await
        })
    });
    assert!(broken.await.unwrap());
    clock.set(at("2030-01-03T02:00:00Z"));
    let all = [TaskStatus::Success, TaskStatus::Success, TaskStatus::Failure];
    let runs = are(&jobs, &all).await;
    assert_eq!(runs[2].tasks.len(), 2);
    let why = runs[2].tasks[0].error.clone().unwrap();
    assert!(why.contains("named is in error"), "{why}");
    clean_up(&jobs).await;
}

/// A channel that asks for what is told of copies.
async fn channel(jobs: &Jobs) -> NoticeChannelId {
    let channel = NoticeChannel {
        id: NoticeChannelId(uuid::Uuid::now_v7()),
        name: "ops".parse().unwrap(),
        kind: ChannelKind::Webhook,
        url: Some("https://hook.example.org/a".into()),
        to: Vec::new(),
        on: NoticeEvent::ASKED.to_vec(),
        enabled: true,
        last_delivery: None,
        waiting: 0,
        given_up: 0,
        create_time: db::now(),
        generation: 0,
    };
    let id = channel.id;
    let written = jobs.world().db.write(move |tx| {
        Box::pin(async move { db::notice_channels::insert(tx, &channel, Some("whsec_eA==")).await })
    });
    written.await.unwrap();
    id
}

async fn told(jobs: &Jobs) -> Vec<String> {
    sqlx::query_scalar("SELECT event FROM notices ORDER BY create_time, id")
        .fetch_all(jobs.world().db.read())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_downtime_the_newest_is_made_up_for_and_what_was_before_is_missed() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T12:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "web").await;
    target(&jobs, "vault").await;
    channel(&jobs).await;
    jobs.create_policy(policy(Some("0 2 * * *"), &["web"]))
        .await
        .unwrap();
    jobs.stop().await;
    drop(jobs);

    let clock = Clock::stopped(at("2030-01-04T09:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    let runs = are(&jobs, &[TaskStatus::Missed, TaskStatus::Success]).await;
    assert_eq!(runs[0].time, at("2030-01-03T02:00:00Z"));
    assert_eq!(runs[1].time, at("2030-01-04T02:00:00Z"));
    let why = error(&jobs, &runs[0]).await;
    assert!(why.contains("2030-01-03T02:00:00"), "{why}");
    assert!(why.contains("passed while the server was down"), "{why}");
    assert_eq!(told(&jobs).await, ["COPY_MISSED"]);

    // With a window that has closed meanwhile the newest is missed as well.
    let patch = PatchPolicy {
        window: Some(window("02:00", "04:00")),
        ..PatchPolicy::default()
    };
    jobs.update_policy("nightly", patch).await.unwrap();
    jobs.stop().await;
    drop(jobs);
    let clock = Clock::stopped(at("2030-01-05T09:00:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    let all = [TaskStatus::Missed, TaskStatus::Success, TaskStatus::Missed];
    let runs = are(&jobs, &all).await;
    let why = error(&jobs, &runs[2]).await;
    assert!(why.contains("its window has closed"), "{why}");
    assert_eq!(told(&jobs).await, ["COPY_MISSED", "COPY_MISSED"]);
    // What is dealt with once is not again.
    jobs.stop().await;
    drop(jobs);
    let jobs = engine(dir.path(), &clock).await;
    assert_eq!(statuses(&runs_when(&jobs, |_| true).await), all);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_its_window_a_copy_stands_still_and_the_next_is_missed() {
    let dir = dir();
    let clock = Clock::stopped(at("2030-01-01T01:30:00Z"));
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "web").await;
    target(&jobs, "vault").await;
    let mut request = policy(Some("0 * * * *"), &["web"]);
    request.window = window("03:30", "04:00");
    jobs.create_policy(request).await.unwrap();
    clock.set(at("2030-01-01T02:00:00Z"));
    let runs = are(&jobs, &[TaskStatus::OnHold]).await;
    let why = runs[0].tasks[0].hold_reason.clone().unwrap();
    assert!(why.contains("2030-01-01T03:30:00"), "{why}");

    clock.set(at("2030-01-01T03:00:00Z"));
    let runs = are(&jobs, &[TaskStatus::OnHold, TaskStatus::Missed]).await;
    let why = error(&jobs, &runs[1]).await;
    assert!(why.contains("the copy before it was not over"), "{why}");

    clock.set(at("2030-01-01T03:30:00Z"));
    let runs = are(&jobs, &[TaskStatus::Success, TaskStatus::Missed]).await;
    assert_eq!(runs[0].tasks[0].hold_reason, None);
    // It goes on, too, when there is no window any more.
    clock.set(at("2030-01-01T04:10:00Z"));
    let all = [TaskStatus::Success, TaskStatus::Missed, TaskStatus::OnHold];
    let runs = are(&jobs, &all).await;
    assert_eq!(runs[2].time, at("2030-01-01T04:00:00Z"));
    let patch = PatchPolicy {
        window: Some(Vec::new()),
        ..PatchPolicy::default()
    };
    jobs.update_policy("nightly", patch).await.unwrap();
    are(
        &jobs,
        &[TaskStatus::Success, TaskStatus::Missed, TaskStatus::Success],
    )
    .await;
    clean_up(&jobs).await;
}

async fn copies(jobs: &Jobs) -> BTreeSet<CopyId> {
    let all = server::inventory::copies::copies(jobs.world(), &ListQuery::default(), &Sees::All).await;
    all.unwrap().items.iter().map(|copy| copy.id).collect()
}

/// Makes the one copy of a policy now.
async fn run(jobs: &Jobs, policy: &str) -> CopyId {
    let id = jobs.run_policy(policy, by()).await.unwrap();
    let run = inventory::run(jobs.world(), &id.to_string(), &Sees::All)
        .await
        .unwrap();
    let job = ended(jobs, run.tasks[0].id).await;
    job.outcome.copy.as_ref().unwrap().copy
}

async fn kept(jobs: &Jobs, retention: Retention) -> BTreeSet<CopyId> {
    let asked = PreviewRetention {
        retention,
        time_zone: "UTC".into(),
        vms: Vec::new(),
        label: None,
        targets: Vec::new(),
    };
    let preview = inventory::preview(jobs.world(), "nightly", &asked).await.unwrap();
    let kept: BTreeSet<_> = preview
        .groups
        .iter()
        .flat_map(|group| &group.copies)
        .filter(|copy| copy.keep)
        .map(|copy| copy.copy)
        .collect();
    assert_eq!(preview.keep, kept.len() as u64);
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_removes_what_the_preview_says_and_nothing_else() {
    let dir = dir();
    let clock = Clock::stopped(db::now());
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "web").await;
    target(&jobs, "vault").await;
    jobs.create_policy(policy(None, &["web"])).await.unwrap();
    let other = CreatePolicy {
        name: "other".parse().unwrap(),
        ..policy(None, &["web"])
    };
    jobs.create_policy(other).await.unwrap();
    let others = run(&jobs, "other").await;
    let held = run(&jobs, "nightly").await;
    let old = run(&jobs, "nightly").await;
    let by_hand = copy(&jobs, "web", "vault", None).await;
    ended(&jobs, by_hand.id).await;
    let by_hand = CopyId(by_hand.id.0);
    let newest = run(&jobs, "nightly").await;
    let set = jobs
        .world()
        .db
        .write(move |tx| Box::pin(async move { db::copies::set_hold(tx, held, true).await }));
    set.await.unwrap();
    assert_eq!(copies(&jobs).await, [others, held, old, by_hand, newest].into());

    let last = |n| Retention {
        keep_last: Some(n),
        ..Retention::default()
    };
    assert_eq!(
        kept(&jobs, Retention::default()).await,
        [held, old, newest].into()
    );
    let would_be = kept(&jobs, last(1)).await;
    assert_eq!(would_be, [held, newest].into());
    // Switched off it removes nothing, whatever it says.
    let patch = |enabled, n| PatchPolicy {
        enabled: Some(enabled),
        retention: Some(last(n)),
        ..PatchPolicy::default()
    };
    jobs.update_policy("nightly", patch(false, 2)).await.unwrap();
    let more = run(&jobs, "nightly").await;
    assert_eq!(
        copies(&jobs).await,
        [others, held, old, by_hand, newest, more].into()
    );
    jobs.update_policy("nightly", patch(true, 2)).await.unwrap();
    let one_less = kept(&jobs, last(1)).await;
    assert_eq!(one_less, [held, more].into());
    let latest = run(&jobs, "nightly").await;
    let mut expected = one_less;
    expected.insert(latest);
    assert_eq!(kept(&jobs, last(2)).await, expected);
    expected.extend([others, by_hand]);
    assert_eq!(copies(&jobs).await, expected);
    run(&jobs, "nightly").await;
    // However many copies there are in a day, their target is cleaned up once.
    let prunes: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE kind = 'PRUNE_TARGET' AND created_by = 'copies'")
            .fetch_one(jobs.world().db.read())
            .await
            .unwrap();
    assert_eq!(prunes, 1);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_for_an_hour_is_told_once() {
    server::use_ring();
    let dir = dir();
    let clock = Clock::stopped(db::now());
    let jobs = engine(dir.path(), &clock).await;
    machine(&jobs, "web").await;
    let id = target(&jobs, "vault").await.id;
    channel(&jobs).await;
    // From now on it is where nobody answers.
    let moved = jobs.world().db.write(move |tx| {
        Box::pin(async move {
            sqlx::query("UPDATE targets SET place = $2 WHERE id = $1")
                .bind(id.to_string())
                .bind(r#"{"s3": {"endpoint": "http://127.0.0.1:1", "bucket": "none", "accessKeyId": "nobody"}}"#)
                .execute(tx.conn())
                .await
                .map_err(db::sql("move a target"))
        })
    });
    moved.await.unwrap();
    jobs.world().copies.forget(id);
    let task = copy(&jobs, "web", "vault", None).await;
    until(&jobs, task.id, |job| job.hold_reason.is_some()).await;
    let is = db::targets::known(&jobs.world().db, "vault")
        .await
        .unwrap()
        .target;
    let since = is.away_since.unwrap();
    assert_eq!(told(&jobs).await, [""; 0]);

    let mut changes = jobs.world().db.subscribe();
    clock.set(since.plus_micros(3600 * 1_000_000));
    let wait = async {
        while told(&jobs).await.is_empty() {
            drop(changes.recv().await);
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is told");
    clock.set(since.plus_micros(3 * 3600 * 1_000_000));
    jobs.cancel(task.id).await.unwrap();
    ended(&jobs, task.id).await;
    assert_eq!(told(&jobs).await, ["TARGET_AWAY"]);
    let message: String = sqlx::query_scalar("SELECT message FROM notices")
        .fetch_one(jobs.world().db.read())
        .await
        .unwrap();
    let message: serde_json::Value = serde_json::from_str(&message).unwrap();
    assert_eq!(message["data"]["target"]["name"], "vault", "{message}");
    clean_up(&jobs).await;
}
