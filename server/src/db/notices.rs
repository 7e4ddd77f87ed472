//! Notices: written with what they tell of, and kept for a while when they have come to an end.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, sql, time, time_opt, to_json, word, word_opt};
use shared::feed::Noun;
use shared::job::Job;
use shared::notice::{ChannelKind, DeliveryOutcome, Notice, NoticeMessage, NoticeState};
use shared::{NoticeChannelId, NoticeId, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::HashSet;
use uuid::Uuid;

/// What notices may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "createTime",
        column: "notices.create_time",
        by: By::Number,
    },
    Field {
        name: "state",
        column: "notices.state",
        by: By::Exact,
    },
    Field {
        name: "event",
        column: "notices.event",
        by: By::Exact,
    },
    Field {
        name: "job",
        column: "notices.job",
        by: By::Exact,
    },
];

fn read(row: &SqliteRow) -> Result<Notice, DbError> {
    Ok(Notice {
        id: word(row, "id")?,
        channel: word(row, "channel")?,
        event: word(row, "event")?,
        job: word_opt(row, "job")?,
        state: word(row, "state")?,
        attempts: row.get::<i64, _>("attempts") as u32,
        create_time: time(row, "create_time")?,
        next_time: time_opt(row, "next_time")?,
        end_time: time_opt(row, "end_time")?,
        error: row.get("error"),
    })
}

/// A page of what went through a channel.
pub async fn list(db: &Db, channel: NoticeChannelId, mut listing: Listing) -> Result<Page<Notice>, DbError> {
    listing.only("notices.channel", channel);
    let select = "SELECT notices.* FROM notices WHERE 1 = 1";
    listing
        .run(db, select, "FROM notices WHERE 1 = 1", "notices.id", read)
        .await
}

/// Writes down what is to be told of a job, for each channel that asks for it and has not been told.
pub async fn tell(tx: &mut Tx, job: &Job) -> Result<(), DbError> {
    match NoticeMessage::of(job) {
        Some(message) => tell_all(tx, &message).await,
        None => Ok(()),
    }
}

/// Writes down what is to be told, for each channel that asks for it.
pub async fn tell_all(tx: &mut Tx, message: &NoticeMessage) -> Result<(), DbError> {
    let rows = sqlx::query(
        "SELECT id FROM notice_channels
         WHERE enabled = 1 AND EXISTS (SELECT 1 FROM json_each(notice_channels.events) WHERE value = $1)",
    )
    .bind(message.event.word())
    .fetch_all(tx.conn())
    .await
    .map_err(sql("read who is told"))?;
    for row in &rows {
        insert(tx, word(row, "id")?, message).await?;
    }
    Ok(())
}

/// Writes a notice down, to be delivered at once.
pub async fn insert(
    tx: &mut Tx,
    channel: NoticeChannelId,
    message: &NoticeMessage,
) -> Result<Notice, DbError> {
    let notice = Notice {
        id: NoticeId(Uuid::now_v7()),
        channel,
        event: message.event,
        job: message.data.job.as_ref().map(|job| job.id),
        state: NoticeState::Waiting,
        attempts: 0,
        create_time: message.timestamp,
        next_time: Some(message.timestamp),
        end_time: None,
        error: None,
    };
    let done = sqlx::query(
        "INSERT INTO notices (id, channel, event, job, message, state, create_time, next_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (channel, job, event) DO NOTHING",
    )
    .bind(notice.id.to_string())
    .bind(channel.to_string())
    .bind(notice.event.word())
    .bind(notice.job.map(|job| job.to_string()))
    .bind(to_json(message)?)
    .bind(notice.state.word())
    .bind(notice.create_time.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("write a notice"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::NoticeChannel, channel, false);
    }
    Ok(notice)
}

/// A notice that waits, with all that it takes to deliver it.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its id.
    pub id: NoticeId,
    /// Its channel.
    pub channel: NoticeChannelId,
    /// How often it was tried.
    pub attempts: u32,
    /// When it happened.
    pub create_time: Timestamp,
    /// When its turn is.
    pub next_time: Timestamp,
    /// What it says.
    pub message: NoticeMessage,
    /// Where it goes.
    pub to: Destination,
}

/// Where a notice goes.
#[derive(Clone)]
pub enum Destination {
    /// To an address, signed with each of these secrets.
    Webhook {
        /// The address.
        url: String,
        /// The secrets.
        secrets: Vec<String>,
    },
    /// By mail to these.
    Mail(Vec<String>),
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Webhook { .. } => "Webhook { .. }",
            Self::Mail(_) => "Mail(..)",
        })
    }
}

