//! A limit to how many bytes go to a store and come from it in a second.

use super::{Listed, Objects, Put};
use crate::error::StoreError;
use crate::filling::lock;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How much is small: it is counted, and waits for nothing. Otherwise signs of life would be late behind packs.
const SMALL: u64 = 64 << 10;

/// A rate that is changed while it is kept to. Clones are the same rate.
#[derive(Clone, Debug)]
pub struct Rate(Arc<watch::Sender<u64>>);

impl Rate {
    /// In bytes per second; 0 is none.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(watch::Sender::new(bytes)))
    }

    /// In bytes per second; 0 is none.
    #[must_use]
    pub fn get(&self) -> u64 {
        *self.0.borrow()
    }

    /// Changes it, also for who waits already.
    pub fn set(&self, bytes: u64) {
        self.0.send_replace(bytes);
    }
}

/// A store that keeps to a rate, both ways together.
///
/// An object goes at once and the next one waits for it, so that within any longer time the rate is kept, to one object.
pub struct Throttled {
    objects: Arc<dyn Objects>,
    rate: Rate,
    owed: Mutex<Owed>,
    /// Who waits does so one after the other.
    turn: tokio::sync::Mutex<()>,
}

/// Bytes that went before their time.
struct Owed {
    bytes: f64,
    at: Instant,
    /// At which rate they are made up for, since then.
    rate: u64,
}

impl Owed {
    /// What is still owed now, by a rate that holds from now on.
    fn now(&mut self, rate: u64) -> f64 {
        let now = Instant::now();
        let made_up = now.duration_since(self.at).as_secs_f64() * self.rate as f64;
        self.bytes = match rate {
            0 => 0.0,
            _ => (self.bytes - made_up).max(0.0),
        };
        (self.at, self.rate) = (now, rate);
        self.bytes
    }
}

impl Throttled {
    /// Keeps to this rate, and to what it is changed to.
    #[must_use]
    pub fn new(objects: Arc<dyn Objects>, rate: Rate) -> Self {
        let owed = Owed {
            bytes: 0.0,
            at: Instant::now(),
            rate: rate.get(),
        };
        Self {
            objects,
            rate,
            owed: Mutex::new(owed),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn owe(&self, bytes: u64) {
        let (mut owed, rate) = (lock(&self.owed), self.rate.get());
        owed.now(rate);
        // What goes without a rate is not made up for when there is one.
        owed.bytes += if rate == 0 { 0.0 } else { bytes as f64 };
    }

    /// Waits until so many bytes may go, and takes them for gone.
    async fn go(&self, bytes: u64) {
        if bytes <= SMALL {
            return self.owe(bytes);
        }
        let _turn = self.turn.lock().await;
        let mut rates = self.rate.0.subscribe();
        loop {
            let rate = *rates.borrow_and_update();
            let owed = lock(&self.owed).now(rate);
            if owed < 1.0 {
                return self.owe(bytes);
            }
            let left = Duration::from_secs_f64((owed / rate as f64).min(1e6));
            // Answers an error only when nobody is left to change it, and this is one who could.
            _ = tokio::time::timeout(left, rates.changed()).await;
        }
    }
}

#[async_trait]
impl Objects for Throttled {
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> Result<(), StoreError> {
        self.go(pieces.iter().map(|piece| piece.len() as u64).sum()).await;
        self.objects.put(name, pieces, put).await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        match range {
            Some(range) => {
                self.go(range.end.saturating_sub(range.start)).await;
                self.objects.get(name, Some(range)).await
            }
            // How much it is shows when it is here; then the next one waits.
            None => {
                let got = self.objects.get(name, None).await?;
                self.go(got.len() as u64).await;
                Ok(got)
            }
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.objects.list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.objects.delete(name).await
    }
}
