//! Rooms by recipe: the same shape gives the same room but for its serial number, every event hashed and signed as its sender's server would.
//!
//! A room is one straight line of events: its creation, the members one after the other (each as often as
//! its shape says, so that the room's auth chains have a depth), other state. What comes after is made by
//! the workloads, one event at a time ([`Room::add`]).

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::event::{Event, EventBuilder, Reference};
use comity_protocol::id::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, room_id_of_create,
};
use comity_protocol::room_version::RoomVersion;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Origin, Remotes};
use crate::error::{Error, Result};

/// What to make a room of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its version.
    pub version: RoomVersion,
    /// Members, spread over this many servers.
    pub members: usize,
    /// Servers.
    pub origins: usize,
    /// Member events that came before each member's present one.
    pub earlier: usize,
    /// State events beside the members'.
    pub entries: usize,
}

/// An event of a room.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its id.
    pub id: OwnedEventId,
    /// Its JSON, as it goes from server to server.
    pub json: String,
    prev: Vec<OwnedEventId>,
    auth: Vec<OwnedEventId>,
    depth: u64,
}

type Key = (String, String);

/// A room that the remote servers share.
pub struct Room {
    version: RoomVersion,
    id: OwnedRoomId,
    events: BTreeMap<OwnedEventId, Made>,
    /// The state after the line's last event.
    state: BTreeMap<Key, OwnedEventId>,
    /// The line's last event.
    tip: OwnedEventId,
    now_ms: u64,
}

fn failed(error: impl ToString) -> Error {
    Error::Program(format!("an event of a made room: {}", error.to_string()))
}

