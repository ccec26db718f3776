//! The room engine: actors, the event graph, state, timeline.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod acquaintance;
mod activity;
mod aliases;
pub mod chains;
mod change;
pub mod check;
mod counts;
mod create;
mod directory;
mod door;
mod elsewhere;
mod erase;
mod error;
mod event;
mod hierarchy;
mod jump;
mod live;
pub mod log;
mod membership;
pub mod num;
mod out_of_band;
mod peers;
mod policy;
mod profile;
mod receipts;
mod rooms;
pub mod state;
mod summary;
pub mod tables;
mod tend;
mod typing;
mod upgrade;
mod varint;
mod view;
mod walks;

pub use acquaintance::Acquaintance;
pub use activity::{Outline, Place};
pub use aliases::Resolved;
pub use change::{Change, Intent, Placed, SERVER_LOCALPART, Transaction};
pub use counts::{PushRules, Tastes, Unread};
pub use create::{CreateRoom, Invitee, Preset, StateEvent, Visibility};
pub use directory::{DirectoryFilter, DirectoryPage};
pub use door::{
    Arrival, Claim, Completed, Entered, Entry, Filled, Hole, Incomplete, Outcome, Refusal, Run,
    Wanted, Way,
};
pub use elsewhere::{Elsewhere, Remote};
pub use error::RoomError;
pub use hierarchy::{Hierarchy, HierarchyPage, HierarchyRoom, SpaceChild};
pub use membership::Join;
pub use peers::{Admission, PeerSpace, PeerState, PeerView, Template};
pub use policy::PolicyServer;
pub use profile::Profile;
pub use receipts::{ReadReceipt, ReceiptKind};
pub use rooms::{Config, Rooms, WeakRooms};
pub use tend::HORIZON;
pub use typing::Typing;
pub use view::{Found, Moved, RelatedBy, RoomView, Span, Standing, Viewer};
