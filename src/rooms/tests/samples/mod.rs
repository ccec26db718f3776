//! Events such as rooms are made of, drawn at random: their words are syllables, their ids and keys
//! nobody's. The dictionary for bodies is made from them, and measured by others.
#![allow(dead_code)]

use comity_protocol::{
    event::{EventBuilder, Reference},
    id::{OwnedRoomId, OwnedUserId, UserId, event_id},
    room_version::RoomVersion,
    sign::SigningKey,
};
use rand::{Rng, RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SYLLABLES: [&str; 24] = [
    "ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "wu", "an", "el", "in", "or", "ur", "st",
    "pa", "de", "gi", "lo", "mu", "fa", "he", "jo",
];
/// Kinds of events, with how many of each are in a hundred and a few.
const KINDS: [(&str, u32); 26] = [
    ("text", 34),
    ("long", 4),
    ("encrypted", 26),
    ("reaction", 9),
    ("edit", 4),
    ("reply", 5),
    ("thread", 5),
    ("image", 3),
    ("file", 2),
    ("member", 9),
    ("invite", 2),
    ("leave", 2),
    ("redaction", 3),
    ("create", 1),
    ("levels", 2),
    ("rules", 1),
    ("visibility", 1),
    ("guests", 1),
    ("encryption", 1),
    ("name", 1),
    ("topic", 1),
    ("avatar", 1),
    ("alias", 1),
    ("pinned", 1),
    ("space", 1),
    ("acl", 1),
];
const VERSIONS: [RoomVersion; 4] = [
    RoomVersion::V6,
    RoomVersion::V10,
    RoomVersion::V11,
    RoomVersion::V12,
];

/// Draws events.
pub struct Samples(ChaCha8Rng);

impl Samples {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The canonical JSON of so many events.
    pub fn events(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event()).collect()
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    fn base64(&mut self, chars: usize) -> String {
        let chars = (0..chars).map(|_| char::from(*BASE64.choose(&mut self.0).unwrap()));
        chars.collect()
    }

    fn word(&mut self) -> String {
        (0..=self.below(3))
            .map(|_| *SYLLABLES.choose(&mut self.0).unwrap())
            .collect()
    }

    pub fn words(&mut self, most: usize) -> String {
        let words: Vec<String> = (0..=self.below(most)).map(|_| self.word()).collect();
        words.join(" ")
    }

    fn server(&mut self) -> String {
        let name = self.word();
        let names = [
            format!("{name}.org"),
            format!("matrix.{name}.com"),
            format!("{name}.net"),
            "matrix.org".to_owned(),
        ];
        names.choose(&mut self.0).unwrap().clone()
    }

    fn user(&mut self, server: &str) -> OwnedUserId {
        UserId::parse(format!("@{}:{server}", self.word())).unwrap()
    }

    fn id(&mut self) -> String {
        format!("${}", self.base64(43))
    }

    fn mxc(&mut self) -> String {
        format!("mxc://{}/{}", self.server(), self.base64(24))
    }

    fn references(&mut self, most: usize) -> Vec<Reference> {
        let ids = (0..=self.below(most)).map(|_| Reference::by_id(event_id(&self.id()).unwrap()));
        ids.collect()
    }

    fn kind(&mut self) -> &'static str {
        let all: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.0.random_range(0..all);
        let hit = KINDS.iter().find(|(_, weight)| {
            let hit = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            hit
        });
        hit.unwrap().0
    }

    /// The type and content of a message, one that relates to an event relates to this one.
    pub fn sent(&mut self, sender: &UserId, earlier: &str) -> (&'static str, Value) {
        loop {
            let kind = self.kind();
            let (event_type, state_key, mut content) = self.content(kind, sender, RoomVersion::V12);
            if state_key.is_some() || kind == "redaction" {
                continue;
            }
            if let Some(relates) = content.get_mut("m.relates_to") {
                relates["event_id"] = earlier.into();
            }
            return (event_type, content);
        }
    }

    fn event(&mut self) -> String {
        let kind = self.kind();
        let version = *VERSIONS.choose(&mut self.0).unwrap();
        let server = self.server();
        let sender = self.user(&server);
        let (event_type, state_key, content) = self.content(kind, &sender, version);
        let by_hash = version.rules().room_id_is_create_hash;
        let room_id = match (by_hash, kind) {
            (true, "create") => None,
            (true, _) => Some(format!("!{}", self.base64(43))),
            (false, _) => Some(format!("!{}:{}", self.base64(18), self.server())),
        };
        let first = kind == "create";
        let builder = EventBuilder {
            version,
            room_id: room_id.map(|id| OwnedRoomId::try_from(id.as_str()).unwrap()),
            sender,
            event_type: event_type.to_owned(),
            state_key,
            content: serde_json::value::to_raw_value(&content).unwrap(),
            redacts: (kind == "redaction").then(|| event_id(&self.id()).unwrap()),
            prev_events: if first {
                Vec::new()
            } else {
                self.references(2)
            },
            auth_events: if first {
                Vec::new()
            } else {
                self.references(4)
            },
            depth: self.0.random_range(1..200_000),
            origin_server_ts: self.0.random_range(1_600_000_000_000..1_900_000_000_000),
            opaque_id: String::new(),
        };
        let key_name = match self.below(3) {
            0 => "auto".to_owned(),
            1 => "0".to_owned(),
            _ => format!("a_{}", self.base64(4).replace('-', "x")),
        };
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        let key = SigningKey::from_seed(&key_name, &seed).unwrap();
        let server = server.as_str().try_into().unwrap();
        let signed = key.sign_event(server, builder.build().unwrap()).unwrap();
        signed.into_event().json().to_owned()
    }

    fn message(&mut self, most: usize) -> Value {
        let body = self.words(most);
        let mut content = json!({ "msgtype": "m.text", "body": body, "m.mentions": {} });
        if self.below(3) == 0 {
            let server = self.server();
            let user = self.user(&server);
            let html = format!(
                "<p><strong>{body}</strong> <a href=\"https://matrix.to/#/{user}\">{}</a></p>\n<ul>\n<li><code>{}</code></li>\n</ul>",
                user.localpart(),
                self.word()
            );
            content["format"] = "org.matrix.custom.html".into();
            content["formatted_body"] = html.into();
            content["m.mentions"] = json!({ "user_ids": [user] });
        }
        content
    }

    fn content(
        &mut self,
        kind: &str,
        sender: &UserId,
        version: RoomVersion,
    ) -> (&'static str, Option<String>, Value) {
        let key = |key: &str| Some(key.to_owned());
        let server = self.server();
        let other = self.user(&server);
        let target = self.id();
        match kind {
            "long" => ("m.room.message", None, self.message(200)),
            "encrypted" => {
                let bytes = 200 + self.below(500);
                let mut content = json!({
                    "algorithm": "m.megolm.v1.aes-sha2",
                    "ciphertext": format!("AwgA{}", self.base64(bytes)),
                    "device_id": self.base64(10).to_uppercase(),
                    "sender_key": self.base64(43),
                    "session_id": self.base64(43),
                });
                if self.below(3) == 0 {
                    content["m.relates_to"] = json!({ "event_id": target, "is_falling_back": true,
                        "m.in_reply_to": { "event_id": self.id() }, "rel_type": "m.thread" });
                }
                ("m.room.encrypted", None, content)
            }
            "reaction" => {
                let key = *["👍️", "❤️", "😂", "🎉", "👀", "🚀"]
                    .choose(&mut self.0)
                    .unwrap();
                let relates = json!({ "event_id": target, "key": key, "rel_type": "m.annotation" });
                ("m.reaction", None, json!({ "m.relates_to": relates }))
            }
            "edit" => {
                let new = self.message(10);
                let mut content = new.clone();
                content["body"] = format!("* {}", new["body"].as_str().unwrap()).into();
                content["m.new_content"] = new;
                content["m.relates_to"] = json!({ "event_id": target, "rel_type": "m.replace" });
                ("m.room.message", None, content)
            }
            "reply" => {
                let mut content = self.message(10);
                content["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": target } });
                content["m.mentions"] = json!({ "user_ids": [other] });
                ("m.room.message", None, content)
            }
            "thread" => {
                let mut content = self.message(10);
                content["m.relates_to"] = json!({ "event_id": target, "is_falling_back": true,
                    "m.in_reply_to": { "event_id": self.id() }, "rel_type": "m.thread" });
                ("m.room.message", None, content)
            }
            "image" | "file" => {
                let (msgtype, mime, ending) = match kind {
                    "image" => ("m.image", "image/jpeg", "jpg"),
                    _ => ("m.file", "application/pdf", "pdf"),
                };
                let mut content = json!({
                    "msgtype": msgtype, "body": format!("{}.{ending}", self.word()),
                    "filename": format!("{}.{ending}", self.word()), "url": self.mxc(),
                    "info": { "mimetype": mime, "size": self.below(4_000_000) }, "m.mentions": {},
                });
                if kind == "image" {
                    content["info"] = json!({
                        "mimetype": mime, "size": self.below(4_000_000), "w": self.below(4_000),
                        "h": self.below(4_000), "thumbnail_url": self.mxc(),
                        "thumbnail_info": { "mimetype": "image/jpeg", "w": 800, "h": 600, "size": self.below(90_000) },
                        "xyz.amorgan.blurhash": self.base64(28),
                    });
                }
                ("m.room.message", None, content)
            }
            "member" | "invite" | "leave" => {
                let membership = if kind == "member" { "join" } else { kind };
                let mut content = json!({ "membership": membership, "displayname": self.words(2) });
                if self.below(2) == 0 {
                    content["avatar_url"] = self.mxc().into();
                }
                if kind == "leave" {
                    content = json!({ "membership": "leave" });
                }
                if kind == "invite" {
                    content["is_direct"] = true.into();
                }
                let who = if kind == "member" {
                    sender.to_string()
                } else {
                    other.to_string()
                };
                ("m.room.member", key(&who), content)
            }
            "redaction" => (
                "m.room.redaction",
                None,
                json!({ "reason": self.words(3), "redacts": target }),
            ),
            "create" => {
                let room_id = format!("!{}:{server}", self.base64(18));
                let mut content = json!({ "room_version": version.as_str(),
                    "predecessor": { "room_id": room_id, "event_id": target }, "m.federate": true });
                if !version.rules().creator_is_sender {
                    content["creator"] = sender.as_str().into();
                }
                ("m.room.create", key(""), content)
            }
            "levels" => (
                "m.room.power_levels",
                key(""),
                json!({
                    "ban": 50, "events": { "m.room.avatar": 50, "m.room.canonical_alias": 50, "m.room.encryption": 100,
                        "m.room.history_visibility": 100, "m.room.name": 50, "m.room.power_levels": 100,
                        "m.room.server_acl": 100, "m.room.tombstone": 100, "m.room.pinned_events": 50,
                        "m.call.member": 0 },
                    "events_default": 0, "historical": 100, "invite": 0, "kick": 50, "notifications": { "room": 50 },
                    "redact": 50, "state_default": 50, "users": { (other.as_str()): 100 }, "users_default": 0,
                }),
            ),
            "rules" => {
                let rule = *["public", "invite", "knock", "restricted"]
                    .choose(&mut self.0)
                    .unwrap();
                let allow = json!([{ "room_id": format!("!{}:{server}", self.base64(18)), "type": "m.room_membership" }]);
                (
                    "m.room.join_rules",
                    key(""),
                    json!({ "join_rule": rule, "allow": allow }),
                )
            }
            "visibility" => {
                let setting = *["shared", "joined", "invited", "world_readable"]
                    .choose(&mut self.0)
                    .unwrap();
                (
                    "m.room.history_visibility",
                    key(""),
                    json!({ "history_visibility": setting }),
                )
            }
            "guests" => {
                let access = *["can_join", "forbidden"].choose(&mut self.0).unwrap();
                (
                    "m.room.guest_access",
                    key(""),
                    json!({ "guest_access": access }),
                )
            }
            "encryption" => {
                let content = json!({ "algorithm": "m.megolm.v1.aes-sha2",
                    "rotation_period_ms": 604_800_000, "rotation_period_msgs": 100 });
                ("m.room.encryption", key(""), content)
            }
            "name" => ("m.room.name", key(""), json!({ "name": self.words(3) })),
            "topic" => {
                let topic = self.words(8);
                let parts = json!({ "m.text": [{ "body": topic, "mimetype": "text/plain" }] });
                (
                    "m.room.topic",
                    key(""),
                    json!({ "topic": topic, "m.topic": parts }),
                )
            }
            "avatar" => (
                "m.room.avatar",
                key(""),
                json!({ "url": self.mxc(), "info": { "mimetype": "image/png" } }),
            ),
            "alias" => {
                let alias = format!("#{}:{server}", self.word());
                (
                    "m.room.canonical_alias",
                    key(""),
                    json!({ "alias": alias, "alt_aliases": [alias] }),
                )
            }
            "pinned" => (
                "m.room.pinned_events",
                key(""),
                json!({ "pinned": [target, self.id()] }),
            ),
            "space" => {
                let child = format!("!{}:{server}", self.base64(18));
                (
                    "m.space.child",
                    key(&child),
                    json!({ "via": [server], "suggested": false, "order": self.word() }),
                )
            }
            "acl" => {
                let content =
                    json!({ "allow": ["*"], "allow_ip_literals": false, "deny": [server] });
                ("m.room.server_acl", key(""), content)
            }
            _ => ("m.room.message", None, self.message(14)),
        }
    }
}
