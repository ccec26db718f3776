//! `POST /v4/sync`: sliding sync as it was accepted (MSC4186). Extensions whose proposals weren't yet have the names that are set down
//! for the meantime.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md>

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use comity_sync::sliding::{Element, Hero, List, Pattern, Required, RoomAnswer, RoomConfig};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Count, Filters, Head, check_state, counts,
    extensions::{Extensions, Names},
    filters, lists, ranges, subscriptions, timeline_limit,
};
use crate::{Api, ApiError, Json, UserOrGuest};

pub(in crate::sync) const PATH: &str = "/_matrix/client/v4/sync";

/// What this dialect calls extensions: those that weren't accepted yet by the names that are set down for the meantime.
const NAMES: Names = Names {
    to_device: "org.matrix.msc4538.to_device",
    e2ee: "org.matrix.msc4543.e2ee",
    account_data: "org.matrix.msc3959.account_data",
    receipts: "org.matrix.msc3960.receipts",
    // Accepted.
    typing: "typing",
    threads: "io.element.msc4360.threads",
};

#[derive(Deserialize)]
pub(in crate::sync) struct Body {
    conn_id: Option<String>,
    pos: Option<String>,
    /// In milliseconds.
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
    lists: Option<BTreeMap<String, WantedList>>,
    room_subscriptions: Option<BTreeMap<String, Details>>,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Deserialize)]
struct WantedList {
    range: Option<(usize, usize)>,
    filters: Option<Filters>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Deserialize)]
struct Details {
    required_state: RequiredState,
    timeline_limit: u64,
}

#[derive(Deserialize)]
struct RequiredState {
    #[serde(default)]
    include: BTreeSet<Element>,
    #[serde(default)]
    exclude: BTreeSet<Element>,
    #[serde(default)]
    lazy_members: bool,
}

#[derive(Serialize)]
pub(in crate::sync) struct Answer {
    pos: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lists: BTreeMap<String, Count>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rooms: BTreeMap<String, Room>,
    extensions: Extensions,
}

#[derive(Serialize)]
struct Room {
    membership: &'static str,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    lists: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bump_stamp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<Hero>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_dm: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initial: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expanded_timeline: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_state: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_live: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stripped_state: Option<Vec<Box<RawValue>>>,
}

/// A piece of state that is no more.
#[derive(Serialize)]
struct StateStub {
    #[serde(rename = "type")]
    event_type: String,
    state_key: String,
}

pub(in crate::sync) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    let head = Head {
        connection: body.conn_id,
        pos: body.pos,
        timeout: body.timeout,
        set_presence: body.set_presence,
    };
    let wanted = super::Wanted {
        lists: lists(body.lists, WantedList::read)?,
        subscriptions: subscriptions(body.room_subscriptions, Details::read)?,
        extensions: NAMES.read(body.extensions)?,
    };
    let answer = super::answer(&api, &user, head, wanted).await?;
    let rooms = answer.rooms.into_iter();
    let rooms = rooms.map(|(room_id, room)| Ok((room_id, Room::of(room)?)));
    Ok(Json(Answer {
        pos: answer.pos,
        lists: counts(answer.lists),
        rooms: rooms.collect::<Result<_, ApiError>>()?,
        extensions: NAMES.write(answer.extensions)?,
    }))
}

impl WantedList {
    fn read(self) -> Result<List, ApiError> {
        let range = self.range.map(|range| ranges(vec![range]));
        Ok(List {
            ranges: range.transpose()?,
            filters: filters(self.filters)?,
            config: self.details.read()?,
        })
    }
}

impl Details {
    fn read(self) -> Result<RoomConfig, ApiError> {
        let RequiredState {
            include,
            exclude,
            lazy_members,
        } = self.required_state;
        let elements = include.iter().chain(&exclude);
        let names = elements.flat_map(|element| [&element.event_type, &element.state_key]);
        check_state(include.len() + exclude.len(), names.flatten())?;
        let pattern = Pattern {
            include,
            exclude,
            lazy: lazy_members,
        };
        Ok(RoomConfig {
            timeline_limit: timeline_limit(self.timeline_limit),
            required: Required::from(pattern).into(),
        })
    }
}

impl Room {
    fn of(room: RoomAnswer) -> Result<Self, ApiError> {
        let has_timeline = room.timeline.is_some();
        let timeline = room.timeline.unwrap_or_default();
        let (joined_count, invited_count) = room.members.unzip();
        let mut required_state = room.required_state;
        for (event_type, state_key) in room.gone_state {
            let stub = StateStub {
                event_type,
                state_key,
            };
            required_state.push(to_raw_value(&stub).map_err(ApiError::internal)?);
        }
        Ok(Self {
            membership: room.membership.as_str(),
            lists: room.lists,
            bump_stamp: room.bump_stamp,
            name: room.name,
            avatar: room.avatar,
            heroes: room.heroes.filter(|heroes| !heroes.is_empty()),
            is_dm: room.is_dm,
            initial: room.initial,
            expanded_timeline: timeline.expanded,
            required_state,
            timeline: timeline.events,
            prev_batch: timeline.prev_batch,
            limited: timeline.limited,
            num_live: has_timeline.then_some(timeline.live),
            joined_count,
            invited_count,
            stripped_state: room.stripped_state,
        })
    }
}
