//! Brings notices to where they go: of each channel one at a time, of all channels side by side.

use super::{HOUR_MICROS, Notices};
use crate::db::notices::{Destination, Due, Went};
use crate::db::{self, DbError, now};
use shared::feed::Noun;
use shared::notice::{NOTICE_DAYS, NoticeEvent, TRIED_HOURS};
use shared::{NoticeChannelId, Timestamp};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{AbortHandle, JoinSet};

/// First wait before trying again, doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait before trying again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long the other side may take for all of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to leave a database alone that has failed.
const DATABASE_REST: Duration = Duration::from_secs(10);

/// Those that are on their way.
#[derive(Default)]
struct OnTheWay {
    tasks: JoinSet<()>,
    channels: HashMap<NoticeChannelId, AbortHandle>,
}

pub(super) async fn run(notices: Notices) {
    // Subscribed before the first look: what is written in between is heard.
    let mut changes = notices.0.db.subscribe();
    let mut hours = tokio::time::interval(Duration::from_secs(3600));
    let mut way = OnTheWay::default();
    loop {
        let wait = match notices.set_off(&mut way).await {
            Ok(wait) => wait,
            Err(e) => {
                tracing::error!(error = %db::chain(&e), "the notices that wait could not be read");
                Some(DATABASE_REST)
            }
        };
        let turn = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(turn);
        loop {
            tokio::select! {
                () = &mut turn => break,
                Some(ended) = way.tasks.join_next() => {
                    if let Err(e) = ended {
                        tracing::error!(error = %e, "the delivery of a notice panicked");
                    }
                    break;
                }
                heard = changes.recv() => match heard {
                    Ok(batch) if !batch.iter().any(|change| change.noun == Noun::NoticeChannel) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
                _ = hours.tick() => notices.prune().await,
            }
        }
    }
}

impl Notices {
    /// Sends on their way what is due, and answers how long it is until the next is.
    async fn set_off(&self, way: &mut OnTheWay) -> Result<Option<Duration>, DbError> {
        way.channels.retain(|_, task| !task.is_finished());
        let now = now();
        let mut wait: Option<Duration> = None;
        for due in db::notices::next(&self.0.db, now).await? {
            if way.channels.contains_key(&due.channel) {
                // Its channel is looked at again when the one before has ended.
                continue;
            }
            let early = due.next_time.since(now);
            if early > 0 {
                let early = Duration::from_micros(early.unsigned_abs());
                wait = Some(wait.map_or(early, |wait| wait.min(early)));
                continue;
            }
            let channel = due.channel;
            let task = way.tasks.spawn(self.clone().bring(due));
            way.channels.insert(channel, task);
        }
        Ok(wait)
    }

    /// Brings one notice to where it goes, and writes down how that went.
    async fn bring(self, mut due: Due) {
        let job = due.message.data.job.as_ref();
        due.message.data.url = job.map(|job| format!("{}/jobs/{}", self.0.public_url, job.id));
        let sent = tokio::time::timeout(PATIENCE, self.send(&due)).await;
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!(
                "send the notice: no answer within {} s",
                PATIENCE.as_secs()
            )),
        };
        if let Some(why) = &failed {
            let attempts = due.attempts + 1;
            tracing::warn!(notice = %due.id, channel = %due.channel, attempts, error = %why, "a notice was not taken");
        }
        let now = now();
        let went = judge(&due, failed, now, uuid::Uuid::new_v4().as_u64_pair().1);
        let written = self
            .0
            .db
            .write(move |tx| Box::pin(async move { db::notices::went(tx, &due, now, went).await }));
        if let Err(e) = written.await {
            tracing::error!(error = %db::chain(&e), "how a notice went could not be written down: it is sent again");
            tokio::time::sleep(DATABASE_REST).await;
        }
    }

    async fn send(&self, due: &Due) -> Result<(), String> {
        match (&due.to, &self.0.mail) {
            (Destination::Webhook { url, secrets }, _) => {
                let body = serde_json::to_vec(&due.message).map_err(|e| format!("write the notice: {e}"))?;
                let posted = self.0.webhook.post(url, secrets, due.id, now(), body).await;
                posted.map_err(|e| db::chain(&e))
            }
            (Destination::Mail(to), Some(mail)) => {
                let sent = mail.send(to, due.id, &due.message).await;
                sent.map_err(|e| db::chain(&e))
            }
            (Destination::Mail(_), None) => Err(super::mail::MailError::NoServer.to_string()),
        }
    }

    /// Removes what has ended long ago.
    async fn prune(&self) {
        let before = now().plus_micros(-i64::from(NOTICE_DAYS) * 24 * HOUR_MICROS);
        let done = self
            .0
            .db
            .write(move |tx| Box::pin(async move { db::notices::prune(tx, before).await }));
        match done.await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, days = NOTICE_DAYS, "old notices were removed"),
            Err(e) => tracing::error!(error = %db::chain(&e), "old notices could not be removed"),
        }
    }
}

/// What becomes of a notice that was tried. `random` spreads those that failed together.
fn judge(due: &Due, failed: Option<String>, now: Timestamp, random: u64) -> Went {
    let Some(why) = failed else {
        return Went::Well;
    };
    let wait = wait_before(due.attempts, random).as_micros() as i64;
    let again = now.plus_micros(wait);
    let last = due.create_time.plus_micros(i64::from(TRIED_HOURS) * HOUR_MICROS);
    // A person who tries a channel looks how it went, and tries again.
    if due.message.event == NoticeEvent::Test || again > last {
        return Went::GivenUp(why);
    }
    Went::Again(why, again)
}

/// How long to wait after so many failures before the last: half of it at least, and the rest as it falls.
fn wait_before(failures: u32, random: u64) -> Duration {
    let whole = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    let half = whole / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::NoticeId;
    use shared::notice::NoticeMessage;

    fn due(attempts: u32, event: NoticeEvent, create_time: Timestamp) -> Due {
        Due {
            id: NoticeId(uuid::Uuid::now_v7()),
            channel: NoticeChannelId(uuid::Uuid::now_v7()),
            attempts,
            create_time,
            next_time: create_time,
            message: NoticeMessage {
                event,
                ..NoticeMessage::test(create_time)
            },
            to: Destination::Mail(Vec::new()),
        }
    }

    #[test]
    fn waits_grow_to_an_hour_and_differ() {
        let seconds = |n, random| wait_before(n, random).as_secs_f64();
        for (failures, whole) in [(0, 1.0), (1, 2.0), (5, 32.0), (12, 3600.0), (u32::MAX, 3600.0)] {
            assert_eq!(seconds(failures, 0), whole / 2.0);
            let most = seconds(failures, u64::MAX);
            assert!(most > whole * 0.99 && most <= whole, "{failures}: {most}");
        }
    }

    #[test]
    fn a_notice_is_tried_for_a_day_and_a_test_once() {
        let begin = now();
        let why = || Some("no".to_owned());
        let (mut at, mut tries) = (begin, 0);
        while let Went::Again(_, next) =
            judge(&due(tries, NoticeEvent::JobFailed, begin), why(), at, u64::MAX)
        {
            assert!(next > at);
            (at, tries) = (next, tries + 1);
        }
        let hours = at.since(begin) / HOUR_MICROS;
        assert!((22..=24).contains(&hours), "given up after {hours} h");
        assert!((20..60).contains(&tries), "{tries} tries");
        let test = due(0, NoticeEvent::Test, begin);
        assert_eq!(judge(&test, why(), begin, 0), Went::GivenUp("no".to_owned()));
        assert_eq!(judge(&test, None, begin, 0), Went::Well);
    }
}
