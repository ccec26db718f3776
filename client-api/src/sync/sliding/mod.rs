//! Sliding sync in its two dialects: [`simplified`], which clients speak today, and [`v4`], which was accepted. Here is what both
//! say alike, and how much of it is taken.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

mod extensions;
pub(super) mod simplified;
pub(super) mod thread_updates;
pub(super) mod v4;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use comity_protocol::id::{OwnedRoomId, RoomId};
use comity_sync::{
    sliding::{self, List, Required, RoomConfig, SlidingAnswer, SlidingRequest},
    token::SlidingPos,
};
use serde::{Deserialize, Serialize};

use super::{sync::presence_of, while_signed_in};
use crate::{Api, ApiError, User};

/// Lists of a request, subscriptions, ranges of a list, spaces in a filter.
const MOST: usize = 100;
/// Pieces of state that are wanted of a room, and other names in a filter.
const NAMES: usize = 500;
/// Bytes of a name that clients choose.
const NAME: usize = 255;
/// Bytes of the state that a request wants ([`Required::bytes`]), each counted once: it is kept with the connection, and held for each
/// combination of lists while an answer is built.
const STATE: usize = 64 << 10;
/// Events of a timeline.
const TIMELINE: u64 = 100;

/// What both dialects say of a request besides rooms.
struct Head {
    connection: Option<String>,
    pos: Option<String>,
    /// In milliseconds.
    timeout: u64,
    set_presence: Option<String>,
}

/// What is wanted, whichever way it is said.
struct Wanted {
    lists: BTreeMap<String, List>,
    subscriptions: BTreeMap<OwnedRoomId, RoomConfig>,
    extensions: sliding::Extensions,
}

#[derive(Default, Deserialize)]
struct Filters {
    is_dm: Option<bool>,
    is_encrypted: Option<bool>,
    #[serde(alias = "is_invite")]
    is_invited: Option<bool>,
    room_types: Option<BTreeSet<Option<String>>>,
    not_room_types: Option<BTreeSet<Option<String>>>,
    spaces: Option<BTreeSet<String>>,
    tags: Option<BTreeSet<String>>,
    not_tags: Option<BTreeSet<String>>,
}

#[derive(Serialize)]
struct Count {
    count: usize,
}

/// Answers a request that was read.
async fn answer(
    api: &Api,
    user: &User,
    head: Head,
    wanted: Wanted,
) -> Result<SlidingAnswer, ApiError> {
    let Wanted {
        mut lists,
        mut subscriptions,
        extensions,
    } = wanted;
    let state = presence_of(head.set_presence.as_deref())?;
    let pos = head.pos.filter(|pos| !pos.is_empty());
    let pos = pos.map(|pos| pos.parse::<SlidingPos>()).transpose();
    let pos = pos.map_err(|_| ApiError::bad("M_UNKNOWN_POS", "The position is unknown"))?;
    let connection = head.connection.unwrap_or_default();
    if lists.len() > MOST || subscriptions.len() > MOST {
        let error = "There are too many lists or subscriptions";
        return Err(ApiError::invalid_param(error));
    }
    if connection.len() > NAME || lists.keys().any(|name| name.len() > NAME) {
        let error = "The name of a list or connection is too long";
        return Err(ApiError::invalid_param(error));
    }
    let configs = lists.values_mut().map(|list| &mut list.config);
    if held_once(configs.chain(subscriptions.values_mut())) > STATE {
        let error = "required_state has too much in all";
        return Err(ApiError::invalid_param(error));
    }
    let request = SlidingRequest {
        user: user.id.clone(),
        device: user.device.clone(),
        connection,
        pos,
        timeout: Duration::from_millis(head.timeout),
        lists,
        subscriptions,
        extensions,
    };
    let presence = api.accounts.presence();
    presence.saw(user.id.as_str(), Some(state), false);
    let answer = async { Ok(api.sync.slide(&request).await?) };
    while_signed_in(user, pin!(answer)).await
}

