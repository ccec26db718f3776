//! The room engine's rows (`docs/data-model.md`, Events).
//!
//! A room's rows begin with its key and are in its lane, those about a member's place in it
//! included; the latter are found from the user (`U…`) where the question is "which rooms", from
//! the room where it is "who".

mod chain;
mod event;
mod index;
mod keys;
mod read;
mod room;
mod summary;

pub use chain::*;
pub use event::*;
pub use index::*;
pub use keys::*;
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
