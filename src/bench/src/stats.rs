//! Order statistics: what a run's many numbers become.

use std::time::Duration;

/// A sample of latencies.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds one.
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// Adds all of another sample.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The `q`-quantile (0 to 1, nearest rank) in milliseconds; 0 for an empty sample.
    #[must_use]
    pub fn quantile_ms(&mut self, q: f64) -> f64 {
        self.0.sort_unstable();
        nearest_rank(&self.0, q).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// The element at the nearest rank of `q` in an ascending slice.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn nearest_rank<T: Copy>(ascending: &[T], q: f64) -> Option<T> {
    let rank = (q * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

/// Median, least and greatest of repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median (of an even count the lower one, so that it was measured).
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` when there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut ascending = values.to_vec();
        ascending.sort_by(f64::total_cmp);
        Some(Self {
            median: nearest_rank(&ascending, 0.5)?,
            min: *ascending.first()?,
            max: *ascending.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let mut sample = Latencies::default();
        for ms in (1..=100).rev() {
            sample.push(Duration::from_millis(ms));
        }
        assert_eq!(sample.quantile_ms(0.5), 50.0);
        assert_eq!(sample.quantile_ms(0.99), 99.0);
        assert_eq!(sample.quantile_ms(1.0), 100.0);
        assert_eq!(Latencies::default().quantile_ms(0.5), 0.0);
    }

    #[test]
    fn spread_of_an_even_count_is_a_measured_value() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(
            spread,
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 4.0
            })
        );
        assert_eq!(Spread::of(&[]), None);
    }
}
