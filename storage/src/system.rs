//! The store's own rows: who has a lane and how far it has come, and what each tenant's store is.

use serde::{Deserialize, Serialize};

use crate::{
    heads::Pos,
    horizon::Horizon,
    key::{Home, Key, KeyReader, KeyWriter, Lane, Slot},
    log::LogTable,
    table::{Damaged, Family, Registered, Table},
};

/// The newest format of the whole store that this build knows.
pub const STORE_FORMAT: u8 = 1;

/// A lane's number as a key. These rows go with the lane, whatever its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneKey(pub Lane);

impl Key for LaneKey {
    fn home(&self) -> Home<'_> {
        Home::Fixed(Slot::new(self.0.0))
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u8(self.0.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(Lane(from.u8()?)))
    }
}

/// Who owns a lane: each owner raises the epoch, and every write names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// The number of claims so far.
    pub epoch: u64,
    /// Drawn by the claimant, so that it can tell its claim from another's of the same number.
    pub owner: u64,
}

/// How far a lane has come, written by each group of commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last position.
    pub pos: Pos,
    /// The epoch of the owner that wrote it: with the position it names the group, so that after
    /// an unknown outcome the owner can tell its own.
    pub epoch: u64,
}

/// What a tenant's store is. Kept in lane 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The format that every reader of the store must know; raised when all nodes do.
    pub floor: u8,
    /// Lanes.
    pub lanes: u8,
    /// Begins anew after each restore, lossy fail-over or unclean start without fsync.
    pub incarnation: u32,
    /// Where the lanes stood when this incarnation began: tokens beyond are clamped.
    pub recorded: Vec<Pos>,
    /// Whether this run answers after the fsync: if not and it doesn't close, the next start
    /// begins a new incarnation.
    pub synced: bool,
    /// Whether the last run ended by closing the store.
    pub clean: bool,
}

/// What a new incarnation adds to each head.
pub(crate) const INCARNATION_JUMP: u64 = 1 << 32;

/// Bits that count within an incarnation. One that begins by the clock has the second's number, and nothing counts to 2^23 in a
/// second: so it begins beyond all that others of the same rows have counted until then, however long they lasted. What begins so is an
/// integer of JSON for 34 years.
const COUNTS: u32 = 23;

impl Birth {
    /// Where what is counted must begin that is told to others, so that no number of a lost incarnation is given again.
    pub fn counts_after(&self) -> u64 {
        u64::from(self.incarnation.saturating_sub(1)) << COUNTS
    }

    /// The head that a lane had at least when this incarnation began: no other incarnation of the same rows has had what follows it,
    /// also where two of them began at the same heads, as after two restores of one backup.
    pub fn base(&self, lane: Lane) -> Pos {
        let head = self.recorded.get(usize::from(lane.0));
        head.map_or(0, |head| (head + INCARNATION_JUMP).max(self.counts_after()))
    }
}

/// How far this lane has applied what another owes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The source's position.
    pub pos: Pos,
}

/// From which lane to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The one that applies, and owns the row.
    pub target: Lane,
    /// The one that owes.
    pub source: Lane,
}

impl Key for Route {
    fn home(&self) -> Home<'_> {
        Home::Fixed(Slot::new(self.target.0))
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u8(self.target.0).u8(self.source.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            target: Lane(from.u8()?),
            source: Lane(from.u8()?),
        })
    }
}

crate::postcard_value!(Epoch, Head, Birth, Applied, Horizon);

macro_rules! system_table {
    ($($(#[$doc:meta])* $table:ident: $name:literal, $tag:literal, $key:ty => $value:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $table;
        impl Table for $table {
            const NAME: &'static str = $name;
            const FAMILY: Family = Family::Hot;
            const TAG: [u8; 2] = *$tag;
            type Key = $key;
            type Value = $value;
        }
    )+};
}

/// This crate's own tables.
pub fn tables() -> [Registered; 6] {
    [
        Registered::of::<Epochs>(),
        Registered::of::<LaneHeads>(),
        Registered::of::<Births>(),
        Registered::of::<Cursors>(),
        Registered::of::<Horizons>(),
        Registered::of::<LogTable>(),
    ]
}

system_table! {
    /// `lane` → [`Epoch`].
    Epochs: "epoch", b"L0", LaneKey => Epoch;
    /// `lane` → [`Head`].
    LaneHeads: "lane head", b"L1", LaneKey => Head;
    /// lane 0 → [`Birth`].
    Births: "birth", b"L2", LaneKey => Birth;
    /// `lane` → [`Horizon`].
    Horizons: "log horizon", b"L4", LaneKey => Horizon;
    /// `target, source` → [`Applied`].
    Cursors: "outbox cursor", b"L3", Route => Applied;
}
