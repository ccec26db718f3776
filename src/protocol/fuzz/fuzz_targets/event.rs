//! An event of any version: the first byte chooses it.
#![no_main]

use comity_protocol::client_event::{ClientFormat, client_event, stripped_state};
use comity_protocol::event::{Limits, WellFormed};
use comity_protocol::id::ServerName;
use comity_protocol::room_version::RoomVersion;
use comity_protocol::sign::{KeyRing, PublishedKey};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

struct NoKeys;

impl KeyRing for NoKeys {
    fn key(&self, _: &ServerName, _: &str) -> Option<PublishedKey> {
        None
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let version = RoomVersion::ALL[usize::from(*choice) % RoomVersion::ALL.len()];
    let Ok(formed) = WellFormed::parse(version, bytes, Limits::New) else { return };
    let event = formed.event().clone();
    let again = WellFormed::parse(version, event.json().as_bytes(), Limits::New);
    assert_eq!(again.as_ref(), Ok(&formed));
    assert_eq!(event.redact().reference_hash(), event.reference_hash());
    let client = client_event(&event, ClientFormat::WithRoomId, Some("{}"));
    serde_json::from_str::<Value>(&client).unwrap();
    serde_json::from_str::<Value>(&stripped_state(&event)).unwrap();
    let _ = formed.verify(&NoKeys);
});
