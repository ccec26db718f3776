//! What other servers and clients send: JSON, events, names, keys, push rules.

use comity_protocol::{
    canonical::{Numbers, canonicalize, members},
    client_event::{ClientFormat, client_event, stripped_state},
    event::{Limits, WellFormed},
    id::{
        RoomAliasId, RoomId, ServerName, UserId, create_event_of_room, event_id, is_compliant,
        is_reachable_name, room_id_of_create,
    },
    push::{
        CompiledRules, EventFacts, Glob, MAX_GLOB_BYTES, NewRule, Position, Recipient, RuleKind,
        Steps, UserRules,
    },
    room_version::RoomVersion,
    sign::{Authorization, KeyRing, KeyValidity, PublishedKey, Request, SigningKey, VerifyKey},
};
use serde_json::{Map, Value};

use crate::text;

/// What is accepted is its own canonical form, and reads as `serde_json` reads the input.
pub(crate) fn canonical(bytes: &[u8]) {
    members(text(bytes)).for_each(drop);
    for numbers in [Numbers::Strict, Numbers::Lax] {
        if let Ok(once) = canonicalize(bytes, numbers) {
            assert_eq!(canonicalize(once.as_bytes(), numbers).as_ref(), Ok(&once));
            let theirs = serde_json::from_slice::<Value>(bytes).unwrap();
            if numbers == Numbers::Strict {
                assert_eq!(serde_json::from_str::<Value>(&once).unwrap(), theirs);
            }
        }
    }
}

struct NoKeys;

impl KeyRing for NoKeys {
    fn key(&self, _: &ServerName, _: &str) -> Option<PublishedKey> {
        None
    }
}

/// An event of any version, which the first byte chooses: read again it is the same, redaction keeps its name, and every form
/// of it for clients is JSON.
pub(crate) fn event(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let version = RoomVersion::ALL[usize::from(*choice) % RoomVersion::ALL.len()];
    let Ok(formed) = WellFormed::parse(version, bytes, Limits::New) else {
        return;
    };
    let event = formed.event().clone();
    let again = WellFormed::parse(version, event.json().as_bytes(), Limits::New);
    assert_eq!(again.as_ref(), Ok(&formed));
    assert_eq!(event.redact().reference_hash(), event.reference_hash());
    let client = client_event(&event, ClientFormat::WithRoomId, Some("{}"));
    serde_json::from_str::<Value>(&client).unwrap();
    serde_json::from_str::<Value>(&stripped_state(&event)).unwrap();
    let _ = formed.verify(&NoKeys);
}

/// The `Authorization` of another server: who it names is one that we would look up, and bytes that it didn't sign prove nothing.
pub(crate) fn authorization(bytes: &[u8]) {
    let us = ServerName::parse("here.test").unwrap();
    let Ok(claim) = Authorization::parse(text(bytes), &us) else {
        return;
    };
    assert!(is_reachable_name(claim.origin()) && *claim.origin() != *us);
    let published = PublishedKey {
        key: SigningKey::from_seed("1", &[1; 32]).unwrap().verify_key(),
        validity: KeyValidity::Until(i64::MAX),
    };
    let request = Request {
        method: "GET",
        uri: "/_matrix/federation/v1/version",
        body: b"",
    };
    claim.check(&us, request, published, 1).unwrap_err();
}

/// Identifiers of every kind, and what is asked of them.
pub(crate) fn identifiers(bytes: &[u8]) {
    let text = text(bytes);
    let _ = ServerName::parse(text).map(|name| is_reachable_name(&name));
    let _ = UserId::parse(text).map(|user| is_compliant(&user));
    let _ = RoomAliasId::parse(text);
    let _ = RoomId::parse(text).map(|room| create_event_of_room(&room));
    if let Some(id) = event_id(text) {
        let _ = room_id_of_create(&id);
    }
}

/// Key files and public keys: a key that was read is written as one that reads the same.
pub(crate) fn keys(bytes: &[u8]) {
    let text = text(bytes);
    let _ = VerifyKey::parse(text);
    if let Ok(key) = SigningKey::from_file(text) {
        let again = SigningKey::from_file(&key.to_file()).unwrap();
        assert_eq!(again.verify_key(), key.verify_key());
    }
}

/// A pattern, a line break, and what it is compared with: within bounds it decides as an obvious matcher does.
pub(crate) fn push_glob(bytes: &[u8]) {
    let (pattern, against) = text(bytes).split_once('\n').unwrap_or_default();
    let Some(glob) = Glob::new(pattern) else {
        return;
    };
    assert!(pattern.len() <= MAX_GLOB_BYTES);
    let mut steps = Steps::default();
    glob.matches_words(against, &mut steps);
    let matches = glob.matches(against, &mut steps);
    // The obvious one goes back and forth: only where that is soon over, and case is a matter of ASCII.
    if text(bytes).is_ascii() && pattern.len() + against.len() < 64 && steps.left() > 0 {
        let lower = |text: &str| text.to_ascii_lowercase().into_bytes();
        assert_eq!(
            matches,
            obviously(&lower(pattern), &lower(against)),
            "{pattern:?} {against:?}"
        );
    }
}

/// Whether the pattern matches the whole text: what it matches after each character is a set of places.
pub(crate) fn obviously(pattern: &[u8], text: &[u8]) -> bool {
    let mut row: Vec<bool> = vec![true];
    row.extend(pattern.iter().scan(true, |all, c| {
        *all &= *c == b'*';
        Some(*all)
    }));
    for t in text {
        let mut next = vec![false];
        for (at, p) in pattern.iter().enumerate() {
            next.push(match p {
                b'*' => row[at + 1] || next[at],
                p => row[at] && (*p == b'?' || p == t),
            });
        }
        row = next;
    }
    row[pattern.len()]
}

/// A kind, an id, a body as clients put them, and an event to judge; and stored rules, which come back as they were written.
pub(crate) fn push_rules(bytes: &[u8]) {
    let mut lines = text(bytes).splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (kind, id, body, content) = (line(), line(), line(), line());
    let mut rules = serde_json::from_str::<UserRules>(body).unwrap_or_default();
    if let (Some(kind), Ok(new)) = (RuleKind::parse(kind), serde_json::from_str::<NewRule>(body)) {
        let _ = rules.put(kind, id, new, &Position::default());
    }
    let written = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<UserRules>(&written).unwrap(), rules);

    let content = serde_json::from_str::<Map<String, Value>>(content).unwrap_or_default();
    let event = EventFacts {
        event_type: "m.room.message",
        sender: "@bob:localhost",
        room_id: "!room:localhost",
        state_key: None,
        content: &content,
        joined_members: 2,
        sender_power_level: 0,
        notification_levels: None,
    };
    let me = Recipient {
        user_id: "@alice:localhost",
        display_name: Some("Alice"),
    };
    let room = CompiledRules::new(&rules, me.user_id).in_room(event.room_id);
    let (verdict, shared) = (room.verdict(&event, &me), room.shared().verdict(&event));
    // The promise that unread counts rest on.
    let named = event.named_users().any(|user| user == me.user_id);
    assert!(verdict == shared || named || room.watches_every_event());
}
