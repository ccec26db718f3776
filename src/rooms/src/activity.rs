//! By what rooms are listed: when something last happened in them, and what kind of room they are.
//!
//! Positions of different lanes can't be compared, so each event that is placed gets a *stamp*: microseconds since 1970, later than
//! every stamp before it. The room's head has those of its last event and of the last that moves it up in a list.

use std::sync::atomic::Ordering;

use comity_protocol::id::UserId;
use comity_storage::{Reader, RoomKey};
use futures_util::{future::try_join_all, try_join};
use serde::Deserialize;

use crate::{
    error::RoomError,
    live::{Pending, read_root},
    num::StateKeyNum,
    rooms::Rooms,
    tables::{
        Head, Headers, Heads, InRoom, KeyNums, Members, Mode, OutOfBands, RoomNum, RoomStateKey,
        RoomText, Statuses, Summaries, UserRoom,
    },
    view::newest_head,
};

/// Events by which a room moves up in a client's list.
///
/// <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md>
const BUMPS: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];

/// Whether an event moves its room up.
pub(crate) fn is_bump(event_type: &str) -> bool {
    BUMPS.contains(&event_type)
}

/// A room as lists need it, at a reader's bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// When its last live event was placed.
    pub active: u64,
    /// When the last was placed that moves it up; 0 if none was.
    pub bumped: u64,
    /// `type` of its create event.
    pub room_type: Option<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// How a user stands to a room that they aren't in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// When their membership was set.
    pub since: u64,
    /// By whom, where that is known.
    pub sender: Option<String>,
    /// They were in it once, and we were.
    pub was_in: bool,
    /// Whether it was encrypted then: what it has become since is for those who are in it.
    pub encrypted: bool,
    /// What they were told of the room, if we aren't in it: its type and whether it is encrypted.
    pub told: Option<(Option<String>, bool)>,
}

