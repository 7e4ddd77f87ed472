//! The clock on the wall, by which policies and windows go.

use crate::db::now;
use shared::Timestamp;
use std::time::Duration;
use tokio::sync::watch;

/// After how long a wait looks at the clock anew: it may have been set, or the host may have slept.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What time it is.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// In tests: what it shows.
    shows: Option<watch::Sender<Timestamp>>,
}

impl Clock {
    /// A clock that stands still until it is set.
    pub fn stopped(at: Timestamp) -> Self {
        Self {
            shows: Some(watch::Sender::new(at)),
        }
    }

    /// Sets a clock that stands still; of one that goes it does nothing.
    pub fn set(&self, to: Timestamp) {
        if let Some(shows) = &self.shows {
            shows.send_replace(to);
        }
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        match &self.shows {
            Some(shows) => *shows.borrow(),
            None => now(),
        }
    }

    /// Waits until it shows this or a later moment.
    pub async fn until(&self, time: Timestamp) {
        if let Some(shows) = &self.shows {
            // The sender lives as long as this clock.
            _ = shows.subscribe().wait_for(|now| *now >= time).await;
            return;
        }
        loop {
            let left = u64::try_from(time.since(self.now())).unwrap_or(0);
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_micros(left).min(LOOK_AGAIN)).await;
        }
    }

    /// As [`until`](Self::until), but for ever where there is no moment; or until the clock has been set back since it was `seen`.
    pub(super) async fn until_or_set_back(&self, time: Option<Timestamp>, mut seen: Timestamp) {
        if let Some(shows) = &self.shows {
            let over = |now: &Timestamp| *now < seen || time.is_some_and(|time| *now >= time);
            // The sender lives as long as this clock.
            _ = shows.subscribe().wait_for(over).await;
            return;
        }
        loop {
            let now = self.now();
            if now < seen || time.is_some_and(|time| now >= time) {
                return;
            }
            seen = now;
            let left = time.and_then(|time| u64::try_from(time.since(now)).ok());
            tokio::time::sleep(left.map_or(LOOK_AGAIN, Duration::from_micros).min(LOOK_AGAIN)).await;
        }
    }

    /// As [`until`](Self::until); for ever where there is no moment.
    pub(super) async fn until_some(&self, time: Option<Timestamp>) {
        match time {
            Some(time) => self.until(time).await,
            None => std::future::pending().await,
        }
    }
}
