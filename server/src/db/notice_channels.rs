//! Channels that notices go through.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, sql, time, time_opt, to_json, word, word_opt};
use shared::feed::Noun;
use shared::notice::{Delivery, NoticeChannel};
use shared::{NoticeChannelId, Status, Timestamp};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

const SELECT: &str = "SELECT notice_channels.*, COALESCE(changes.generation, 0) AS generation,
        (SELECT COUNT(*) FROM notices INDEXED BY notices_waiting
            WHERE channel = notice_channels.id AND state = 'WAITING') AS waiting,
        (SELECT COUNT(*) FROM notices WHERE channel = notice_channels.id AND state = 'GIVEN_UP' AND event <> 'TEST')
            AS given_up
    FROM notice_channels
    LEFT JOIN changes ON changes.noun = 'noticeChannel' AND changes.id = notice_channels.id WHERE 1 = 1";

/// What channels may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "notice_channels.name",
        by: By::Text,
    },
    Field {
        name: "kind",
        column: "notice_channels.kind",
        by: By::Exact,
    },
    Field {
        name: "createTime",
        column: "notice_channels.create_time",
        by: By::Number,
    },
];

fn read(row: &SqliteRow) -> Result<NoticeChannel, DbError> {
    let last_delivery = match (time_opt(row, "last_time")?, word_opt(row, "last_outcome")?) {
        (Some(time), Some(outcome)) => Some(Delivery {
            time,
            outcome,
            error: row.get("last_error"),
        }),
        _ => None,
    };
    Ok(NoticeChannel {
        id: word(row, "id")?,
        name: word(row, "name")?,
        kind: word(row, "kind")?,
        url: row.get("url"),
        to: json(row, "recipients")?,
        on: json(row, "events")?,
        enabled: row.get::<i64, _>("enabled") != 0,
        last_delivery,
        waiting: row.get::<i64, _>("waiting") as u64,
        given_up: row.get::<i64, _>("given_up") as u64,
        create_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// A page of channels.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<NoticeChannel>, DbError> {
    listing
        .run(
            db,
            SELECT,
            "FROM notice_channels WHERE 1 = 1",
            "notice_channels.id",
            read,
        )
        .await
}

/// The channel with this name or id.
pub async fn find(conn: &mut SqliteConnection, reference: &str) -> Result<Option<NoticeChannel>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query
        .push(" AND (notice_channels.id = ")
        .push_bind(reference)
        .push(" OR notice_channels.name = ")
        .push_bind(reference)
        .push(")");
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a notice channel"))?;
    row.as_ref().map(read).transpose()
}

/// The channel with this name or id, or NOT_FOUND.
pub async fn known(conn: &mut SqliteConnection, reference: &str) -> Result<NoticeChannel, DbError> {
    Ok(find(conn, reference)
        .await?
        .ok_or_else(|| Status::not_found("notice channel", reference))?)
}

/// Writes a channel down, with its secret if it has one.
pub async fn insert(tx: &mut Tx, channel: &NoticeChannel, secret: Option<&str>) -> Result<(), DbError> {
    let done = sqlx::query(
        "INSERT INTO notice_channels (id, name, kind, url, recipients, events, enabled, secret, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(channel.id.to_string())
    .bind(channel.name.as_str())
    .bind(channel.kind.word())
    .bind(&channel.url)
    .bind(to_json(&channel.to)?)
    .bind(to_json(&channel.on)?)
    .bind(i64::from(channel.enabled))
    .bind(secret)
    .bind(channel.create_time.micros())
    .execute(tx.conn())
    .await;
    super::taken("notice channel", &channel.name, done)?;
    tx.changed(Noun::NoticeChannel, channel.id, false);
    Ok(())
}

/// Changes a channel.
pub async fn update(tx: &mut Tx, channel: &NoticeChannel) -> Result<(), DbError> {
    let done = sqlx::query(
        "UPDATE notice_channels SET name = $2, url = $3, recipients = $4, events = $5, enabled = $6 WHERE id = $1",
    )
    .bind(channel.id.to_string())
    .bind(channel.name.as_str())
    .bind(&channel.url)
    .bind(to_json(&channel.to)?)
    .bind(to_json(&channel.on)?)
    .bind(i64::from(channel.enabled))
    .execute(tx.conn())
    .await;
    super::taken("notice channel", &channel.name, done)?;
    tx.changed(Noun::NoticeChannel, channel.id, false);
    Ok(())
}

/// Gives a channel another secret; the one before signs as well until then.
pub async fn roll(tx: &mut Tx, id: NoticeChannelId, secret: &str, until: Timestamp) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE notice_channels SET old_secret = secret, old_secret_end = $3, secret = $2 WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(secret)
    .bind(until.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("change the secret of a notice channel"))?;
    tx.changed(Noun::NoticeChannel, id, false);
    Ok(())
}

/// Takes a channel off the books, with all that went or was to go through it.
pub async fn delete(tx: &mut Tx, id: NoticeChannelId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM notice_channels WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a notice channel"))?;
    tx.changed(Noun::NoticeChannel, id, true);
    Ok(())
}
