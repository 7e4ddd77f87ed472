//! Who did what, and what was refused: written down, listed, and removed when it is old.

use super::{Access, Result};
use crate::db::list::Listing;
use crate::db::{DbError, Tx, audit as rows, now};
use futures::Stream;
use shared::access::audit::{AuditEvent, ExportFormat};
use shared::api::{AuditPage, ListQuery, MAX_PAGE_SIZE};
use shared::{Name, Status};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most refusals of strangers that are written down in a minute: nobody is to fill the disk from outside.
const STRANGERS: u32 = 600;
const MINUTE: Duration = Duration::from_secs(60);

/// How many strangers were refused in the minute that has begun.
#[derive(Clone, Debug)]
pub struct Strangers(Arc<Mutex<(Instant, u32)>>);

impl Default for Strangers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), 0))))
    }
}

impl Strangers {
    /// Whether one more is written down.
    pub fn one_more(&self, now: Instant) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(minute.0) >= MINUTE {
            if minute.1 > STRANGERS {
                let left_out = minute.1 - STRANGERS;
                tracing::warn!(
                    left_out,
                    "refusals of strangers that are not in the audit, within a minute"
                );
            }
            *minute = (now, 0);
        }
        minute.1 += 1;
        minute.1 <= STRANGERS
    }
}

impl Access {
    /// Writes an event down. It shares a commit with what else is being written.
    pub async fn note(&self, event: AuditEvent) -> Result<()> {
        self.db
            .write(move |tx| Box::pin(async move { rows::insert(tx.conn(), &event).await }))
            .await?;
        Ok(())
    }

    /// A page of events, newest first.
    pub async fn list_audit(&self, query: &ListQuery) -> Result<AuditPage> {
        let listing = Listing::parse(query, rows::FIELDS, "time desc")?;
        let page = rows::list(&self.db, &listing).await?;
        Ok(AuditPage {
            events: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }

    /// Everything that fits the filter, newest first, as text that comes page by page.
    pub fn export_audit(
        &self,
        filter: Option<String>,
        format: ExportFormat,
    ) -> std::result::Result<impl Stream<Item = std::result::Result<String, Status>> + Send + use<>, Status>
    {
        let query = ListQuery {
            page_size: Some(MAX_PAGE_SIZE),
            filter,
            ..ListQuery::default()
        };
        // Refused before anything is sent.
        Listing::parse(&query, rows::FIELDS, "time desc")?;
        let export = Export {
            access: self.clone(),
            query,
            format,
            begun: false,
        };
        Ok(futures::stream::unfold(Some(export), |export| async move {
            let mut export = export?;
            match export.page().await {
                Ok((text, more)) => Some((Ok(text), more.then_some(export))),
                Err(e) => Some((Err(e.into()), None)),
            }
        }))
    }

    /// Removes events that are older.
    pub async fn prune_audit(&self, days: u32) -> Result<()> {
        let before = now().plus_micros(-i64::from(days) * super::DAY);
        let done = self
            .db
            .write(move |tx| Box::pin(async move { rows::prune(tx.conn(), before).await }));
        let removed = done.await?;
        if removed > 0 {
            tracing::info!(removed, days, "old events were removed from the audit");
        }
        Ok(())
    }
}

/// An export on its way.
struct Export {
    access: Access,
    query: ListQuery,
    format: ExportFormat,
    begun: bool,
}

impl Export {
    /// The next part, and whether there is more.
    async fn page(&mut self) -> Result<(String, bool)> {
        let page = self.access.list_audit(&self.query).await?;
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) && self.format == ExportFormat::Csv {
            text = format!("{}\n", AuditEvent::CSV_HEADS);
        }
        for event in &page.events {
            text.push_str(&line(event, self.format)?);
        }
        let more = !page.next_page_token.is_empty();
        self.query.page_token = Some(page.next_page_token);
        Ok((text, more))
    }
}

fn line(event: &AuditEvent, format: ExportFormat) -> std::result::Result<String, DbError> {
    Ok(match format {
        ExportFormat::Jsonl => format!("{}\n", crate::db::to_json(event)?),
        ExportFormat::Csv => format!("{}\n", event.csv()),
    })
}

/// Writes down what was done on the command line, in the same transaction.
pub(super) async fn on_command_line(
    tx: &mut Tx,
    command: &str,
    user: &Name,
) -> std::result::Result<(), DbError> {
    let event = AuditEvent {
        id: 0,
        time: now(),
        user_id: None,
        user: "(command line)".to_owned(),
        address: String::new(),
        method: "RUN".to_owned(),
        route: format!("offshoot {command}"),
        path: format!("offshoot {command} {user}"),
        status: 200,
        result: "OK".to_owned(),
        detail: String::new(),
        request_id: String::new(),
    };
    rows::insert(tx.conn(), &event).await
}

/// Removes old events now, and then every hour, until it is dropped.
pub async fn keep_pruned(access: Access, days: u32) {
    let mut hours = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hours.tick().await;
        if let Err(e) = access.prune_audit(days).await {
            let _: Status = e.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_no_disk() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let written = (0..STRANGERS + 50).filter(|_| strangers.one_more(now)).count();
        assert_eq!(written as u32, STRANGERS);
        assert!(strangers.one_more(now + MINUTE));
    }
}
