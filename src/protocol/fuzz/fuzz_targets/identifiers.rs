//! Identifiers of every kind, and what is asked of them.
#![no_main]

use comity_protocol::id::{
    RoomAliasId, RoomId, ServerName, UserId, create_event_of_room, event_id, is_compliant,
    is_reachable_name, room_id_of_create,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = ServerName::parse(text).map(|name| is_reachable_name(&name));
    let _ = UserId::parse(text).map(|user| is_compliant(&user));
    let _ = RoomAliasId::parse(text);
    let _ = RoomId::parse(text).map(|room| create_event_of_room(&room));
    if let Some(id) = event_id(text) {
        let _ = room_id_of_create(&id);
    }
});
