//! W5 by sliding sync: the first rooms of the account's list, as an app asks for them that was just opened,
//! with what the widespread SDK wants of each. Every request begins the connection anew.
//!
//! In both dialects: the one that apps speak today, and the one that was accepted, where the server knows it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Measurement, Site, repeated};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account};

/// Rooms in the window.
const FIRST: usize = 20;
const SIMPLIFIED: &str =
    "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0&set_presence=offline";
const V4: &str = "/_matrix/client/v4/sync";

/// State that there is one of in a room, under the empty key.
const SINGLE: [&str; 11] = [
    "m.room.name",
    "m.room.encryption",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.tombstone",
    "m.room.create",
    "m.room.history_visibility",
    "io.element.functional_members",
];
/// State under any key.
const MANY: [&str; 3] = [
    "org.matrix.msc3401.call.member",
    "m.space.parent",
    "m.space.child",
];

/// What the answer shows.
#[derive(Deserialize)]
struct Shown {
    rooms: BTreeMap<String, IgnoredAny>,
}

/// Asks in both dialects; `rooms` is how many the account is in.
///
/// # Errors
/// When a request is refused, or shows others than the first rooms.
pub(super) async fn run(site: &Site, account: &Account, rooms: usize) -> Result<Vec<Measurement>> {
    let mut connection = Connection::new(&site.target);
    let mut measured = Vec::new();
    for (dialect, path, body) in [
        ("simplified MSC3575", SIMPLIFIED, simplified()),
        ("v4", V4, v4(&account.user_id)),
    ] {
        let case = format!("{rooms} rooms, sliding sync ({dialect}), first {FIRST}");
        let body = Bytes::from(body.to_string());
        let asked = repeated(site, Measurement::new("W5", case), async || {
            matrix::post(&mut connection, path, &account.token, body.clone()).await
        });
        let (measurement, answer) = match asked.await {
            Err(Error::Refused { status: 404, .. }) if path == V4 => continue,
            asked => asked?,
        };
        let shown: Shown = serde_json::from_slice(&answer)?;
        let (shown, wanted) = (shown.rooms.len(), rooms.min(FIRST));
        if shown != wanted {
            let error = format!("sliding sync showed {shown} rooms rather than {wanted}");
            return Err(Error::Program(error));
        }
        measured.push(measurement);
    }
    Ok(measured)
}

fn simplified() -> Value {
    let mut state = vec![("m.room.member", "$LAZY"), ("m.room.member", "$ME")];
    state.extend(SINGLE.map(|kind| (kind, "")));
    state.extend(MANY.map(|kind| (kind, "*")));
    json!({
        "conn_id": "room-list",
        "lists": { "all_rooms": {
            "ranges": [[0, FIRST - 1]], "timeline_limit": 1, "required_state": state,
        } },
        "extensions": {
            "account_data": { "enabled": true },
            "receipts": { "enabled": true, "rooms": ["*"] },
            "typing": { "enabled": true },
        },
    })
}

fn v4(user: &str) -> Value {
    let mut state = vec![json!({ "type": "m.room.member", "state_key": user })];
    state.extend(SINGLE.map(|kind| json!({ "type": kind, "state_key": "" })));
    state.extend(MANY.map(|kind| json!({ "type": kind })));
    json!({
        "conn_id": "room-list-v4",
        "set_presence": "offline",
        "lists": { "all_rooms": {
            "range": [0, FIRST - 1], "timeline_limit": 1,
            "required_state": { "include": state, "lazy_members": true },
        } },
        "extensions": {
            "org.matrix.msc3959.account_data": { "enabled": true },
            "org.matrix.msc3960.receipts": { "enabled": true, "rooms": ["*"] },
            "typing": { "enabled": true },
        },
    })
}
