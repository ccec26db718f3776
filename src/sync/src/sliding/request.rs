//! What a client asks of sliding sync, in no dialect.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use comity_storage::Pos;

use super::Required;
use crate::{
    tables::{OfDevice, hash},
    token::SlidingPos,
};

/// Bytes of required states, as memory has them, that a connection holds at the most: of all combinations of lists and subscriptions by
/// which rooms are wanted in one request, and of all by which rooms were told.
pub(super) const REQUIRED_BYTES: usize = 256 << 10;

/// A request.
#[derive(Debug, Clone)]
pub struct SlidingRequest {
    /// Who.
    pub user: OwnedUserId,
    /// With which device.
    pub device: String,
    /// Which of the device's connections; each has a name of its own, perhaps the empty one.
    pub connection: String,
    /// Where the last answer ended; `None` begins the connection anew.
    pub pos: Option<SlidingPos>,
    /// How long to wait for something to say.
    pub timeout: Duration,
    /// Windows into the user's rooms.
    pub lists: BTreeMap<String, List>,
    /// Rooms wanted by themselves.
    pub subscriptions: BTreeMap<OwnedRoomId, RoomConfig>,
    /// What is wanted besides rooms.
    pub extensions: Extensions,
}

impl SlidingRequest {
    /// Its connection.
    pub(super) fn of(&self) -> OfDevice {
        OfDevice {
            user: self.user.to_string(),
            device: hash(&self.device),
            conn: hash(&self.connection),
        }
    }

    /// What is wanted of a room that these lists have in their windows, and that may be subscribed to.
    pub(super) fn config_of(
        &self,
        lists: &[&str],
        subscription: Option<&RoomConfig>,
    ) -> RoomConfig {
        let lists = lists.iter().filter_map(|name| self.lists.get(*name));
        let mut configs = lists.map(|list| &list.config).chain(subscription);
        let mut config = configs.next().cloned().unwrap_or_default();
        configs.for_each(|other| config.add(other));
        config
    }

    /// Under what it is remembered which members were told.
    pub(super) fn told_by(&self) -> String {
        format!("{}\u{1f}{}", self.device, self.connection)
    }
}

/// What is wanted of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RoomConfig {
    /// Events of the timeline at the most.
    pub timeline_limit: u32,
    /// State, held once for all rooms of which it is wanted.
    pub required: Arc<Required>,
}

impl RoomConfig {
    /// What either wants.
    pub(super) fn add(&mut self, other: &Self) {
        self.timeline_limit = self.timeline_limit.max(other.timeline_limit);
        if !self.required.covers(&other.required) {
            Arc::make_mut(&mut self.required).add(&other.required);
        }
    }
}

/// A window into those of the user's rooms that pass filters.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// First and last place, both inclusive, from 0; `None`: all.
    pub ranges: Option<Vec<(usize, usize)>>,
    /// Which rooms.
    pub filters: Filters,
    /// What of them.
    pub config: RoomConfig,
}

/// Which rooms a list has: those that pass all that is set.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Direct by the user's `m.direct`, or not.
    pub is_dm: Option<bool>,
    /// Encrypted or not.
    pub is_encrypted: Option<bool>,
    /// Invited to or not.
    pub is_invited: Option<bool>,
    /// Only of these types; `None` among them is a room without one.
    pub room_types: Option<BTreeSet<Option<String>>>,
    /// Not of these types.
    pub not_room_types: BTreeSet<Option<String>>,
    /// Only children of these spaces, which the user has to be in.
    pub spaces: Option<BTreeSet<OwnedRoomId>>,
    /// Only with one of these tags.
    pub tags: Option<BTreeSet<String>>,
    /// With none of these tags.
    pub not_tags: BTreeSet<String>,
}

/// What is wanted besides rooms.
#[derive(Debug, Clone, Default)]
pub struct Extensions {
    /// Messages to the device.
    pub to_device: Option<WantedMessages>,
    /// Users whose keys changed, and keys that the device has left.
    pub e2ee: bool,
    /// Account data, the user's own and of these rooms.
    pub account_data: Option<Scope>,
    /// Receipts of these rooms.
    pub receipts: Option<Scope>,
    /// Who types in these rooms.
    pub typing: Option<Scope>,
    /// Threads that were written in, of all joined rooms.
    pub threads: Option<WantedThreads>,
}

/// Threads that were written in.
#[derive(Debug, Clone, Copy)]
pub struct WantedThreads {
    /// With their roots, and those too of which the timeline has all that is new.
    pub include_roots: bool,
    /// How many.
    pub limit: usize,
}

/// Messages to the device.
#[derive(Debug, Clone, Copy)]
pub struct WantedMessages {
    /// The device has those up to here, which are removed.
    pub since: Pos,
    /// How many.
    pub limit: usize,
}

/// The rooms that an extension is wanted of, among those of the lists and subscriptions.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Those in the windows of these lists; `None`: of all.
    pub lists: Option<BTreeSet<String>>,
    /// Of the subscriptions these; `None`: all.
    pub rooms: Option<BTreeSet<String>>,
}
