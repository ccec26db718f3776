//! Ephemeral data that waits for a server: of each thing the latest word.

use std::collections::BTreeMap;

use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use comity_rooms::ReadReceipt;
use serde_json::{Map, Value, json, value::RawValue, value::to_raw_value};

/// Things of a kind that wait for a server; of more nothing is kept.
const WAITING: usize = 1_000;
/// Users in one piece of presence.
const PRESENCE: usize = 50;

/// Typing, receipts and presence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edus {
    typing: BTreeMap<(OwnedRoomId, OwnedUserId), bool>,
    receipts: BTreeMap<(OwnedRoomId, OwnedUserId, Option<String>), ReadReceipt>,
    presence: BTreeMap<OwnedUserId, Map<String, Value>>,
}

impl Edus {
    pub fn typing(&mut self, room_id: OwnedRoomId, user: OwnedUserId, is_typing: bool) {
        put(&mut self.typing, (room_id, user), is_typing);
    }

    pub fn receipt(&mut self, room_id: OwnedRoomId, receipt: ReadReceipt) {
        let key = (room_id, receipt.user.clone(), receipt.thread.clone());
        put(&mut self.receipts, key, receipt);
    }

    pub fn presence(&mut self, user: OwnedUserId, seen: Map<String, Value>) {
        put(&mut self.presence, user, seen);
    }

    pub fn is_empty(&self) -> bool {
        self.typing.is_empty() && self.receipts.is_empty() && self.presence.is_empty()
    }

    /// Takes what goes into one transaction.
    pub fn take(&mut self, most: usize) -> Self {
        let presence = first(&mut self.presence, PRESENCE);
        let left = most.saturating_sub(usize::from(!presence.is_empty()));
        let typing = first(&mut self.typing, left);
        let receipts = first(&mut self.receipts, left - typing.len());
        Self {
            typing,
            receipts,
            presence,
        }
    }

    /// Keeps the receipts of a batch that wasn't taken, unless there are newer ones.
    pub fn put_back(&mut self, batch: Self) {
        for (key, receipt) in batch.receipts {
            if !self.receipts.contains_key(&key) {
                put(&mut self.receipts, key, receipt);
            }
        }
    }

    /// As they go onto the wire.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#typing-notifications>,
    /// <https://spec.matrix.org/v1.19/server-server-api/#receipts>,
    /// <https://spec.matrix.org/v1.19/server-server-api/#presence>
    pub fn write(&self) -> Vec<Box<RawValue>> {
        let mut edus = Vec::new();
        let mut edu = |edu_type: &str, content: Value| {
            edus.extend(to_raw_value(
                &json!({ "edu_type": edu_type, "content": content }),
            ));
        };
        for ((room_id, user_id), typing) in &self.typing {
            let content = json!({ "room_id": room_id, "user_id": user_id, "typing": typing });
            edu("m.typing", content);
        }
        for ((room_id, user, thread), receipt) in &self.receipts {
            let mut data = json!({ "ts": receipt.ts });
            if let (Some(data), Some(thread)) = (data.as_object_mut(), thread) {
                data.insert("thread_id".to_owned(), json!(thread));
            }
            let read = json!({ "event_ids": [receipt.event_id], "data": data });
            let content = json!({ room_id.as_str(): { "m.read": { user.as_str(): read } } });
            edu("m.receipt", content);
        }
        if !self.presence.is_empty() {
            let push: Vec<_> = self.presence.values().collect();
            edu("m.presence", json!({ "push": push }));
        }
        edus
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    if map.len() < WAITING || map.contains_key(&key) {
        map.insert(key, value);
    }
}

/// The first entries of a map, taken out of it.
fn first<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, most: usize) -> BTreeMap<K, V> {
    match map.keys().nth(most).cloned() {
        Some(rest) => {
            let rest = map.split_off(&rest);
            std::mem::replace(map, rest)
        }
        None => std::mem::take(map),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_in_the_specified_form() {
        let room = OwnedRoomId::try_from("!r:x").unwrap();
        let user = OwnedUserId::try_from("@u:x").unwrap();
        let mut edus = Edus::default();
        edus.typing(room.clone(), user.clone(), true);
        edus.typing(room.clone(), user.clone(), false);
        let receipt = ReadReceipt {
            user: user.clone(),
            kind: comity_rooms::ReceiptKind::Read,
            thread: Some("main".to_owned()),
            event_id: "$e".try_into().unwrap(),
            ts: 5,
        };
        edus.receipt(room.clone(), receipt);
        let seen = json!({ "user_id": "@u:x", "presence": "online" });
        edus.presence(user, seen.as_object().unwrap().clone());
        let taken = edus.take(100);
        assert!(edus.is_empty());
        let written: Vec<Value> = taken
            .write()
            .iter()
            .map(|edu| serde_json::from_str(edu.get()).unwrap())
            .collect();
        assert_eq!(
            written,
            [
                json!({ "edu_type": "m.typing",
                        "content": { "room_id": "!r:x", "user_id": "@u:x", "typing": false } }),
                json!({ "edu_type": "m.receipt", "content": { "!r:x": { "m.read": { "@u:x": {
                        "event_ids": ["$e"], "data": { "ts": 5, "thread_id": "main" } } } } } }),
                json!({ "edu_type": "m.presence", "content": { "push": [seen] } }),
            ]
        );
        edus.put_back(taken);
        assert_eq!(
            edus.write().len(),
            1,
            "only the receipt is worth sending later"
        );
        for n in 0..300 {
            let user = OwnedUserId::try_from(format!("@u{n}:x")).unwrap();
            edus.typing(room.clone(), user, true);
        }
        assert_eq!(edus.take(100).write().len(), 100);
    }
}
