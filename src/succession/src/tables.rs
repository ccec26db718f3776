//! How far each lane's log was followed, in that lane.

use comity_storage::{
    Damaged, Family, Home, Key, KeyReader, KeyWriter, Registered, Slot, Table, postcard_value,
};
use serde::{Deserialize, Serialize};

/// Every table of this crate, for the check of a store.
pub fn all() -> Vec<Registered> {
    vec![Registered::of::<Cursors>()]
}

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey(pub u8);

impl Key for LaneKey {
    fn home(&self) -> Home<'_> {
        Home::Fixed(Slot::new(self.0))
    }

    fn write(&self, to: &mut KeyWriter) {
        to.u8(self.0);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.u8()?))
    }
}

/// The position up to which what a lane's log tells has been carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The position.
    pub pos: u64,
}

postcard_value!(Cursor);

/// `lane` → [`Cursor`].
#[derive(Debug)]
pub struct Cursors;

impl Table for Cursors {
    const NAME: &'static str = "succession cursor";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Sc";
    type Key = LaneKey;
    type Value = Cursor;
}
