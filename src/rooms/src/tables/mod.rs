//! The room engine's rows (`docs/data-model.md`, Events).
//!
//! A room's rows begin with its key and are in its lane, those about a member's place in it
//! included; the latter are found from the user (`U…`) where the question is "which rooms", from
//! the room where it is "who".

mod body;
mod chain;
mod event;
mod index;
mod keys;
mod partial;
mod read;
mod room;
mod summary;

pub use body::*;
pub use chain::*;
pub use event::*;
pub use index::*;
pub use keys::*;
pub use partial::*;
pub use read::*;
pub use room::*;
pub use summary::*;

/// Declares a table of this crate.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $name:literal, $tag:literal, $family:ident, $stamped:literal, $key:ty => $value:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $table;
        impl comity_storage::Table for $table {
            const NAME: &'static str = $name;
            const FAMILY: comity_storage::Family = comity_storage::Family::$family;
            const TAG: [u8; 2] = *$tag;
            const STAMPED: bool = $stamped;
            type Key = $key;
            type Value = $value;
        }
    };
}
use table;

/// Every table of this crate, for the check of a store.
pub fn all() -> Vec<comity_storage::Registered> {
    use comity_storage::Registered as Is;
    vec![
        Is::of::<Infos>(),
        Is::of::<Heads>(),
        Is::of::<KeyNums>(),
        Is::of::<StateKeys>(),
        Is::of::<Nodes>(),
        Is::of::<EventNums>(),
        Is::of::<Headers>(),
        Is::of::<Bodies>(),
        Is::of::<Statuses>(),
        Is::of::<Timeline>(),
        Is::of::<Txns>(),
        Is::of::<IdRooms>(),
        Is::of::<Members>(),
        Is::of::<OutOfBands>(),
        Is::of::<NewProfiles>(),
        Is::of::<Aliases>(),
        Is::of::<RoomAliases>(),
        Is::of::<Directory>(),
        Is::of::<Relations>(),
        Is::of::<Related>(),
        Is::of::<ThreadOrder>(),
        Is::of::<Discounts>(),
        Is::of::<Erasures>(),
        Is::of::<Upgrades>(),
        Is::of::<Threads>(),
        Is::of::<Summaries>(),
        Is::of::<Hits>(),
        Is::of::<RoomRulesets>(),
        Is::of::<Turns>(),
        Is::of::<Receipts>(),
        Is::of::<ReceiptMoves>(),
        Is::of::<Followed>(),
        Is::of::<Gaps>(),
        Is::of::<EarlyRedactions>(),
        Is::of::<Chains>(),
        Is::of::<Partials>(),
        Is::of::<Provisionals>(),
    ]
}
