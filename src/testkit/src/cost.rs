//! What a request asks of the store, for tests of how cost grows: counts, which a busy machine doesn't change.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use comity_storage::engine::Memory;
use tokio::time::Instant;

use crate::Server;

/// How far away the store is while a cost is measured, of a clock that stands still otherwise.
const DISTANCE: Duration = Duration::from_millis(100);

/// What a request asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Calls that had to wait for one another: what it takes on a database server is this many times its distance.
    pub round_trips: u64,
    /// Calls that read.
    pub reads: u64,
    /// Rows asked for, and rows found by scans.
    pub rows_read: u64,
    /// Rows put or deleted.
    pub rows_written: u64,
}

impl Server {
    /// The disk, which can be far away, or fail.
    pub fn disk(&self) -> &Memory {
        &self.disk
    }

    /// What a request costs, and its answer. The test's clock must be paused, and nothing else be asked meanwhile.
    pub async fn cost<T>(&self, request: impl Future<Output = T>) -> (Cost, T) {
        let stats = self.api.rooms.tenant().stats();
        let count = || {
            let counters = [&stats.round_trips, &stats.rows_read, &stats.rows_written];
            counters.map(|counter| counter.load(Relaxed))
        };
        let before = count();
        let began = Instant::now();
        self.disk.set_distance(DISTANCE);
        let answer = request.await;
        self.disk.set_distance(Duration::ZERO);
        let took = began.elapsed();
        let after = count();
        let [reads, rows_read, rows_written] = [0, 1, 2].map(|at| after[at] - before[at]);
        let round_trips = took.as_millis().div_ceil(DISTANCE.as_millis());
        let cost = Cost {
            round_trips: u64::try_from(round_trips).expect("a count"),
            reads,
            rows_read,
            rows_written,
        };
        (cost, answer)
    }
}
