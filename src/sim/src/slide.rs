//! What a client puts together from the answers of sliding sync, whichever windows it looked through.

use std::collections::BTreeMap;

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::fold::text;

/// Sliding sync as it was accepted: it says how the user stands to a room, and what of its state is no more.
pub(crate) const PATH: &str = "/_matrix/client/v4/sync";

/// A user's rooms as sliding sync told them.
#[derive(Debug, Default)]
pub(crate) struct Slid {
    /// Where the last answer ended; without one the connection begins anew.
    pub pos: Option<String>,
    /// The state that was asked for last.
    required: Value,
    rooms: BTreeMap<String, Room>,
}

#[derive(Debug, Default, PartialEq)]
struct Room {
    state: BTreeMap<(String, String), String>,
    timeline: Vec<String>,
    name: Value,
    counts: (Value, Value),
    bump_stamp: Value,
}

/// A window of so many rooms, so many events of each, and some of the state.
pub(crate) fn some(rng: &mut ChaCha8Rng) -> Value {
    let of_state = [
        json!({}),
        json!({ "include": [{}] }),
        json!({ "include": [{}], "lazy_members": true }),
        json!({ "include": [{ "type": "m.room.topic" }, { "type": "m.room.member" }] }),
    ];
    json!({
        "range": [0, rng.random_range(0..3)],
        "timeline_limit": rng.random_range(1..6),
        "required_state": of_state.choose(rng).unwrap(),
    })
}

/// All rooms, with all of their state.
pub(crate) fn all() -> Value {
    json!({ "timeline_limit": 50, "required_state": { "include": [{}] } })
}

impl Slid {
    /// What to ask for this window.
    pub fn body(&mut self, window: Value) -> Value {
        self.required = window["required_state"].clone();
        let mut body = json!({ "lists": { "rooms": window } });
        if let Some(pos) = &self.pos {
            body["pos"] = json!(pos);
        }
        body
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// It says what can't be.
    pub fn take(&mut self, answer: &Value) -> Result<(), String> {
        self.pos = Some(text(answer, "pos"));
        for (id, told) in answer["rooms"].as_object().into_iter().flatten() {
            if told["membership"] != "join" {
                self.rooms.remove(id);
                continue;
            }
            let room = self.rooms.entry(id.clone()).or_default();
            if told["initial"] == true {
                *room = Room::default();
            }
            // What isn't asked for any more the client isn't told of either, when it goes.
            room.state
                .retain(|(kind, _), _| is_followed(&self.required, kind));
            for piece in events(&told["required_state"]) {
                let key = (text(piece, "type"), text(piece, "state_key"));
                match piece["event_id"].as_str() {
                    Some(event) => _ = room.state.insert(key, event.to_owned()),
                    None => _ = room.state.remove(&key),
                }
            }
            if told["limited"] == true || told["expanded_timeline"] == true {
                room.timeline.clear();
            }
            for event in events(&told["timeline"]) {
                let event = text(event, "event_id");
                if room.timeline.contains(&event) {
                    return Err(format!("{event} came twice by sliding sync in {id}"));
                }
                room.timeline.push(event);
            }
            let latest = [
                ("name", &mut room.name),
                ("joined_count", &mut room.counts.0),
                ("invited_count", &mut room.counts.1),
                ("bump_stamp", &mut room.bump_stamp),
            ];
            for (field, known) in latest {
                if let Some(now) = told.get(field) {
                    *known = now.clone();
                }
            }
        }
        Ok(())
    }

    /// Takes in what the server said, if it said anything; whether that was an answer. A position that was lost with the machine begins
    /// anew.
    ///
    /// # Errors
    /// It was refused, or says what can't be.
    pub fn hear(&mut self, said: Option<(u16, Value)>) -> Result<bool, String> {
        match said {
            Some((200, answer)) => self.take(&answer).map(|()| true),
            Some((400, body)) if body["errcode"] == "M_UNKNOWN_POS" => {
                *self = Self::default();
                Ok(false)
            }
            Some((status @ 400..500, body)) => {
                Err(format!("sliding sync is refused: {status} {body}"))
            }
            _ => Ok(false),
        }
    }

    /// What differs from a fresh connection; both have asked for [`all`].
    pub fn differs(&self, fresh: &Self) -> Option<String> {
        if !self.rooms.keys().eq(fresh.rooms.keys()) {
            let rooms = |slid: &Self| slid.rooms.keys().cloned().collect::<Vec<_>>();
            return Some(format!("rooms {:?} {:?}", rooms(self), rooms(fresh)));
        }
        fresh.rooms.iter().find_map(|(id, new)| {
            let room = &self.rooms[id];
            // Both were told of fifty events at least, or of as many as there are.
            if room.timeline.len() < new.timeline.len() {
                return Some(format!("{id}: events are missing: {room:?}, fresh {new:?}"));
            }
            let common = new.timeline.len();
            let seen = |room: &Room| Room {
                state: room.state.clone(),
                timeline: room.timeline[room.timeline.len() - common..].to_vec(),
                name: room.name.clone(),
                counts: room.counts.clone(),
                bump_stamp: room.bump_stamp.clone(),
            };
            let (slid, fresh) = (seen(room), seen(new));
            (slid != fresh).then(|| format!("{id}: {slid:?}, fresh {fresh:?}"))
        })
    }
}

/// Whether all state of a type is told of: lazily members are only as they matter.
fn is_followed(required: &Value, kind: &str) -> bool {
    let lazy = required["lazy_members"] == true && kind == "m.room.member";
    let is = |element: &Value| element["type"].is_null() || element["type"] == *kind;
    !lazy && events(&required["include"]).iter().any(is)
}

fn events(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
