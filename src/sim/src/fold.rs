//! What a client puts together from the answers of `/sync`.

use std::collections::BTreeMap;

use serde_json::Value;

/// The type of the account data that users write.
pub(crate) const DATA: &str = "org.comity.sim";

/// A user's rooms as their syncs told them.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    pub since: Option<String>,
    pub rooms: BTreeMap<String, Room>,
    /// What the own account data was told to be.
    data: Option<Value>,
    /// Something that was told may have been lost by the server: what it doesn't know of it can't take back.
    pub doubtful: bool,
    /// Forks are resolved in these rooms: a piece of state may be gone without another in its place, which no sync can say.
    forks: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Room {
    state: BTreeMap<(String, String), String>,
    timeline: Vec<String>,
    unread: Value,
}

impl Folded {
    /// Of rooms in which forks are resolved.
    pub fn of_forks() -> Self {
        Self {
            forks: true,
            ..Self::default()
        }
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// It says what can't be.
    pub fn take(&mut self, answer: &Value) -> Result<(), String> {
        self.since = answer["next_batch"].as_str().map(str::to_owned);
        for event in events(&answer["account_data"]) {
            if event["type"] == DATA {
                self.data = Some(event["content"].clone());
            }
        }
        for (id, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            let room = self.rooms.entry(id.clone()).or_default();
            if joined["timeline"]["limited"] == true {
                room.timeline.clear();
            }
            if let Some(unread) = joined.get("unread_notifications") {
                room.unread = unread.clone();
            }
            for event in events(&joined["state"]) {
                room.state(event);
            }
            // A client that asks for the state after the timeline doesn't put it together from events: forks resolve without.
            let after = joined.get("state_after");
            for event in events(&joined["timeline"]) {
                if event.get("state_key").is_some() && after.is_none() {
                    room.state(event);
                }
                let event = text(event, "event_id");
                if room.timeline.contains(&event) {
                    return Err(format!("{event} came twice by sync in {id}"));
                }
                room.timeline.push(event);
            }
            for event in after.map_or(&[][..], events) {
                room.state(event);
            }
        }
        for section in ["leave", "invite", "knock"] {
            for id in answer["rooms"][section].as_object().into_iter().flatten() {
                self.rooms.remove(id.0);
            }
        }
        Ok(())
    }

    /// What differs from a fresh sync.
    pub fn differs(&self, fresh: &Self) -> Option<String> {
        let missing = fresh.rooms.keys().find(|id| !self.rooms.contains_key(*id));
        if missing.is_some() || (!self.doubtful && self.rooms.len() != fresh.rooms.len()) {
            let rooms = |folded: &Self| folded.rooms.keys().cloned().collect::<Vec<_>>();
            return Some(format!("rooms {:?} {:?}", rooms(self), rooms(fresh)));
        }
        if self.data != fresh.data && !(self.doubtful && fresh.data.is_none()) {
            return Some(format!("account data {:?} {:?}", self.data, fresh.data));
        }
        fresh.rooms.iter().find_map(|(id, new)| {
            let room = &self.rooms[id];
            let mut state = room.state.clone();
            if self.doubtful || self.forks {
                state.retain(|key, _| new.state.contains_key(key));
            }
            if state != new.state {
                return Some(format!("state of {id}: {state:?} {:?}", new.state));
            }
            if room.unread != new.unread {
                return Some(format!("unread in {id}: {} {}", room.unread, new.unread));
            }
            let common = room.timeline.len().min(new.timeline.len());
            let tail = |room: &Room| room.timeline[room.timeline.len() - common..].to_vec();
            (tail(room) != tail(new))
                .then(|| format!("timeline of {id}: {:?} {:?}", tail(room), tail(new)))
        })
    }
}

impl Room {
    fn state(&mut self, event: &Value) {
        let key = (text(event, "type"), text(event, "state_key"));
        self.state.insert(key, text(event, "event_id"));
    }
}

fn events(of: &Value) -> &[Value] {
    of["events"].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}
