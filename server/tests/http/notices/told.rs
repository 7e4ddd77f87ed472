//! What is written of jobs that come to grief: in their own transaction, and once.

use super::receiver::Receiver;
use super::{channel_when, delivered, notices, own};
use crate::site::Site;
use crate::support::{by, clean_up, create, ended, engine, until, vm_id};
use async_trait::async_trait;
use server::config::Config;
use server::db::{self, Db};
use server::jobs::step::{Cx, StepError};
use server::jobs::world::Machines;
use server::jobs::{Hook, Jobs};
use shared::feed::Noun;
use shared::job::{JobState, step};
use shared::notice::{ChannelKind, NoticeChannel, NoticeEvent};
use shared::{Code, NoticeChannelId};
use sqlx::Row;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Machines do not start; an undo of that fails some times, and so does a deletion.
struct Grief {
    undos: AtomicUsize,
    deletions: AtomicUsize,
}

fn strike(left: &AtomicUsize, what: &str) -> Result<(), StepError> {
    let spend = |n: usize| n.checked_sub(1);
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend) {
        Ok(_) => Err(StepError::new(Code::Internal, what)),
        Err(_) => Ok(()),
    }
}

#[async_trait]
impl Hook for Grief {
    async fn before(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        match step {
            step::STARTING => Err(StepError::new(Code::Internal, "it does not start")),
            step::DELETING => strike(&self.deletions, "it does not go"),
            _ => Ok(()),
        }
    }

    async fn before_undo(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        match step {
            step::STARTING => strike(&self.undos, "it does not stop"),
            _ => Ok(()),
        }
    }
}

async fn engine_in(dir: &std::path::Path) -> Jobs {
    let grief = Grief {
        undos: 2.into(),
        deletions: 2.into(),
    };
    engine(dir, Machines::Simulated, Some(Arc::new(grief))).await
}

/// A channel, written where no server is that would deliver.
async fn channel(db: &Db, name: &str, url: &str, on: &[NoticeEvent]) -> NoticeChannelId {
    let channel = NoticeChannel {
        id: NoticeChannelId(uuid::Uuid::now_v7()),
        name: name.parse().unwrap(),
        kind: ChannelKind::Webhook,
        url: Some(url.to_owned()),
        to: Vec::new(),
        on: on.to_vec(),
        enabled: true,
        last_delivery: None,
        waiting: 0,
        given_up: 0,
        create_time: db::now(),
        generation: 0,
    };
    let id = channel.id;
    let secret = server::access::secret::Secret::for_webhook().unwrap();
    let written = db.write(move |tx| {
        Box::pin(async move { db::notice_channels::insert(tx, &channel, Some(secret.expose())).await })
    });
    written.await.unwrap();
    id
}

/// What was told in a channel, in turn: event and job.
async fn told(db: &Db, channel: NoticeChannelId) -> Vec<(String, String)> {
    sqlx::query("SELECT event, job FROM notices WHERE channel = $1 ORDER BY create_time, id")
        .bind(channel.to_string())
        .fetch_all(db.read())
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get("event"), row.get("job")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_hears_once_of_each_event_that_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine_in(dir.path()).await;
    let db = jobs.world().db.clone();
    let url = "https://hook.example.org/a";
    let all = channel(&db, "all", url, &NoticeEvent::ASKED).await;
    let failures = channel(&db, "failures", url, &[NoticeEvent::JobFailed]).await;

    let failed = jobs.create_vm(create("a", true), by()).await.unwrap().id;
    let job = ended(&jobs, failed).await;
    assert_eq!(job.state, JobState::Failed, "{job:#?}");
    let fine = jobs.create_vm(create("b", false), by()).await.unwrap().id;
    ended(&jobs, fine).await;
    let held = jobs.delete_vm(vm_id(&jobs, "b").await, by()).await.unwrap().id;
    let job = ended(&jobs, held).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");

    let (failed, held) = (failed.to_string(), held.to_string());
    let expected = [
        ("JOB_UNDO_BLOCKED", &failed),
        ("JOB_FAILED", &failed),
        ("JOB_ON_HOLD", &held),
    ];
    let expected: Vec<_> = expected.map(|(e, j)| (e.to_owned(), j.clone())).into();
    assert_eq!(told(&db, all).await, expected);
    assert_eq!(told(&db, failures).await, expected[1..2]);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_its_notice_are_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine_in(dir.path()).await;
    let db = jobs.world().db.clone();
    let mut receiver = Receiver::start([]).await;
    let id = channel(&db, "ops", &receiver.url(), &[NoticeEvent::JobFailed]).await;
    let mut changes = db.subscribe();
    let job = jobs.create_vm(create("a", true), by()).await.unwrap().id;
    // The commit that has the notice has what it tells of.
    loop {
        let batch = changes.recv().await.unwrap();
        let about = |noun, id: String| batch.iter().any(|c| c.noun == noun && c.id == id);
        if about(Noun::NoticeChannel, id.to_string()) {
            assert!(about(Noun::Job, job.to_string()), "{batch:?}");
            assert_eq!(told(&db, id).await.len(), 1);
            break;
        }
    }
    until(&jobs, job, |job| job.state.is_final()).await;
    clean_up(&jobs).await;
    drop((jobs, db));

    // The server that comes next delivers what the engine before only wrote.
    let mut config = Config::simulated(dir.path());
    own(&mut config);
    let site = Site::start_with(dir, config).await;
    let post = receiver.next().await;
    assert_eq!(post.json()["data"]["job"]["id"], job.to_string());
    assert_eq!(
        post.json()["data"]["job"]["error"]["message"],
        "it does not start"
    );
    channel_when(&site, "ops", delivered).await;

    // What has ended a month ago is removed when a server starts.
    let aged = site.running.server.world().db.write(|tx| {
        Box::pin(async move {
            sqlx::query("UPDATE notices SET end_time = end_time - 31 * 86400000000")
                .execute(tx.conn())
                .await
                .map_err(db::sql("let a month pass"))
        })
    });
    aged.await.unwrap();
    assert_eq!(notices(&site, "ops").await.len(), 1);
    let site = site.restart_with(own).await;
    let mut changes = site.running.server.world().db.subscribe();
    while !notices(&site, "ops").await.is_empty() {
        let change = tokio::time::timeout(std::time::Duration::from_secs(30), changes.recv());
        drop(change.await.expect("they are removed in time"));
    }
    assert!(receiver.has_no_more());
}
