//! Events that a peer makes, as good or as bad as the test wants them.

use std::collections::BTreeMap;

use ruma_common::{
    CanonicalJsonObject, RoomVersionId,
    canonical_json::redact,
    serde::{
        Base64,
        base64::{Standard, UrlSafe},
    },
};
use ruma_signatures::{KeyPair, hash_and_sign_event, reference_hash, sign_json};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::HostilePeer;
use crate::{Server, encode};

/// An event as it goes from server to server.
#[derive(Clone, Debug)]
pub struct Pdu {
    /// Its id.
    pub id: String,
    /// Its JSON.
    pub json: Value,
}

/// A room as a peer knows it that has joined it.
#[derive(Clone, Debug)]
pub struct PeerRoom {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The state, by type and state key.
    pub state: BTreeMap<(String, String), Pdu>,
    /// The last event, which the next one follows.
    pub last: Pdu,
}

impl HostilePeer {
    /// Hashes and signs an event as it is.
    ///
    /// # Panics
    /// If it is no canonical JSON: what a peer does to it may be done afterwards.
    #[must_use]
    pub fn sign(&self, version: &str, event: Value) -> Pdu {
        let rules = RoomVersionId::try_from(version)
            .ok()
            .and_then(|version| version.rules())
            .expect("a room version");
        let mut object: CanonicalJsonObject =
            serde_json::from_value(event).expect("canonical JSON");
        hash_and_sign_event(
            self.name.as_str(),
            &self.pair,
            &mut object,
            &rules.redaction,
        )
        .expect("an event can be signed");
        let json = serde_json::to_value(&object).expect("JSON");
        let id = match json["event_id"].as_str() {
            Some(id) => id.to_owned(),
            None => format!("${}", reference_hash(&object, &rules).expect("a hash")),
        };
        Pdu { id, json }
    }

    /// [`HostilePeer::sign`] of what no library would sign: `written` stands in place of the string `"HERE"` in all that is hashed and
    /// signed. The id and the text of the event, of a version from 4 on.
    ///
    /// # Panics
    /// If it is no canonical JSON apart from that.
    #[must_use]
    pub fn sign_written(&self, version: &str, event: Value, written: &str) -> (String, String) {
        let rules = RoomVersionId::try_from(version)
            .ok()
            .and_then(|version| version.rules())
            .expect("a room version");
        let text = |object: &CanonicalJsonObject| {
            let text = serde_json::to_string(object).expect("JSON");
            text.replace("\"HERE\"", written)
        };
        let put = |object: &mut CanonicalJsonObject, key: &str, value: Value| {
            let value = value.try_into().expect("canonical JSON");
            object.insert(key.to_owned(), value);
        };
        let mut object: CanonicalJsonObject =
            serde_json::from_value(event).expect("canonical JSON");
        let hash: [u8; 32] = Sha256::digest(text(&object)).into();
        let hash = Base64::<Standard, _>::new(hash).encode();
        put(&mut object, "hashes", json!({ "sha256": hash }));
        let redacted = redact(object.clone(), &rules.redaction, None).expect("an event");
        let signed = text(&redacted);
        let signature = self.pair.sign(signed.as_bytes()).base64();
        let signatures = json!({ self.name.as_str(): { "ed25519:evil": signature } });
        put(&mut object, "signatures", signatures);
        let hash: [u8; 32] = Sha256::digest(signed).into();
        let id = format!("${}", Base64::<UrlSafe, _>::new(hash).encode());
        (id, text(&object))
    }

    /// Signs an object as it is, as anything but an event is signed.
    ///
    /// # Panics
    /// If it is no canonical JSON.
    #[must_use]
    pub fn sign_object(&self, object: Value) -> Value {
        let mut object: CanonicalJsonObject =
            serde_json::from_value(object).expect("canonical JSON");
        sign_json(self.name.as_str(), &self.pair, &mut object).expect("an object can be signed");
        serde_json::to_value(&object).expect("JSON")
    }