/// Makes whatever wants the same state hold it once; how many bytes that comes to.
fn held_once<'a>(configs: impl Iterator<Item = &'a mut RoomConfig>) -> usize {
    let mut held: HashSet<Arc<Required>> = HashSet::new();
    for config in configs {
        match held.get(&config.required) {
            Some(same) => config.required = Arc::clone(same),
            None => _ = held.insert(Arc::clone(&config.required)),
        }
    }
    held.iter().map(|required| required.bytes()).sum()
}

/// Windows of a list: each from a place up to one, both inclusive.
fn ranges(ranges: Vec<(usize, usize)>) -> Result<Vec<(usize, usize)>, ApiError> {
    let fit = ranges.len() <= MOST && ranges.iter().all(|(first, last)| first <= last);
    match fit {
        true => Ok(ranges),
        false => Err(ApiError::invalid_param("A list's ranges can't be used")),
    }
}

fn filters(filters: Option<Filters>) -> Result<sliding::Filters, ApiError> {
    let filters = filters.unwrap_or_default();
    let types = [&filters.room_types, &filters.not_room_types];
    let names = [&filters.tags, &filters.not_tags];
    let most_types = types.into_iter().flatten().map(BTreeSet::len).max();
    let most_names = names.into_iter().flatten().map(BTreeSet::len).max();
    let spaces = filters.spaces.as_ref().map_or(0, BTreeSet::len);
    if most_types.max(most_names).unwrap_or_default() > NAMES || spaces > MOST {
        let error = "A list's filter has too many names";
        return Err(ApiError::invalid_param(error));
    }
    let spaces = filters.spaces.map(|spaces| {
        let spaces = spaces.iter().map(|space| room(space));
        spaces.collect::<Result<_, ApiError>>()
    });
    Ok(sliding::Filters {
        is_dm: filters.is_dm,
        is_encrypted: filters.is_encrypted,
        is_invited: filters.is_invited,
        room_types: filters.room_types,
        not_room_types: filters.not_room_types.unwrap_or_default(),
        spaces: spaces.transpose()?,
        tags: filters.tags,
        not_tags: filters.not_tags.unwrap_or_default(),
    })
}

/// The lists, each read by `list`.
fn lists<T>(
    wanted: Option<BTreeMap<String, T>>,
    list: impl Fn(T) -> Result<List, ApiError>,
) -> Result<BTreeMap<String, List>, ApiError> {
    let wanted = wanted.unwrap_or_default().into_iter();
    wanted
        .map(|(name, wanted)| Ok((name, list(wanted)?)))
        .collect()
}

/// The subscriptions, each read by `config`.
fn subscriptions<T>(
    wanted: Option<BTreeMap<String, T>>,
    config: impl Fn(T) -> Result<RoomConfig, ApiError>,
) -> Result<BTreeMap<OwnedRoomId, RoomConfig>, ApiError> {
    let mut rooms = BTreeMap::new();
    for (room_id, wanted) in wanted.unwrap_or_default() {
        rooms.insert(room(&room_id)?, config(wanted)?);
    }
    Ok(rooms)
}

fn timeline_limit(limit: u64) -> u32 {
    u32::try_from(limit.min(TIMELINE)).unwrap_or_default()
}

/// Refuses more pieces of state, or longer names of them, than can be meant.
fn check_state<'a>(
    pieces: usize,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<(), ApiError> {
    if pieces > NAMES || names.into_iter().any(|name| name.len() > NAME) {
        let error = "required_state has too much, or too long a name";
        return Err(ApiError::invalid_param(error));
    }
    Ok(())
}

fn room(room_id: &str) -> Result<OwnedRoomId, ApiError> {
    RoomId::parse(room_id).map_err(|_| ApiError::invalid_param("A room id can't be read"))
}

fn counts(lists: BTreeMap<String, usize>) -> BTreeMap<String, Count> {
    let lists = lists.into_iter();
    lists.map(|(name, count)| (name, Count { count })).collect()
}