impl Room {
    pub(super) fn make(remotes: &Remotes, shape: Shape) -> Result<Self> {
        let founder = remotes.user(0, "m0")?;
        // Two rooms of one shape differ in this alone.
        let serial = remotes.rooms().len();
        let version = shape.version;
        let named = version.rules().room_id_is_create_hash;
        let name = &remotes.origin(0)?.name;
        let chosen = (!named)
            .then(|| RoomId::parse(format!("!made{serial}:{name}")))
            .transpose()
            .map_err(failed)?;
        // Versions that have no use for a `creator` don't mind it.
        let content = json!({"room_version": version.as_str(), "creator": founder, "org.example.serial": serial});
        let create = EventBuilder {
            version,
            room_id: chosen.clone(),
            sender: founder.clone(),
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content: raw(&content)?,
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: signed_ms(remotes.0.began_ms),
            opaque_id: "create".to_owned(),
        };
        let create = finish(remotes.origin(0)?, &create)?;
        let id = chosen
            .or_else(|| room_id_of_create(&create.id))
            .ok_or_else(|| failed("a create event without a room"))?;
        let mut room = Self {
            version,
            id,
            tip: create.id.clone(),
            state: BTreeMap::from([(
                ("m.room.create".to_owned(), String::new()),
                create.id.clone(),
            )]),
            events: BTreeMap::from([(create.id.clone(), create)]),
            now_ms: remotes.0.began_ms,
        };
        let member = json!({"membership": "join"});
        room.go_on(
            remotes,
            0,
            "m0",
            "m.room.member",
            Some(founder.as_str()),
            &member,
        )?;
        // A creator whose power is beyond all levels may not stand among them.
        let levels = if version.rules().privileged_creators {
            json!({"state_default": 0, "users_default": 0})
        } else {
            json!({"state_default": 0, "users_default": 0, "users": {founder.as_str(): 100}})
        };
        room.go_on(remotes, 0, "m0", "m.room.power_levels", Some(""), &levels)?;
        let rule = json!({"join_rule": "public"});
        room.go_on(remotes, 0, "m0", "m.room.join_rules", Some(""), &rule)?;
        let seen = json!({"history_visibility": "shared"});
        room.go_on(
            remotes,
            0,
            "m0",
            "m.room.history_visibility",
            Some(""),
            &seen,
        )?;
        for entry in 0..shape.entries {
            let content = json!({"value": entry, "what": "an entry of a room's state"});
            let key = format!("entry{entry}");
            room.go_on(remotes, 0, "m0", "org.example.entry", Some(&key), &content)?;
        }
        for earlier in 0..=shape.earlier {
            for member in 1..shape.members {
                let origin = member % shape.origins.max(1);
                let name = format!("m{member}");
                let user = remotes.user(origin, &name)?;
                let content = json!({"membership": "join", "displayname": format!("Member {member}, for the {earlier}. time")});
                room.go_on(
                    remotes,
                    origin,
                    &name,
                    "m.room.member",
                    Some(user.as_str()),
                    &content,
                )?;
            }
        }
        Ok(room)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> RoomVersion {
        self.version
    }

    /// The line's last event.
    #[must_use]
    pub fn tip(&self) -> OwnedEventId {
        self.tip.clone()
    }

    /// Adds an event of member `name` of one of the servers that follows `prev`, and gives it. State that it sets is the
    /// state of none but those who follow it.
    pub fn add(
        &mut self,
        remotes: &Remotes,
        (origin, name): (usize, &str),
        prev: &[OwnedEventId],
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Result<Made> {
        let sender = remotes.user(origin, name)?;
        let depth = prev
            .iter()
            .filter_map(|id| Some(self.events.get(id)?.depth))
            .max();
        let builder = EventBuilder {
            version: self.version,
            room_id: Some(self.id.clone()),
            event_type: kind.to_owned(),
            state_key: state_key.map(str::to_owned),
            content: raw(content)?,
            redacts: None,
            prev_events: self.references(prev),
            auth_events: self.references(&self.authority_of(&sender, kind, state_key)),
            depth: depth.unwrap_or(0) + 1,
            origin_server_ts: signed_ms(self.now_ms),
            opaque_id: format!("e{}", self.events.len()),
            sender,
        };
        let made = finish(remotes.origin(origin)?, &builder)?;
        self.events.insert(made.id.clone(), made.clone());
        Ok(made)
    }

    /// Adds an event at the line's end.
    pub fn go_on(
        &mut self,
        remotes: &Remotes,
        origin: usize,
        name: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Result<Made> {
        let tip = [self.tip.clone()];
        let made = self.add(remotes, (origin, name), &tip, kind, state_key, content)?;
        if let Some(key) = state_key {
            self.state
                .insert((kind.to_owned(), key.to_owned()), made.id.clone());
        }
        self.tip = made.id.clone();
        Ok(made)
    }

    fn authority_of(
        &self,
        sender: &OwnedUserId,
        kind: &str,
        state_key: Option<&str>,
    ) -> Vec<OwnedEventId> {
        let mut keys = vec![
            ("m.room.power_levels", ""),
            ("m.room.member", sender.as_str()),
        ];
        if !self.version.rules().room_id_is_create_hash {
            keys.push(("m.room.create", ""));
        }
        if kind == "m.room.member" {
            keys.push(("m.room.join_rules", ""));
            keys.extend(
                state_key
                    .filter(|key| *key != sender.as_str())
                    .map(|key| ("m.room.member", key)),
            );
        }
        let found = keys
            .into_iter()
            .filter_map(|(kind, key)| self.state.get(&(kind.to_owned(), key.to_owned())).cloned());
        found.collect()
    }

    fn references(&self, ids: &[OwnedEventId]) -> Vec<Reference> {
        ids.iter().cloned().map(Reference::by_id).collect()
    }

    /// The answer of `make_join`.
    pub(super) fn join_template(&self, user: &str, us: &ServerName) -> Option<String> {
        let user: OwnedUserId = user.try_into().ok()?;
        let tip = self.events.get(&self.tip)?;
        let event = json!({
            "type": "m.room.member",
            "room_id": self.id,
            "sender": user,
            "state_key": user,
            "content": {"membership": "join"},
            "prev_events": [self.tip],
            "auth_events": self.authority_of(&user, "m.room.member", Some(user.as_str())),
            "depth": tip.depth + 1,
            "origin": us,
            "origin_server_ts": self.now_ms,
        });
        Some(json!({"room_version": self.version.as_str(), "event": event}).to_string())
    }

    /// The answer of `send_join`: the state before `join`.
    pub(super) fn joined(&mut self, us: &ServerName, join: &str, omits_members: bool) -> String {
        let wanted = |(kind, _): &&Key| !omits_members || kind != "m.room.member";
        let state: Vec<OwnedEventId> = self
            .state
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(_, id)| id.clone())
            .collect();
        // Whoever joins needs the authority of the join itself as well.
        let authority = serde_json::from_str::<Value>(join).ok();
        let authority = authority
            .as_ref()
            .and_then(|join| join.get("auth_events")?.as_array());
        let authority = authority.into_iter().flatten().filter_map(|id| {
            let id = EventId::parse(id.as_str()?).ok()?;
            self.events.contains_key(&id).then_some(id)
        });
        let mut chain = self.auth_chain(&state);
        chain.extend(authority);
        let chain: Vec<OwnedEventId> = chain.into_iter().collect();
        let servers: BTreeSet<&str> = self
            .state
            .keys()
            .filter(|(kind, _)| kind == "m.room.member")
            .filter_map(|(_, user)| Some(user.split_once(':')?.1))
            .collect();
        let servers = serde_json::to_string(&servers).unwrap_or_default();
        format!(
            r#"{{"origin":"{us}","members_omitted":{omits_members},"servers_in_room":{servers},"event":{join},"state":[{}],"auth_chain":[{}]}}"#,
            self.texts(&state),
            self.texts(&chain)
        )
    }

    /// The line goes on from a join that the measured server made.
    pub(super) fn goes_on_from(&mut self, id: &str, json: &[u8]) -> Option<()> {
        let id = EventId::parse(id).ok()?;
        let json = std::str::from_utf8(json).ok()?.to_owned();
        let event: Value = serde_json::from_str(&json).ok()?;
        let user = event.get("state_key")?.as_str()?.to_owned();
        let made = Made {
            id: id.clone(),
            prev: vec![self.tip.clone()],
            auth: self.authority_of(
                &user.as_str().try_into().ok()?,
                "m.room.member",
                Some(&user),
            ),
            depth: event.get("depth")?.as_u64()?,
            json,
        };
        self.events.insert(id.clone(), made);
        self.state
            .insert(("m.room.member".to_owned(), user), id.clone());
        self.tip = id;
        Some(())
    }

    /// The answer of `/state`.
    pub(super) fn state(&self) -> String {
        let state: Vec<OwnedEventId> = self.state.values().cloned().collect();
        let chain: Vec<OwnedEventId> = self.auth_chain(&state).into_iter().collect();
        let (state, chain) = (self.texts(&state), self.texts(&chain));
        format!(r#"{{"pdus":[{state}],"auth_chain":[{chain}]}}"#)
    }

    /// The answer of `/state_ids`.
    pub(super) fn state_ids(&self) -> String {
        let state: Vec<OwnedEventId> = self.state.values().cloned().collect();
        let chain = self.auth_chain(&state);
        json!({"pdu_ids": state, "auth_chain_ids": chain}).to_string()
    }

    /// The answer of `/event_auth`.
    pub(super) fn auth_of(&self, event: &str) -> Option<String> {
        let event = self.events.get(&EventId::parse(event).ok()?)?;
        let chain: Vec<OwnedEventId> = self
            .auth_chain(std::slice::from_ref(&event.id))
            .into_iter()
            .collect();
        Some(format!(r#"{{"auth_chain":[{}]}}"#, self.texts(&chain)))
    }

    /// An event's text.
    pub(super) fn event(&self, id: &str) -> Option<&str> {
        let event = self.events.get(&EventId::parse(id).ok()?)?;
        Some(&event.json)
    }

    /// Events before `latest` and not before `earliest`, oldest first.
    pub(super) fn between(
        &self,
        earliest: &[String],
        latest: &[String],
        limit: usize,
    ) -> Vec<&str> {
        let known: BTreeSet<&str> = earliest.iter().map(String::as_str).collect();
        let latest = latest
            .iter()
            .filter_map(|id| self.events.get(&EventId::parse(id).ok()?));
        let mut found = self.back(latest.flat_map(|event| &event.prev), &known, limit);
        found.sort_by_key(|made| made.depth);
        found.into_iter().map(|made| made.json.as_str()).collect()
    }

    /// An event and those before it.
    pub(super) fn before(&self, from: &str, limit: usize) -> Vec<&str> {
        let from = EventId::parse(from).ok();
        let from = from.and_then(|id| Some(self.events.get_key_value(&id)?.0));
        let found = self.back(from.into_iter(), &BTreeSet::new(), limit);
        found.into_iter().map(|made| made.json.as_str()).collect()
    }

    fn back<'a>(
        &'a self,
        from: impl Iterator<Item = &'a OwnedEventId>,
        known: &BTreeSet<&str>,
        limit: usize,
    ) -> Vec<&'a Made> {
        let mut queue: std::collections::VecDeque<&OwnedEventId> = from.collect();
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(id) = queue.pop_front() {
            if found.len() == limit || known.contains(id.as_str()) || !seen.insert(id) {
                continue;
            }
            if let Some(made) = self.events.get(id) {
                found.push(made);
                queue.extend(&made.prev);
            }
        }
        found
    }

    fn auth_chain(&self, of: &[OwnedEventId]) -> BTreeSet<OwnedEventId> {
        let mut chain = BTreeSet::new();
        let mut queue: Vec<&OwnedEventId> = of.iter().collect();
        while let Some(id) = queue.pop() {
            for auth in self
                .events
                .get(id)
                .into_iter()
                .flat_map(|event| &event.auth)
            {
                if chain.insert(auth.clone()) {
                    queue.push(auth);
                }
            }
        }
        chain
    }

    fn texts(&self, ids: &[OwnedEventId]) -> String {
        let texts: Vec<&str> = ids
            .iter()
            .filter_map(|id| Some(self.events.get(id)?.json.as_str()))
            .collect();
        texts.join(",")
    }
}

/// Signs another server's template of a join as the user's own.
pub(super) fn complete(origin: &Origin, version: RoomVersion, template: &Value) -> Result<Event> {
    let text = |key: &str| {
        template
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let list = |key: &str| {
        let ids = template
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        ids.filter_map(|id| Reference::read(version, &id.to_string()))
            .collect()
    };
    let builder = EventBuilder {
        version,
        room_id: Some(RoomId::parse(text("room_id")).map_err(failed)?),
        sender: text("sender").try_into().map_err(failed)?,
        event_type: text("type").to_owned(),
        state_key: Some(text("state_key").to_owned()),
        content: raw(template.get("content").unwrap_or(&Value::Null))?,
        redacts: None,
        prev_events: list("prev_events"),
        auth_events: list("auth_events"),
        depth: template.get("depth").and_then(Value::as_u64).unwrap_or(1),
        origin_server_ts: template
            .get("origin_server_ts")
            .and_then(Value::as_i64)
            .unwrap_or(1),
        opaque_id: "join".to_owned(),
    };
    signed(origin, &builder)
}

fn signed(origin: &Origin, builder: &EventBuilder) -> Result<Event> {
    let unsigned = builder.build().map_err(failed)?;
    let signed = origin
        .key
        .sign_event(&origin.name, unsigned)
        .map_err(failed)?;
    Ok(signed.into_event())
}

fn finish(origin: &Origin, builder: &EventBuilder) -> Result<Made> {
    let event = signed(origin, builder)?;
    Ok(Made {
        id: event.event_id().to_owned(),
        json: event.json().to_owned(),
        prev: event.prev_events().to_vec(),
        auth: event.auth_events().to_vec(),
        depth: event.depth(),
    })
}

fn raw(content: &Value) -> Result<Box<RawValue>> {
    Ok(serde_json::value::to_raw_value(content)?)
}

fn signed_ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