fn read_due(row: &SqliteRow, now: Timestamp) -> Result<Due, DbError> {
    let to = match word(row, "kind")? {
        ChannelKind::Mail => Destination::Mail(json(row, "recipients")?),
        ChannelKind::Webhook => {
            let old: Option<String> = row.get("old_secret");
            let signs = time_opt(row, "old_secret_end")?.is_some_and(|end| now < end);
            let secret: String = row.get("secret");
            Destination::Webhook {
                url: row.get("url"),
                secrets: std::iter::once(secret).chain(old.filter(|_| signs)).collect(),
            }
        }
    };
    Ok(Due {
        id: word(row, "id")?,
        channel: word(row, "channel")?,
        attempts: row.get::<i64, _>("attempts") as u32,
        create_time: time(row, "create_time")?,
        next_time: time(row, "next_time")?,
        message: json(row, "message")?,
        to,
    })
}

/// Of each channel the notice whose turn is next. A test, which a person waits for, comes before all others.
pub async fn next(db: &Db, now: Timestamp) -> Result<Vec<Due>, DbError> {
    let rows = sqlx::query(
        "SELECT notices.*, kind, url, recipients, secret, old_secret, old_secret_end
         FROM notice_channels JOIN notices ON notices.id = (
             SELECT id FROM notices INDEXED BY notices_waiting
             WHERE channel = notice_channels.id AND state = 'WAITING'
             ORDER BY event <> 'TEST', next_time, id LIMIT 1
         )",
    )
    .fetch_all(db.read())
    .await
    .map_err(sql("read the notices that wait"))?;
    rows.iter().map(|row| read_due(row, now)).collect()
}

/// How a delivery went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Went {
    /// The other side has taken it.
    Well,
    /// It has not, for this reason; it is tried again then.
    Again(String, Timestamp),
    /// It has not, for this reason, and was tried for long enough.
    GivenUp(String),
}

/// Writes down how a delivery went. Of a notice that is gone, or no longer waits, there is nothing to write.
pub async fn went(tx: &mut Tx, due: &Due, now: Timestamp, went: Went) -> Result<(), DbError> {
    let (state, outcome, error, again) = match went {
        Went::Well => (NoticeState::Delivered, DeliveryOutcome::Delivered, None, None),
        Went::Again(why, at) => (NoticeState::Waiting, DeliveryOutcome::Failed, Some(why), Some(at)),
        Went::GivenUp(why) => (NoticeState::GivenUp, DeliveryOutcome::Failed, Some(why), None),
    };
    let end = again.is_none().then_some(now.micros());
    let done = sqlx::query(
        "UPDATE notices SET state = $2, attempts = attempts + 1, next_time = $3, end_time = $4, error = $5
         WHERE id = $1 AND state = 'WAITING'",
    )
    .bind(due.id.to_string())
    .bind(state.word())
    .bind(again.map(|at| at.micros()))
    .bind(end)
    .bind(&error)
    .execute(tx.conn())
    .await
    .map_err(sql("write how a notice went"))?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE notice_channels SET last_time = $2, last_outcome = $3, last_error = $4 WHERE id = $1",
    )
    .bind(due.channel.to_string())
    .bind(now.micros())
    .bind(outcome.word())
    .bind(&error)
    .execute(tx.conn())
    .await
    .map_err(sql("write how a channel's last notice went"))?;
    tx.changed(Noun::NoticeChannel, due.channel, false);
    Ok(())
}

/// Gives up what waits in a channel.
pub async fn give_up(
    tx: &mut Tx,
    channel: NoticeChannelId,
    now: Timestamp,
    why: &str,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE notices SET state = 'GIVEN_UP', next_time = NULL, end_time = $2, error = $3
         WHERE channel = $1 AND state = 'WAITING'",
    )
    .bind(channel.to_string())
    .bind(now.micros())
    .bind(why)
    .execute(tx.conn())
    .await
    .map_err(sql("give up what waits in a channel"))?;
    tx.changed(Noun::NoticeChannel, channel, false);
    Ok(())
}

/// Removes what has ended before; answers how much.
pub async fn prune(tx: &mut Tx, before: Timestamp) -> Result<usize, DbError> {
    let rows = sqlx::query("DELETE FROM notices WHERE end_time < $1 RETURNING channel")
        .bind(before.micros())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("remove old notices"))?;
    let channels: HashSet<NoticeChannelId> = rows
        .iter()
        .map(|row| word(row, "channel"))
        .collect::<Result<_, _>>()?;
    for channel in channels {
        tx.changed(Noun::NoticeChannel, channel, false);
    }
    Ok(rows.len())
}
