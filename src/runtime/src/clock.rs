//! What time it is: the wall clock for what people and other servers see, the monotonic one for what must not
//! jump (leases, rates, expiries within a run).

use std::time::Duration;

/// Where the simulated wall clock starts: 2030-01-01T00:00:00Z, far enough that a mix-up with the real one shows.
const SIMULATED_EPOCH_MS: u64 = 1_893_456_000_000;

/// Tells the time.
#[derive(Debug)]
pub struct Clock(Source);

#[derive(Debug)]
enum Source {
    System {
        start: std::time::Instant,
    },
    Simulated {
        start: tokio::time::Instant,
        /// Of the wall clock.
        ahead: Duration,
    },
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the operating system"
    )]
    pub(crate) fn system() -> Self {
        Self(Source::System {
            start: std::time::Instant::now(),
        })
    }

    pub(crate) fn simulated(ahead: Duration) -> Self {
        Self(Source::Simulated {
            start: tokio::time::Instant::now(),
            ahead,
        })
    }

    /// Milliseconds since the Unix epoch, the unit of Matrix's timestamps
    /// ([`origin_server_ts`](https://spec.matrix.org/v1.19/client-server-api/#room-event-format)). May jump, also
    /// backwards: nothing's order may hang on it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the operating system"
    )]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            // A clock set before 1970 reads as 1970.
            Source::System { .. } => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, millis),
            Source::Simulated { start, ahead } => {
                SIMULATED_EPOCH_MS.saturating_add(millis(start.elapsed() + *ahead))
            }
        }
    }

    /// Time since this clock was made; never goes back.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Simulated { start, .. } => start.elapsed(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_simulated_clock_is_tokios() {
        let clock = Clock::simulated(Duration::ZERO);
        let ahead = Clock::simulated(Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now_ms(), SIMULATED_EPOCH_MS + 3_600_000);
        assert_eq!(ahead.now_ms(), SIMULATED_EPOCH_MS + 3_660_000);
        assert_eq!(clock.monotonic(), Duration::from_secs(3_600));
        assert_eq!(ahead.monotonic(), Duration::from_secs(3_600));
    }

    #[test]
    fn the_system_clock_is_of_our_time() {
        let clock = Clock::system();
        assert!(clock.now_ms() > 1_700_000_000_000);
        assert!(clock.monotonic() <= clock.monotonic());
    }
}
