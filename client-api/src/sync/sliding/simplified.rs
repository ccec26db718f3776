//! `POST /unstable/org.matrix.simplified_msc3575/sync`: sliding sync as clients speak it today, MSC4186 before it was accepted.
//!
//! Each request says all that it wants. Its `txn_id` isn't answered: matrix-rust-sdk would take what it said for kept and leave it
//! out from then on, `enabled` of the extensions that bring keys first of all.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_protocol::auth::Membership;
use comity_sync::{
    answer::Counts,
    sliding::{Hero, List, RoomAnswer, RoomConfig, of_pairs},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Count, Filters, Head, check_state, counts,
    extensions::{Extensions, Names},
    filters, lists, ranges, subscriptions, timeline_limit,
};
use crate::{Api, ApiError, Json, Query, User, UserOrGuest};

pub(in crate::sync) const PATH: &str =
    "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// What this dialect calls extensions: by what they were to become, but for the draft of threads.
const NAMES: Names = Names {
    to_device: "to_device",
    e2ee: "e2ee",
    account_data: "account_data",
    receipts: "receipts",
    typing: "typing",
    threads: "io.element.msc4360.threads",
};

#[derive(Deserialize)]
pub(in crate::sync) struct Parameters {
    pos: Option<String>,
    /// In milliseconds.
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
}

#[derive(Deserialize)]
pub(in crate::sync) struct Body {
    conn_id: Option<String>,
    lists: Option<BTreeMap<String, WantedList>>,
    room_subscriptions: Option<BTreeMap<String, Details>>,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Deserialize)]
struct WantedList {
    ranges: Option<Vec<(usize, usize)>>,
    slow_get_all_rooms: Option<bool>,
    filters: Option<Filters>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    required_state: Vec<(String, String)>,
    timeline_limit: u64,
}

#[derive(Serialize)]
pub(in crate::sync) struct Answer {
    pos: String,
    lists: BTreeMap<String, Count>,
    rooms: BTreeMap<String, Room>,
    extensions: Extensions,
}

#[derive(Serialize)]
struct Room {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<Hero>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initial: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unstable_expanded_timeline: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_dm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bump_stamp: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_state: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_live: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_state: Option<Vec<Box<RawValue>>>,
    #[serde(flatten)]
    unread: Counts,
}

pub(in crate::sync) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Query(parameters): Query<Parameters>,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    let head = Head {
        connection: body.conn_id,
        pos: parameters.pos,
        timeout: parameters.timeout,
        set_presence: parameters.set_presence,
    };
    let wanted = super::Wanted {
        lists: lists(body.lists, |list| list.read(&user))?,
        subscriptions: subscriptions(body.room_subscriptions, |wanted| wanted.read(&user))?,
        extensions: NAMES.read(body.extensions)?,
    };
    let answer = super::answer(&api, &user, head, wanted).await?;
    let rooms = answer.rooms.into_iter();
    Ok(Json(Answer {
        pos: answer.pos,
        lists: counts(answer.lists),
        rooms: rooms
            .map(|(room_id, room)| (room_id, room.into()))
            .collect(),
        extensions: NAMES.write(answer.extensions)?,
    }))
}

impl WantedList {
    fn read(self, user: &User) -> Result<List, ApiError> {
        let all = self.slow_get_all_rooms.unwrap_or_default();
        Ok(List {
            ranges: self.ranges.filter(|_| !all).map(ranges).transpose()?,
            filters: filters(self.filters)?,
            config: self.details.read(user)?,
        })
    }
}

impl Details {
    fn read(self, user: &User) -> Result<RoomConfig, ApiError> {
        let names = self.required_state.iter();
        let names = names.flat_map(|(event_type, state_key)| [event_type, state_key]);
        check_state(self.required_state.len(), names)?;
        Ok(RoomConfig {
            timeline_limit: timeline_limit(self.timeline_limit),
            required: of_pairs(&self.required_state, user.id.as_str()).into(),
        })
    }
}

impl From<RoomAnswer> for Room {
    fn from(room: RoomAnswer) -> Self {
        let has_timeline = room.timeline.is_some();
        let timeline = room.timeline.unwrap_or_default();
        let (joined_count, invited_count) = room.members.unzip();
        // Here it would say that the user is invited.
        let waits = matches!(room.membership, Membership::Invite | Membership::Knock);
        Self {
            name: room.name,
            avatar: room.avatar,
            heroes: room.heroes.filter(|heroes| !heroes.is_empty()),
            initial: room.initial,
            unstable_expanded_timeline: timeline.expanded,
            is_dm: room.is_dm,
            bump_stamp: room.bump_stamp,
            required_state: room.required_state,
            timeline: timeline.events,
            prev_batch: timeline.prev_batch,
            limited: has_timeline.then_some(timeline.limited),
            num_live: has_timeline.then_some(timeline.live),
            joined_count,
            invited_count,
            invite_state: room.stripped_state.filter(|_| waits),
            unread: room.unread,
        }
    }
}
