//! `event_fields`: events cut down to the properties that a client wants.
//!
//! A server may send more than was asked for, and these it always does: what makes an event an event,
//! whose kind, sender and place can't be guessed. So what is saved is content and `unsigned`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>

use std::collections::BTreeMap;

use comity_protocol::push::property_path;
use serde_json::{Map, Value, value::RawValue};

/// Properties that stay without being asked for.
const KEPT: [&str; 6] = [
    "type",
    "event_id",
    "sender",
    "origin_server_ts",
    "state_key",
    "room_id",
];
/// Properties of a path that are looked at; what is below the last comes whole.
const DEPTH: usize = 100;

/// The wanted properties, as a tree.
#[derive(Debug, Default)]
pub struct Fields {
    /// All there is from here on.
    whole: bool,
    below: BTreeMap<String, Fields>,
}

impl Fields {
    /// Reads [dot-separated paths](https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths).
    pub fn parse(paths: &[String]) -> Self {
        let mut fields = Self::default();
        for path in paths {
            let mut at = &mut fields;
            for name in property_path(path).into_iter().take(DEPTH) {
                at = at.below.entry(name).or_default();
            }
            at.whole = true;
        }
        fields
    }

    /// The event with its wanted properties alone.
    pub fn of(&self, event: &RawValue) -> Option<Box<RawValue>> {
        let event: Map<String, Value> = serde_json::from_str(event.get()).ok()?;
        let mut wanted = Map::new();
        for (name, value) in event {
            if KEPT.contains(&name.as_str()) {
                wanted.insert(name, value);
            } else if let Some(value) = self.below.get(&name).and_then(|below| below.cut(value)) {
                wanted.insert(name, value);
            }
        }
        let content = wanted.entry("content");
        content.or_insert_with(|| Value::Object(Map::new()));
        serde_json::value::to_raw_value(&wanted).ok()
    }

    fn cut(&self, value: Value) -> Option<Value> {
        if self.whole {
            return Some(value);
        }
        let Value::Object(members) = value else {
            return None;
        };
        let members = members.into_iter().filter_map(|(name, value)| {
            let value = self.below.get(&name)?.cut(value)?;
            Some((name, value))
        });
        Some(Value::Object(members.collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Filtering, `event_fields`; appendices, dot-separated property paths.
    #[test]
    fn events_are_cut_to_the_fields_wanted() {
        let event = json!({
            "type": "m.room.message", "event_id": "$e", "sender": "@a:b", "origin_server_ts": 1,
            "content": { "body": "b", "msgtype": "m.text", "m.relates_to": { "event_id": "$r", "key": "k" }, "a\\b": 1 },
            "unsigned": { "age": 5 },
        });
        let event = serde_json::value::to_raw_value(&event).unwrap();
        for (paths, content, unsigned) in [
            (vec!["content.body"], json!({ "body": "b" }), None),
            (
                vec!["content.m\\.relates_to.key", "unsigned"],
                json!({ "m.relates_to": { "key": "k" } }),
                Some(json!({ "age": 5 })),
            ),
            (vec!["content.a\\\\b"], json!({ "a\\b": 1 }), None),
            (vec!["content.body.deeper", "sender"], json!({}), None),
            (vec!["content.m.relates_to"], json!({}), None),
            (vec![], json!({}), None),
        ] {
            let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
            let cut = Fields::parse(&paths).of(&event).unwrap();
            let cut: Value = serde_json::from_str(cut.get()).unwrap();
            assert_eq!(cut["content"], content, "{paths:?}");
            assert_eq!(cut.get("unsigned"), unsigned.as_ref(), "{paths:?}");
            assert_eq!(cut["event_id"], "$e");
        }
    }
}
