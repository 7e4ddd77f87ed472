//! Medians and percentiles.

use std::time::Duration;

/// Values that have been measured, in order.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// The value that this part of all values does not exceed (nearest rank); 0 of nothing.
    pub fn percentile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(0.0)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// `lowest–highest`, with so many decimals.
    pub fn range(&self, decimals: usize) -> String {
        let (low, high) = (self.percentile(0.0), self.percentile(1.0));
        format!("{low:.decimals$}–{high:.decimals$}")
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// In milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sample: Sample = (1..=20).rev().map(f64::from).collect();
        assert_eq!(sample.median(), 10.0);
        assert_eq!(sample.percentile(0.95), 19.0);
        assert_eq!(sample.range(0), "1–20");
        assert_eq!(Sample::default().percentile(0.95), 0.0);
    }
}