    /// The public half of its key, in base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.key.verify_key().to_base64()
    }

    /// Joins one of its users to a room of `server`, as a well-behaved server would.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn join(&self, server: &Server, room: &str, localpart: &str) -> PeerRoom {
        let user = self.user(localpart);
        let versions = (1..=12).map(|version| format!("ver={version}"));
        let versions = versions.collect::<Vec<_>>().join("&");
        let path = format!(
            "/_matrix/federation/v1/make_join/{}/{}?{versions}",
            encode(room),
            encode(user.as_str())
        );
        let template = self.to(server).get(path).send().await.ok();
        let version = template["room_version"].as_str().expect("a version");
        let join = self.sign(version, self.completed(&template["event"], version));
        let path = format!(
            "/_matrix/federation/v2/send_join/{}/{}",
            encode(room),
            encode(&join.id)
        );
        let sent = self.to(server).put(path).json(&join.json).send().await.ok();
        let mut state = BTreeMap::new();
        let events = sent["state"].as_array().expect("a state");
        for json in events.iter().cloned().chain([join.json.clone()]) {
            let (kind, key) = (text(&json, "type"), text(&json, "state_key"));
            let id = id_of(version, &json);
            state.insert((kind, key), Pdu { id, json });
        }
        PeerRoom {
            id: room.to_owned(),
            version: version.to_owned(),
            state,
            last: join,
        }
    }

    /// A template with what its maker adds to it.
    #[must_use]
    pub fn completed(&self, template: &Value, version: &str) -> Value {
        let mut event = template.clone();
        event["origin"] = json!(self.name);
        event["origin_server_ts"] = json!(1_000_000);
        if matches!(version, "1" | "2") {
            // Its maker's to choose, and another one for each.
            let (what, depth) = (&event["content"]["membership"], &event["depth"]);
            let unique = format!(
                "${}{depth}:{}",
                what.as_str().unwrap_or_default(),
                self.name
            );
            event["event_id"] = json!(unique);
        }
        event
    }

    /// An event of one of its users that follows the room's last one, with the auth events it should have. Nothing of it is
    /// kept: [`PeerRoom::went_on`] does.
    #[must_use]
    pub fn event(
        &self,
        room: &PeerRoom,
        localpart: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Pdu {
        self.sign(
            &room.version,
            self.unsigned(room, localpart, kind, state_key, content),
        )
    }

    /// [`HostilePeer::event`] before it is hashed and signed.
    #[must_use]
    pub fn unsigned(
        &self,
        room: &PeerRoom,
        localpart: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Value {
        let sender = self.user(localpart);
        let mut rests_on = vec![
            ("m.room.power_levels", ""),
            ("m.room.member", sender.as_str()),
        ];
        // From version 12 on the room's id names its create event.
        if room.version != "12" {
            rests_on.push(("m.room.create", ""));
        }
        if kind == "m.room.member" {
            // A leave or a ban that cites them is rejected.
            let membership = content["membership"].as_str().unwrap_or_default();
            if matches!(membership, "join" | "invite" | "knock") {
                rests_on.push(("m.room.join_rules", ""));
            }
            if let Some(target) = state_key.filter(|target| *target != sender.as_str()) {
                rests_on.push(("m.room.member", target));
            }
        }
        let rests_on = rests_on.iter().filter_map(|(kind, key)| {
            let key = ((*kind).to_owned(), (*key).to_owned());
            Some(room.reference(room.state.get(&key)?))
        });
        let mut event = json!({
            "type": kind,
            "room_id": room.id,
            "sender": sender,
            "origin": self.name,
            "origin_server_ts": 1_000_000,
            "depth": room.last.json["depth"].as_u64().unwrap_or(0) + 1,
            "prev_events": [room.reference(&room.last)],
            "auth_events": rests_on.collect::<Vec<_>>(),
            "content": content,
        });
        if let Some(key) = state_key {
            event["state_key"] = json!(key);
        }
        if matches!(room.version.as_str(), "1" | "2") {
            let unique = event["depth"].as_u64().unwrap_or(0);
            event["event_id"] = json!(format!("$e{unique}:{}", self.name));
        }
        event
    }
}

impl PeerRoom {
    /// The room after an event of the peer.
    pub fn went_on(&mut self, event: &Pdu) {
        if let Some(key) = event.json["state_key"].as_str() {
            let key = (text(&event.json, "type"), key.to_owned());
            self.state.insert(key, event.clone());
        }
        self.last = event.clone();
    }

    /// How events of this room's version name another one.
    #[must_use]
    pub fn reference(&self, event: &Pdu) -> Value {
        if matches!(self.version.as_str(), "1" | "2") {
            json!([event.id, {"sha256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}])
        } else {
            json!(event.id)
        }
    }
}

/// The id of an event in a version.
fn id_of(version: &str, json: &Value) -> String {
    if let Some(id) = json["event_id"].as_str() {
        return id.to_owned();
    }
    let rules = RoomVersionId::try_from(version)
        .ok()
        .and_then(|version| version.rules())
        .expect("a room version");
    let object: CanonicalJsonObject = serde_json::from_value(json.clone()).expect("canonical JSON");
    format!("${}", reference_hash(&object, &rules).expect("a hash"))
}

fn text(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_default().to_owned()
}
