//! From another server's template to an event of ours.
//!
//! A template says where in the room the event stands: its parents, the state that allows it, its
//! depth, and of a restricted join who authorises it. All else is ours. What of it we would vouch
//! for by signing is compared with what our user wants; a template that differs is thrown away and
//! nothing is signed (law 9, threat C2).

use comity_protocol::{
    event::{BuildError, EventBuilder, Reference, Unsigned},
    id::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId},
    room_version::{EventIdFormat, RoomVersion},
    unpadded,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

const MEMBER: &str = "m.room.member";
const AUTHORISER: &str = "join_authorised_via_users_server";

/// What our user wants to be in a room.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub user: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// `join`, `knock` or `leave`.
    pub membership: &'static str,
    /// The event's content, without what the room's servers put there.
    pub content: Map<String, Value>,
}

/// Why a template was thrown away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("the template is of a room version that is not known here")]
    Version,
    #[error("the template is malformed")]
    Form,
    /// Names what is not as it was asked for.
    #[error("the template is for something else: {0} differs")]
    Differs(&'static str),
    #[error("no event can be made of the template: {0}")]
    Build(#[from] BuildError),
}

#[derive(Deserialize)]
struct Template {
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: String,
    #[serde(rename = "type")]
    event_type: String,
    content: Map<String, Value>,
    auth_events: Vec<Link>,
    prev_events: Vec<Link>,
    depth: u64,
}

/// An id, or in the first room versions a pair of id and hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Link {
    Id(String),
    WithHash(String, Hashes),
}

#[derive(Deserialize)]
struct Hashes {
    sha256: String,
}

impl Link {
    fn reference(self) -> Option<Reference> {
        let (id, hash) = match self {
            Self::Id(id) => (id, None),
            Self::WithHash(id, hashes) => (id, Some(unpadded::decode(&hashes.sha256)?)),
        };
        let id = comity_protocol::id::event_id(&id)?;
        match hash {
            None => Some(Reference::by_id(id)),
            Some(hash) => Some(Reference::with_hash(id, hash.try_into().ok()?)),
        }
    }
}

impl Intent {
    /// The version of a template's room; a template that names none is of version 1.
    pub fn version(&self, name: Option<&str>) -> Result<RoomVersion, TemplateError> {
        RoomVersion::parse(name.unwrap_or("1")).ok_or(TemplateError::Version)
    }

    /// The event that our user wants, where `server`'s template says.
    pub fn complete(
        &self,
        version: RoomVersion,
        template: &RawValue,
        server: &OwnedServerName,
        now_ms: u64,
        opaque_id: String,
    ) -> Result<Unsigned, TemplateError> {
        let template: Template =
            serde_json::from_str(template.get()).map_err(|_| TemplateError::Form)?;
        must("room_id", template.room_id == self.room_id)?;
        must("sender", template.sender == self.user)?;
        must("state_key", template.state_key == self.user.as_str())?;
        must("type", template.event_type == MEMBER)?;
        let membership = template.content.get("membership").and_then(Value::as_str);
        must("membership", membership == Some(self.membership))?;
        let mut content = self.content.clone();
        content.insert("membership".into(), self.membership.into());
        content.remove(AUTHORISER);
        if let Some(authoriser) = template.content.get(AUTHORISER) {
            // It is the asked server's to vouch for, never ours.
            let user = authoriser
                .as_str()
                .and_then(|user| UserId::parse(user).ok());
            let is_theirs = user.is_some_and(|user| user.server_name() == server);
            must(AUTHORISER, self.membership == "join" && is_theirs)?;
            content.insert(AUTHORISER.into(), authoriser.clone());
        }
        let chosen = version.rules().event_id_format == EventIdFormat::Chosen;
        let builder = EventBuilder {
            version,
            room_id: Some(self.room_id.clone()),
            sender: self.user.clone(),
            event_type: MEMBER.to_owned(),
            state_key: Some(self.user.to_string()),
            content: serde_json::value::to_raw_value(&content).map_err(|_| TemplateError::Form)?,
            redacts: None,
            prev_events: references(template.prev_events)?,
            auth_events: references(template.auth_events)?,
            depth: template.depth.min(version.rules().max_depth),
            origin_server_ts: i64::try_from(now_ms).unwrap_or(i64::MAX),
            opaque_id: if chosen { opaque_id } else { String::new() },
        };
        Ok(builder.build()?)
    }
}

