//! One suite over all engines: what `data-model.md` promises of commits, reads, logs and debts.
//!
//! Each case runs on the memory engine with one lane and with four, and with four on the others
//! (architecture.md, Storage). PostgreSQL is found through `COMITY_TEST_POSTGRES_URL`; without it
//! those tests say so and pass, except in CI, where they fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod bed;

/// A test of each case on each engine and number of lanes.
macro_rules! conformance {
    ($($case:ident)+) => {$(
        mod $case {
            use crate::bed::{Bed, Kind};
            conformance!(@ $case memory_1 Memory 1);
            conformance!(@ $case memory_4 Memory 4);
            conformance!(@ $case rocks_4 Rocks 4);
            conformance!(@ $case postgres_4 Postgres 4);
        }
    )+};
    (@ $case:ident $test:ident $kind:ident $lanes:literal) => {
        #[tokio::test]
        async fn $test() {
            if let Some(bed) = Bed::new(Kind::$kind, $lanes).await {
                super::$case(bed).await;
            }
        }
    };
}

mod checked;
mod commits;
mod faults;
mod incarnations;
mod logs;
mod lost_connections;
mod model;
mod published;
mod reads;
mod wal;
