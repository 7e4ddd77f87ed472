//! When the next tick is due, and which ticks go to the screen.

/// Ticks a second, 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// None for what is not a whole number from 1 to 1000.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse()
            .ok()
            .filter(|rate| (1..=1000).contains(rate))
            .map(Self)
    }

    /// The deadline after `deadline`, in nanoseconds: the next one of the grid that is still to come.
    ///
    /// Deadlines keep to one grid, so ticks do not drift. Those that passed during a stall are dropped, not
    /// made up: a burst of late lines would hide the true distance between them.
    pub fn after(self, deadline: u64, now: u64) -> u64 {
        let period = 1_000_000_000 / self.0;
        let passed = now.saturating_sub(deadline) / period;
        deadline + (passed + 1) * period
    }

    /// At most about ten lines a second: a text screen is slow, and nobody reads a thousand.
    pub fn on_screen(self, tick: u64) -> bool {
        tick.is_multiple_of((self.0 / 10).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn rates_are_whole_numbers_up_to_a_thousand() {
        assert_eq!(Rate::parse("1000"), Some(Rate(1000)));
        for bad in ["", "0", "1001", "-1", "1.5", "10/s"] {
            assert_eq!(Rate::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tick_on_time_is_followed_one_period_later() {
        assert_eq!(Rate(1000).after(5 * MS, 5 * MS + 900_000), 6 * MS);
        assert_eq!(Rate(10).after(0, 0), 100 * MS);
    }

    #[test]
    fn deadlines_missed_in_a_stall_are_dropped_and_the_grid_is_kept() {
        assert_eq!(Rate(1000).after(5 * MS, 12 * MS + 300_000), 13 * MS);
        assert_eq!(Rate(1000).after(5 * MS, 12 * MS), 13 * MS);
    }

    #[test]
    fn the_screen_gets_every_line_at_ten_and_every_hundredth_at_a_thousand() {
        assert!((1..=10).all(|tick| Rate(10).on_screen(tick)));
        assert_eq!((1..=1000).filter(|tick| Rate(1000).on_screen(*tick)).count(), 10);
    }
}
