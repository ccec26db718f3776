//! The ordered key-value store under Comity.
//!
//! Everything the server keeps is a row: a key in one of a few families, a value that starts with
//! a format byte. Rows are grouped in *lanes*; a lane is the unit of order, of ownership and of
//! atomicity. Writing means reading, deciding, and committing one [`Batch`] of one lane with the
//! conditions the decision rested on. Readers see a lane up to its published head, never more.
//!
//! The way in is [`Store::tenant`]: no row is reached without saying whose it is.
//!
//! ```text
//! Store ─ tenant(t) ─▶ Tenant ─ reader() ─▶ Reader        rows, bounded by the published heads
//!                         ├──── lane(home) ─▶ LaneWriter  rows + what is appended, batches, commits
//!                         └──── follow(..) ─▶ Follower    the lanes' logs, in order, as they grow
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod attempts;
pub mod batch;
pub mod check;
mod claim;
mod committer;
pub mod engine;
mod error;
mod follow;
mod group;
pub mod heads;
mod horizon;
pub mod key;
mod lane;
mod log;
mod outbox;
mod overlay;
mod pages;
mod read;
mod recovery;
mod store;
pub mod system;
pub mod table;

pub use attempts::Attempts;
pub use batch::{Batch, Expect};
pub use engine::Engine;
pub use error::{CommitError, OpenError, ReadError};
pub use follow::Follower;
pub use heads::{Heads, Pos};
pub use horizon::Consumer;
pub use key::{At, Home, Key, KeyReader, KeyWriter, Lane, Lanes, RoomKey, Slot, TenantId};
pub use lane::{Appended, LaneWriter};
pub use log::{Logged, Owed, Record, Target};
pub use outbox::Apply;
pub use pages::Pages;
pub use read::{Range, Reader};
pub use store::{Options, Store, Tenant};
pub use table::{Damaged, Family, Registered, Row, Table, Value};
