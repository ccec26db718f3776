//! Identifiers under the spec's names, owned and borrowed.
//!
//! The types are ruma's: parsed once at the edge, compared and hashed as strings afterwards, and
//! short ones (event ids that are hashes, most user ids) live without an allocation. What ruma
//! leaves open and the spec or our own safety closes is checked here: the 255 bytes of an event
//! id without a domain, NUL, the two shapes of room ids, and which server names we would ever
//! look up.
//!
//! See <https://spec.matrix.org/v1.19/appendices/#identifier-grammar>.

pub use ruma_common::{
    DeviceId, EventId, IdParseError, MxcUri, OwnedDeviceId, OwnedEventId, OwnedMxcUri,
    OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedTransactionId,
    OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId, ServerName, TransactionId, UserId,
};

/// The longest identifier, `type` or `state_key`, in bytes, sigil and domain included.
pub const MAX_ID_BYTES: usize = 255;

/// Characters of an unpadded base64 SHA-256, as in the ids of newer events and rooms.
const HASH_CHARS: usize = 43;

/// An event id as it may stand in an event of any room version: `$`, at most 255 bytes, no NUL;
/// with a domain the domain is a server name.
///
/// The stricter shape of a hash isn't asked for: an id that is no hash names an event that can't
/// exist, and a reference to such an event is handled like any other that can't be found.
pub fn event_id(text: &str) -> Option<OwnedEventId> {
    if text.len() > MAX_ID_BYTES || text.contains('\0') {
        return None;
    }
    EventId::parse(text).ok()
}

/// The room id that a room of version 12 and later takes from its `m.room.create` event.
///
/// See <https://spec.matrix.org/v1.19/rooms/v12/#event-format>.
pub fn room_id_of_create(create: &EventId) -> Option<OwnedRoomId> {
    let hash = create.as_str().strip_prefix('$')?;
    RoomId::parse(format!("!{hash}")).ok()
}

/// The `m.room.create` event that a room id without a domain names; `None` for `!opaque:domain`.
pub fn create_event_of_room(room: &RoomId) -> Option<OwnedEventId> {
    let hash = room.as_str().strip_prefix('!')?;
    if !is_url_safe_hash(hash) {
        return None;
    }
    EventId::parse(format!("${hash}")).ok()
}

/// 43 characters of URL-safe unpadded base64.
fn is_url_safe_hash(text: &str) -> bool {
    text.len() == HASH_CHARS
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether we would ask the network for this server.
///
/// The grammar lets through what no resolver should be asked: a trailing dot (a second name for
/// the same host, which splits caches and ACLs), empty labels, a port written `+80` or `0`, a
/// host over 255 characters. Such a name may stand in an old event; nobody is looked up by it.
///
/// See <https://spec.matrix.org/v1.19/appendices/#server-name>.
pub fn is_reachable_name(server: &ServerName) -> bool {
    let text = server.as_str();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) => (address, rest.strip_prefix(':')),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port_is_good = port.is_none_or(|port| {
        port.len() <= 5
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_is_good = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.len() <= MAX_ID_BYTES && host.split('.').all(|label| (1..=63).contains(&label.len()))
    };
    port_is_good && host_is_good
}

/// Whether a user id may be shown to clients outside an event: its localpart is printable ASCII
/// and not empty.
///
/// See <https://spec.matrix.org/v1.19/appendices/#historical-user-ids>.
pub fn is_compliant(user: &UserId) -> bool {
    let localpart = user.localpart();
    !localpart.is_empty() && localpart.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threat B7: names that must never reach a resolver.
    #[test]
    fn b7_names_that_are_no_server_names() {
        for name in [
            "evil@good.com",
            "good.com:8448@evil",
            "[::1%eth0]",
            "",
            ":8448",
            "a b",
        ] {
            assert!(ServerName::parse(name).is_err(), "{name}");
        }
        let long = "a".repeat(256);
        for name in [
            "good.com.",
            ".good.com",
            "a..b",
            "a:+80",
            "a:0",
            "a:000080",
            &long,
        ] {
            let refused = ServerName::parse(name).map_or(true, |name| !is_reachable_name(&name));
            assert!(refused, "{name}");
        }
    }

    #[test]
    fn server_names_of_the_grammar() {
        for name in [
            "a",
            "matrix.org",
            "matrix.org:8888",
            "1.2.3.4:1234",
            "[1234:5678::abcd]:5678",
            "[::1]",
        ] {
            assert!(
                is_reachable_name(&ServerName::parse(name).unwrap()),
                "{name}"
            );
        }
    }

    #[test]
    fn event_ids_of_all_room_versions_fit_255_bytes() {
        let fits = format!("${}:a", "x".repeat(252));
        assert_eq!(fits.len(), 255);
        for id in [
            "$x:example.org",
            "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk",
            "$a-_",
            &fits,
        ] {
            assert!(event_id(id).is_some(), "{id}");
        }
        let long = format!("${}", "x".repeat(255));
        for id in ["x", "", "$a\0b", "$x:bad host", &long] {
            assert!(event_id(id).is_none(), "{id}");
        }
    }

    #[test]
    fn a_v12_room_id_is_its_create_event() {
        let create = event_id("$Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ").unwrap();
        let room = room_id_of_create(&create).unwrap();
        assert_eq!(
            room.as_str(),
            "!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ"
        );
        assert_eq!(create_event_of_room(&room), Some(create));
        assert_eq!(
            create_event_of_room(&RoomId::parse("!a:example.org").unwrap()),
            None
        );
    }

    #[test]
    fn historical_user_ids_are_parsed_but_not_compliant() {
        for (id, compliant) in [
            ("@alice:a", true),
            ("@Al!ce:a", true),
            ("@:a", false),
            ("@é:a", false),
            ("@a b:a", false),
        ] {
            assert_eq!(is_compliant(&UserId::parse(id).unwrap()), compliant, "{id}");
        }
        assert!(UserId::parse("@a\0:b").is_err());
        assert!(UserId::parse(format!("@{}:b", "a".repeat(253))).is_err());
    }
}
