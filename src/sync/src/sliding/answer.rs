//! What sliding sync answers, in no dialect.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::auth::Membership;
use serde::Serialize;
use serde_json::value::RawValue;

use super::ThreadUpdates;
use crate::answer::{Counts, DeviceLists};

/// An answer.
#[derive(Debug, Default)]
pub struct SlidingAnswer {
    /// Where it ends.
    pub pos: String,
    /// How many rooms each list has in all.
    pub lists: BTreeMap<String, usize>,
    /// Rooms of which there is something to say.
    pub rooms: BTreeMap<String, RoomAnswer>,
    /// What is wanted besides.
    pub extensions: ExtensionsAnswer,
}

/// What there is to say of a room. What is `None` is as it was, or, where it is `initial`, not there.
#[derive(Debug)]
pub struct RoomAnswer {
    /// The client is to forget what it knew of the room.
    pub initial: bool,
    /// How the user stands to it.
    pub membership: Membership,
    /// The lists in whose windows it is.
    pub lists: BTreeSet<String>,
    /// By which it is sorted: the later, the greater.
    pub bump_stamp: Option<u64>,
    /// Its name; the inner `None` takes it away.
    pub name: Option<Option<String>>,
    /// Its avatar; the inner `None` takes it away.
    pub avatar: Option<Option<String>>,
    /// By whom to name it where it has no name.
    pub heroes: Option<Vec<Hero>>,
    /// Whether it is direct.
    pub is_dm: Option<bool>,
    /// State.
    pub required_state: Vec<Box<RawValue>>,
    /// Pieces of state that are no more: their types and keys.
    pub gone_state: Vec<(String, String)>,
    /// What happened; `None` where nothing of it is wanted, or may be seen.
    pub timeline: Option<SlidingTimeline>,
    /// What those may know who are invited or knocked.
    pub stripped_state: Option<Vec<Box<RawValue>>>,
    /// How many are joined, and how many invited.
    pub members: Option<(u64, u64)>,
    /// What the user hasn't read.
    pub unread: Counts,
}

/// A stretch of a room's order.
#[derive(Debug, Default)]
pub struct SlidingTimeline {
    /// The events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Whether there are events before these that the client hasn't had.
    pub limited: bool,
    /// It reaches further back than what the client has had, since more is wanted.
    pub expanded: bool,
    /// Where to read on, backwards.
    pub prev_batch: Option<String>,
    /// How many of them, from the end, came after the position in the request.
    pub live: usize,
}

/// A member by whom to name a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hero {
    /// Who.
    pub user_id: String,
    /// Their name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displayname: Option<String>,
    /// Their avatar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// What extensions say; `None` where they aren't wanted.
#[derive(Debug, Default)]
pub struct ExtensionsAnswer {
    /// Messages to the device.
    pub to_device: Option<Messages>,
    /// Keys.
    pub e2ee: Option<E2ee>,
    /// Account data.
    pub account_data: Option<AccountData>,
    /// The receipt event of each room where some moved.
    pub receipts: Option<BTreeMap<String, Box<RawValue>>>,
    /// The typing event of each room where it changed.
    pub typing: Option<BTreeMap<String, Box<RawValue>>>,
    /// Threads that were written in.
    pub threads: Option<ThreadUpdates>,
}

/// Messages to the device.
#[derive(Debug)]
pub struct Messages {
    /// To be given back when the client has them.
    pub next_batch: u64,
    /// Oldest first.
    pub events: Vec<Box<RawValue>>,
}

/// What `/sync` says of keys.
#[derive(Debug)]
pub struct E2ee {
    /// Users whose keys changed since the position in the request; `None` where there is none.
    pub device_lists: Option<DeviceLists>,
    /// One-time keys that the device has left, by algorithm.
    pub one_time_keys: BTreeMap<String, u32>,
    /// Algorithms whose fallback key has not been given away.
    pub unused_fallback: Vec<String>,
    /// Those two have changed since the position.
    pub changed: bool,
}

/// Account data, as events.
#[derive(Debug, Default)]
pub struct AccountData {
    /// The user's own.
    pub global: Vec<Box<RawValue>>,
    /// By room.
    pub rooms: BTreeMap<String, Vec<Box<RawValue>>>,
}

impl SlidingAnswer {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        let typing = self.extensions.typing.as_ref();
        self.is_quiet() && typing.is_none_or(BTreeMap::is_empty)
    }

    /// Whether it says nothing but who types.
    pub(super) fn is_quiet(&self) -> bool {
        self.rooms.is_empty() && self.extensions.is_quiet()
    }
}

impl ExtensionsAnswer {
    fn is_quiet(&self) -> bool {
        self.to_device
            .as_ref()
            .is_none_or(|to_device| to_device.events.is_empty())
            && self.e2ee.as_ref().is_none_or(|e2ee| {
                !e2ee.changed && e2ee.device_lists.as_ref().is_none_or(DeviceLists::is_empty)
            })
            && self
                .account_data
                .as_ref()
                .is_none_or(|data| data.global.is_empty() && data.rooms.is_empty())
            && self.receipts.as_ref().is_none_or(BTreeMap::is_empty)
            && self.threads.as_ref().is_none_or(ThreadUpdates::is_empty)
    }
}
