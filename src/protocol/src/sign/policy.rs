//! A policy server's word: its signature of an event, by a key that stands in the room's state.
//!
//! It says that the server recommends the event, and nothing of who made it: the signatures of
//! those are checked apart, by the keys that their servers publish.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures>.

use crate::event::{Event, Signed};
use crate::id::ServerName;

use super::{VerifyKey, event::verify_entity, signed_part, with_signature};
use crate::canonical::members;

/// The id of every policy server's key, whatever the server calls its own.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// Whether a policy server has signed an event by this key.
pub fn is_recommended(event: &Event, server: &ServerName, key: VerifyKey) -> bool {
    let signatures = members(event.json()).get("signatures").unwrap_or("{}");
    let signed = signed_part(event);
    let key = |key_id: &str| (key_id == POLICY_KEY_ID).then_some(key);
    verify_entity(signed.as_bytes(), signatures, server.as_str(), key).is_ok()
}

impl Signed {
    /// The event with a policy server's signature beside those that it has; `None` if it isn't one by this
    /// key, or the event would be too large with it.
    #[must_use]
    pub fn recommended(
        &self,
        server: &ServerName,
        key: VerifyKey,
        signature: &str,
    ) -> Option<Self> {
        let event = self.event();
        let json = with_signature(event.json(), server, POLICY_KEY_ID, signature).ok()?;
        let event = Event::from_stored(event.version(), event.event_id().to_owned(), json).ok()?;
        is_recommended(&event, server, key).then(|| Self::new(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Limits, WellFormed};
    use crate::room_version::RoomVersion;
    use crate::sign::{KeyRing, PublishedKey, SigningKey};

    struct Everybodys(VerifyKey);

    impl KeyRing for Everybodys {
        fn key(&self, _: &ServerName, _: &str) -> Option<PublishedKey> {
            let validity = crate::sign::KeyValidity::Until(i64::MAX);
            Some(PublishedKey {
                key: self.0,
                validity,
            })
        }
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures>: by the room's key under the one
    /// id, of this event, beside the signatures that are there.
    #[test]
    fn a_policy_servers_signature_stands_beside_the_others() {
        let name = |name: &'static str| ServerName::parse(name).unwrap();
        let (sender, policy) = (name("sender.test"), name("policy.test"));
        let key = |version: &str, seed| SigningKey::from_seed(version, &[seed; 32]).unwrap();
        let (senders, policys, other) = (key("1", 1), key("policy_server", 2), key("x", 3));
        let hash = "A".repeat(43);
        let json = format!(
            r#"{{"auth_events":[],"content":{{"body":"hi"}},"depth":1,"hashes":{{"sha256":"{hash}"}},"origin_server_ts":1,"prev_events":[],"room_id":"!r:sender.test","sender":"@a:sender.test","signatures":{{}},"type":"m.room.message"}}"#
        );
        let unsigned = WellFormed::parse(RoomVersion::V11, json.as_bytes(), Limits::New).unwrap();
        let part = signed_part(unsigned.event());
        let signature = senders.sign(part.as_bytes());
        let json = with_signature(&json, &sender, "ed25519:1", &signature).unwrap();
        let parsed = WellFormed::parse(RoomVersion::V11, json.as_bytes(), Limits::New).unwrap();
        let signed = parsed.verify(&Everybodys(senders.verify_key())).unwrap();
        assert!(!is_recommended(
            signed.event(),
            &policy,
            policys.verify_key()
        ));
        let word = policys.sign(signed_part(signed.event()).as_bytes());
        assert!(
            signed
                .recommended(&policy, other.verify_key(), &word)
                .is_none()
        );
        assert!(
            signed
                .recommended(&policy, policys.verify_key(), "AAAA")
                .is_none()
        );
        let recommended = signed
            .recommended(&policy, policys.verify_key(), &word)
            .unwrap();
        let event = recommended.event();
        assert_eq!(event.event_id(), signed.event().event_id());
        assert!(is_recommended(event, &policy, policys.verify_key()));
        assert!(!is_recommended(event, &sender, policys.verify_key()));
        assert!(is_recommended(
            &event.redact(),
            &policy,
            policys.verify_key()
        ));
        assert!(event.json().contains(&signature));
        // By another key, or what was said of another event, it is replaced.
        let wrong = with_signature(signed.event().json(), &policy, POLICY_KEY_ID, "AAAA").unwrap();
        let wrong =
            Event::from_stored(RoomVersion::V11, event.event_id().to_owned(), wrong).unwrap();
        assert!(!is_recommended(&wrong, &policy, policys.verify_key()));
        let mended = Signed::new(wrong).recommended(&policy, policys.verify_key(), &word);
        assert!(mended.is_some());
    }
}
