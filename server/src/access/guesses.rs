//! A limit on guessing passwords: after a few wrong ones a name waits a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong passwords before a name must wait.
pub const FREE: u32 = 5;
/// Wrong passwords before an address must wait, whatever names it gave: several people may sit behind one.
pub const FREE_OF_ADDRESS: u32 = 50;
/// How long wrong passwords are held against a name.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Most names remembered; a flood of others forgets the oldest.
const NAMES: usize = 4096;

/// Wrong passwords by name.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<HashMap<String, (u32, Instant)>>);

impl Guesses {
    /// Counts an attempt, before its password is looked at, so that many at once gain nothing.
    /// Refused with the time to wait.
    pub fn attempt(&self, name: &str, now: Instant) -> Result<(), Duration> {
        self.attempt_of(name, FREE, now)
    }

    /// The same with another number of wrong ones.
    pub fn attempt_of(&self, name: &str, free: u32, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= NAMES {
            all.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        }
        if all.len() >= NAMES
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, (_, since))| *since)
                .map(|(n, _)| n.clone())
        {
            all.remove(&oldest);
        }
        let (count, since) = all.entry(name.to_owned()).or_insert((0, now));
        let age = now.duration_since(*since);
        if age >= WINDOW {
            (*count, *since) = (0, now);
        }
        if *count >= free {
            return Err(WINDOW.saturating_sub(age));
        }
        *count += 1;
        Ok(())
    }

    /// Forgets a name whose password was right.
    pub fn right(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_waits_after_a_few_and_others_do_not() {
        let (g, now) = (Guesses::default(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(g.attempt("a", now), Ok(()));
        }
        assert_eq!(g.attempt("a", now), Err(WINDOW));
        assert_eq!(g.attempt("b", now), Ok(()));
        assert_eq!(g.attempt("a", now + WINDOW), Ok(()));
    }

    #[test]
    fn a_flood_of_names_does_not_fill_memory() {
        let (g, now) = (Guesses::default(), Instant::now());
        for n in 0..NAMES + 10 {
            _ = g.attempt(&n.to_string(), now);
        }
        assert!(g.0.lock().unwrap().len() <= NAMES);
    }

    #[test]
    fn the_right_password_starts_over() {
        let (g, now) = (Guesses::default(), Instant::now());
        for _ in 0..FREE {
            g.attempt("a", now).unwrap();
        }
        g.right("a");
        assert_eq!(g.attempt("a", now), Ok(()));
    }
}
