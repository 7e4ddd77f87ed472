//! Tells people of targets that have been away for long, once each time.

use super::{Jobs, changed};
use crate::db::{self, DbError};
use shared::Timestamp;
use shared::feed::Noun;
use shared::notice::AWAY_HOURS;

/// After how long it is told, in microseconds.
const AWAY_MICROS: i64 = AWAY_HOURS as i64 * 3600 * 1_000_000;
/// How long after the database has failed it is asked again, in microseconds.
const AGAIN_MICROS: i64 = 60 * 1_000_000;

/// Looks at the targets: at the start, when one has changed, and when one has been away for long.
pub(super) async fn run(jobs: Jobs) {
    let clock = jobs.world().clock.clone();
    let mut changes = jobs.world().db.subscribe();
    loop {
        let looked = tokio::select! {
            looked = look(&jobs) => looked,
            () = jobs.inner.stop.cancelled() => return,
        };
        let next = looked.unwrap_or_else(|e| {
            tracing::error!(error = %db::chain(&e), "look for targets that are away");
            Some(clock.now().plus_micros(AGAIN_MICROS))
        });
        tokio::select! {
            () = clock.until_some(next) => {}
            () = changed(&mut changes, Noun::Target) => {}
            () = jobs.inner.stop.cancelled() => return,
        }
    }
}

/// Tells of those that have been away for long; answers when there is the next.
async fn look(jobs: &Jobs) -> Result<Option<Timestamp>, DbError> {
    let world = jobs.world();
    let now = world.clock.now();
    let mut next: Option<Timestamp> = None;
    for target in db::targets::away_untold(&world.db).await? {
        let Some(since) = target.away_since else { continue };
        let due = since.plus_micros(AWAY_MICROS);
        if due > now {
            next = Some(next.map_or(due, |next| next.min(due)));
            continue;
        }
        // It may be back, and nobody has asked it since: opening it notes that.
        if let Err(e) = world.copies.open(target.id).await {
            tracing::info!(target = %target.id, error = %db::chain(&e), "{} is away still", target.name);
        }
        let id = target.id;
        let told = world
            .db
            .write(move |tx| Box::pin(async move { db::targets::tell_away(tx, id, since, now).await }));
        told.await?;
    }
    Ok(next)
}
