//! Events as clients see them.
//!
//! The client's format is written from spans of the event's canonical text; nothing is parsed
//! again, and `unsigned`, which is ours and differs from reader to reader, is spliced in. Only
//! the fields that the spec names are passed on: what else a peer put beside `content` stays
//! between servers.
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>.

use crate::canonical::members;
use crate::event::Event;
use crate::redact::{push_key, push_member};

/// Which of the client formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFormat {
    /// With `room_id`.
    WithRoomId,
    /// Without it: where the room is known from the place, as in `/sync`.
    WithoutRoomId,
}

/// Appends the event in the client's format to `out`.
///
/// `unsigned` is the text of a JSON object, or `None` for none.
///
/// A redaction's target is written both beside and inside `content`, whatever the room version:
/// older clients look for the one, newer ones for the other
/// (<https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property>).
pub fn write_client_event(
    out: &mut String,
    event: &Event,
    format: ClientFormat,
    unsigned: Option<&str>,
) {
    out.push('{');
    push_key(out, "content");
    match event.redacts() {
        Some(target) if !event.rules().redacts_in_content => {
            out.push('{');
            for (key, value) in members(event.content_text()).filter(|(key, _)| *key != "redacts") {
                push_member(out, key, value);
            }
            push_string(out, "redacts", target.as_str());
            out.push('}');
        }
        _ => out.push_str(event.content_text()),
    }
    push_string(out, "event_id", event.event_id().as_str());
    push_member(
        out,
        "origin_server_ts",
        &event.origin_server_ts().to_string(),
    );
    if let Some(target) = event.redacts() {
        push_string(out, "redacts", target.as_str());
    }
    if format == ClientFormat::WithRoomId {
        push_string(out, "room_id", event.room_id().as_str());
    }
    push_string(out, "sender", event.sender().as_str());
    if let Some(state_key) = event.state_key() {
        push_string(out, "state_key", state_key);
    }
    push_string(out, "type", event.event_type());
    if let Some(unsigned) = unsigned {
        push_member(out, "unsigned", unsigned);
    }
    out.push('}');
}

/// The event in the client's format, as [`write_client_event`].
pub fn client_event(event: &Event, format: ClientFormat, unsigned: Option<&str>) -> String {
    // The references and signatures that fall away outweigh what is added.
    let mut out = String::with_capacity(event.json().len() + unsigned.map_or(0, str::len));
    write_client_event(&mut out, event, format, unsigned);
    out
}

/// A state event as someone sees it who is not in the room: an invite's or a knock's.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>.
pub fn stripped_state(event: &Event) -> String {
    let mut out = String::from("{");
    push_member(&mut out, "content", event.content_text());
    push_string(&mut out, "sender", event.sender().as_str());
    push_string(&mut out, "state_key", event.state_key().unwrap_or_default());
    push_string(&mut out, "type", event.event_type());
    out.push('}');
    out
}

fn push_string(out: &mut String, key: &str, value: &str) {
    push_key(out, key);
    crate::canonical::write_string(value, out);
}