fn references(links: Vec<Link>) -> Result<Vec<Reference>, TemplateError> {
    let references = links.into_iter().map(Link::reference);
    references.collect::<Option<_>>().ok_or(TemplateError::Form)
}

fn must(member: &'static str, holds: bool) -> Result<(), TemplateError> {
    if holds {
        Ok(())
    } else {
        Err(TemplateError::Differs(member))
    }
}

#[cfg(test)]
mod tests {
    use comity_protocol::id::ServerName;
    use serde_json::json;

    use super::*;

    fn intent(membership: &'static str) -> Intent {
        Intent {
            user: "@alice:here".try_into().unwrap(),
            room_id: "!room:there".try_into().unwrap(),
            membership,
            content: Map::from_iter([("displayname".to_owned(), json!("Alice"))]),
        }
    }

    fn template(membership: &str) -> Value {
        json!({
            "room_id": "!room:there", "sender": "@alice:here", "state_key": "@alice:here",
            "type": "m.room.member", "content": { "membership": membership },
            "auth_events": ["$create", "$rules"], "prev_events": ["$last"], "depth": 7,
            "origin": "there", "origin_server_ts": 1,
        })
    }

    fn complete(intent: &Intent, template: &Value) -> Result<Value, TemplateError> {
        let template = serde_json::value::to_raw_value(template).unwrap();
        let server = ServerName::parse("there").unwrap();
        let event = intent.complete(RoomVersion::V10, &template, &server, 5, String::new())?;
        Ok(serde_json::from_str(event.event().json()).unwrap())
    }

    /// C2: a template for anything else than what was asked for is thrown away.
    #[test]
    fn c2_a_template_for_something_else_is_thrown_away() {
        let changes = [
            ("room_id", json!("!other:there"), "room_id"),
            ("sender", json!("@bob:here"), "sender"),
            ("state_key", json!("@bob:here"), "state_key"),
            ("type", json!("m.room.power_levels"), "type"),
            ("content", json!({ "membership": "ban" }), "membership"),
            ("content", json!({ "membership": "leave" }), "membership"),
            ("content", json!({}), "membership"),
            (
                "content",
                json!({ "membership": "join", AUTHORISER: "@admin:here" }),
                AUTHORISER,
            ),
            (
                "content",
                json!({ "membership": "join", AUTHORISER: "@admin:third" }),
                AUTHORISER,
            ),
        ];
        for (key, value, differs) in changes {
            let mut template = template("join");
            template[key] = value;
            let error = complete(&intent("join"), &template).unwrap_err();
            assert!(
                matches!(error, TemplateError::Differs(name) if name == differs),
                "{template}: {error}"
            );
        }
        let mut knock = template("knock");
        knock["content"][AUTHORISER] = json!("@admin:there");
        assert!(complete(&intent("knock"), &knock).is_err());
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>: place and authoriser are the
    /// template's, all else is ours.
    #[test]
    fn the_content_is_ours_and_the_place_theirs() {
        let mut template = template("join");
        template["content"][AUTHORISER] = json!("@admin:there");
        template["content"]["displayname"] = json!("Mallory");
        template["content"]["extra"] = json!(1);
        template["unsigned"] = json!({ "age": 1 });
        let event = complete(&intent("join"), &template).unwrap();
        let content = json!({
            "membership": "join", "displayname": "Alice", AUTHORISER: "@admin:there"
        });
        assert_eq!(event["content"], content);
        assert_eq!(event["prev_events"], template["prev_events"]);
        assert_eq!(event["auth_events"], template["auth_events"]);
        assert_eq!(
            (&event["depth"], &event["origin_server_ts"]),
            (&json!(7), &json!(5))
        );
        assert!(event.get("unsigned").is_none());
    }
}
