//! Sign-ins that have been begun. A restart forgets them.

use crate::access::secret::{NoRandom, Secret, hash};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long there is to sign in at the provider, in seconds.
pub const ATTEMPT_SECONDS: u32 = 600;
/// Most that are remembered; a flood of others forgets the oldest.
const ATTEMPTS: usize = 4096;

/// A sign-in that has been begun.
#[derive(Debug)]
pub struct Attempt {
    /// The hash of what the browser's cookie holds.
    browser: String,
    /// What the ID token must repeat.
    pub nonce: Secret,
    /// What proves to the provider that the code was given to this server.
    pub verifier: Secret,
    /// Where the person wanted to go.
    pub next: String,
    since: Instant,
}

/// All of them, by the hash of their state.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, Attempt>>);

impl Attempts {
    /// Begins one in the browser whose cookie holds this; answers its state and what the provider is told.
    pub fn begin(&self, browser: &str, next: &str, now: Instant) -> Result<Told, NoRandom> {
        let (state, nonce, verifier) = (Secret::new("")?, Secret::new("")?, Secret::new("")?);
        let told = Told {
            state: state.clone(),
            nonce: nonce.clone(),
            verifier: verifier.clone(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ATTEMPTS {
            all.retain(|_, attempt| attempt.lives(now));
        }
        if all.len() >= ATTEMPTS
            && let Some(oldest) = all.iter().min_by_key(|(_, a)| a.since).map(|(s, _)| s.clone())
        {
            all.remove(&oldest);
        }
        let attempt = Attempt {
            browser: hash(browser),
            nonce,
            verifier,
            next: next.to_owned(),
            since: now,
        };
        all.insert(state.hash(), attempt);
        Ok(told)
    }

    /// The one with this state, once, if it was begun in this browser and is not too old.
    pub fn take(&self, state: &str, browser: &str, now: Instant) -> Option<Attempt> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = hash(state);
        let attempt = all.get(&state)?;
        if attempt.browser != hash(browser) || !attempt.lives(now) {
            return None;
        }
        all.remove(&state)
    }
}

impl Attempt {
    fn lives(&self, now: Instant) -> bool {
        now.duration_since(self.since) < Duration::from_secs(ATTEMPT_SECONDS.into())
    }
}

/// What a provider is told of a sign-in.
pub struct Told {
    /// What it sends back with the browser.
    pub state: Secret,
    /// What its ID token repeats.
    pub nonce: Secret,
    /// What it is told the hash of.
    pub verifier: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_ended_once_in_its_own_browser_and_in_time() {
        let (all, now) = (Attempts::default(), Instant::now());
        let state = || {
            let told = all.begin("mine", "/vms", now).unwrap();
            told.state.expose().to_owned()
        };
        let (one, two) = (state(), state());
        assert!(all.take(&one, "another's", now).is_none());
        assert!(all.take(&one, "", now).is_none());
        assert_eq!(all.take(&one, "mine", now).unwrap().next, "/vms");
        assert!(all.take(&one, "mine", now).is_none());
        let late = now + Duration::from_secs(ATTEMPT_SECONDS.into());
        assert!(all.take(&two, "mine", late).is_none());
    }

    #[test]
    fn a_flood_does_not_fill_memory() {
        let (all, now) = (Attempts::default(), Instant::now());
        for _ in 0..ATTEMPTS + 10 {
            all.begin("b", "/", now).unwrap();
        }
        assert_eq!(all.0.lock().unwrap().len(), ATTEMPTS);
    }
}