impl Rooms {
    /// The time now in microseconds since 1970, later than any stamp before in this run and than one of an earlier run, when the
    /// clock may have been ahead.
    pub(crate) fn stamp(&self, earlier: u64) -> u64 {
        let now = self.0.runtime.clock().now_ms().saturating_mul(1_000);
        let next = |last: u64| now.max(last.max(earlier).saturating_add(1));
        let last = &self.0.stamp;
        let update = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            Some(next(last))
        });
        next(update.unwrap_or(now))
    }

    /// What rooms are at a reader's bound, as lists need it; `None` of those that aren't here.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn outlines(
        &self,
        reader: &Reader,
        rooms: &[RoomKey],
    ) -> Result<Vec<Option<Outline>>, RoomError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let heads = rooms.iter().map(|room| newest_head(reader, *room));
        let keys: Vec<InRoom> = rooms.iter().map(|room| InRoom { room: *room }).collect();
        let (heads, summaries) = try_join!(
            reader.scan_many::<Heads>(heads.collect()),
            reader.get_many::<Summaries>(&keys),
        )?;
        let outlines = heads.into_iter().zip(summaries).map(|(mut head, summary)| {
            let head: Head = head.pop().map(|(_, row)| row.value)?;
            let summary = summary?.value;
            (head.mode != Mode::Stub).then(|| Outline {
                active: head.active,
                bumped: head.bumped,
                room_type: summary.room_type,
                encrypted: summary.encryption.is_some(),
            })
        });
        Ok(outlines.collect())
    }

    /// The newest head of a room at a reader's bound: when it was active, and moved up, as far as its rows still tell. `None` where
    /// it began later, or isn't here.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn head_at(&self, reader: &Reader, room: RoomKey) -> Result<Option<Head>, RoomError> {
        let mut heads = reader.scan::<Heads>(newest_head(reader, room)).await?;
        let head = heads.pop().map(|(_, row)| row.value);
        Ok(head.filter(|head| head.mode != Mode::Stub))
    }

    /// How a user stands to rooms that they aren't in. Not bounded: a cache of the latest state.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn places(
        &self,
        reader: &Reader,
        user: &UserId,
        rooms: &[RoomKey],
    ) -> Result<Vec<Place>, RoomError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let members = rooms.iter().map(|room| UserRoom {
            user: user.to_string(),
            room: *room,
        });
        let members: Vec<UserRoom> = members.collect();
        let kept = rooms.iter().map(|room| RoomText {
            room: *room,
            name: user.to_string(),
        });
        let kept: Vec<RoomText> = kept.collect();
        let (members, kept) = try_join!(
            reader.get_many::<Members>(&members),
            reader.get_many::<OutOfBands>(&kept),
        )?;
        let num = |row: &Option<comity_storage::Row<crate::tables::Member>>| {
            row.as_ref().map_or(0, |row| row.value.num)
        };
        let nums = rooms.iter().zip(&members).map(|(room, row)| RoomNum {
            room: *room,
            num: num(row),
        });
        let nums: Vec<RoomNum> = nums.collect();
        let (headers, encrypted) = try_join!(
            async { Ok(reader.get_many::<Headers>(&nums).await?) },
            self.were_encrypted(reader, &nums),
        )?;
        let rows = members.into_iter().zip(kept).zip(headers).zip(encrypted);
        let places = rows.map(|(((member, kept), header), encrypted)| {
            let member = member.map(|row| row.value);
            let named = member.as_ref().is_some_and(|member| member.num > 0);
            // Number 0 is also that of the create event, which sets no membership.
            let header = header.filter(|_| named).map(|row| row.value.sender);
            let told = kept.as_ref().map(|row| introduced(&row.value.state));
            let outside = kept.is_some();
            Place {
                since: member.as_ref().map_or(0, |member| member.since),
                was_in: member.is_some_and(|member| member.was_in && !outside),
                encrypted: encrypted && named,
                sender: kept.map(|row| row.value.sender).or(header),
                told,
            }
        });
        Ok(places.collect())
    }

    /// Of each of these events, whether its room was encrypted before it; not where the state there isn't known here.
    async fn were_encrypted(
        &self,
        reader: &Reader,
        events: &[RoomNum],
    ) -> Result<Vec<bool>, RoomError> {
        let keys = events
            .iter()
            .map(|event| RoomStateKey::new(event.room, "m.room.encryption", ""));
        let keys: Vec<RoomStateKey> = keys.collect();
        let (statuses, keys) = try_join!(
            reader.get_many::<Statuses>(events),
            reader.get_many::<KeyNums>(&keys),
        )?;
        let rows = events.iter().zip(statuses).zip(keys);
        try_join_all(rows.map(|((event, status), key)| async move {
            // Most rooms that aren't encrypted never had such an event.
            let (Some(status), Some(key)) = (status, key) else {
                return Ok(false);
            };
            if status.value.root_before.is_empty() {
                return Ok(false);
            }
            let root = read_root(&status.value.root_before)?;
            let trie = self.trie(event.room, reader.clone(), Pending::default());
            let found = trie.multi_get(root, &[StateKeyNum(key.value.0)]).await?;
            Ok(found.into_iter().any(|found| found.present().is_some()))
        }))
        .await
    }
}

/// A room's type, and whether it is encrypted, by its stripped state.
fn introduced(state: &[String]) -> (Option<String>, bool) {
    #[derive(Deserialize)]
    struct Stripped<'a> {
        #[serde(rename = "type", borrow)]
        event_type: std::borrow::Cow<'a, str>,
        #[serde(default)]
        content: serde_json::Map<String, serde_json::Value>,
    }
    let mut told = (None, false);
    for event in state {
        let Ok(event) = serde_json::from_str::<Stripped<'_>>(event) else {
            continue;
        };
        match &*event.event_type {
            "m.room.create" => {
                let room_type = event.content.get("type").and_then(|value| value.as_str());
                told.0 = room_type.map(str::to_owned);
            }
            "m.room.encryption" => told.1 = true,
            _ => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSC4186, `SlidingRoomFilter`: a room that we aren't in is told apart by its stripped state.
    #[test]
    fn stripped_state_tells_what_room_it_is() {
        let space = r#"{"type":"m.room.create","state_key":"","content":{"type":"m.space"}}"#;
        let encryption = r#"{"type":"m.room.encryption","state_key":"","content":{}}"#;
        let bad = r#"{"type":7}"#;
        for (state, told) in [
            (vec![], (None, false)),
            (vec![bad, space], (Some("m.space".to_owned()), false)),
            (vec![encryption], (None, true)),
        ] {
            let state: Vec<String> = state.into_iter().map(str::to_owned).collect();
            assert_eq!(introduced(&state), told);
        }
    }
}
