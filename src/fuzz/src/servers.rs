//! What servers write for servers: their keys, whom a room lets take part, what its rules are.

use comity_protocol::{
    auth::{Create, JoinRulesContent, MemberContent, PowerLevelsContent, ThirdPartyKeys},
    event::Reference,
    id::{ServerName, UserId},
    room_version::RoomVersion,
    server_acl::ServerAcl,
    sign::{MAX_KEY_VALIDITY_MS, ServerKeys},
    unpadded,
};
use serde_json::Value;

use crate::{protocol::obviously, text};

/// A server's name, a line break, the answer about its keys: what is taken is about that server and good for a week at the
/// most, and is taken again from what it is kept as.
pub(crate) fn server_keys(bytes: &[u8]) {
    let (name, answer) = text(bytes).split_once('\n').unwrap_or_default();
    let Ok(server) = ServerName::parse(name) else {
        return;
    };
    let now = 1_000_000;
    let Ok(keys) = ServerKeys::check(&server, answer.as_bytes(), now) else {
        return;
    };
    assert_eq!(keys.server(), &*server);
    assert!(keys.valid_until_ts() <= now + MAX_KEY_VALIDITY_MS);
    let again = ServerKeys::check(&server, keys.json().as_bytes(), now);
    assert_eq!(again.as_ref(), Ok(&keys));
}

/// A server's name, a line break, the content of a room's access list: whatever the case, the answer is that of an obvious
/// matcher.
pub(crate) fn server_acl(bytes: &[u8]) {
    let (name, content) = text(bytes).split_once('\n').unwrap_or_default();
    let Ok(server) = ServerName::parse(name) else {
        return;
    };
    let allows = ServerAcl::read(content).allows(&server);
    if let Ok(shouted) = ServerName::parse(name.to_ascii_uppercase()) {
        assert_eq!(ServerAcl::read(content).allows(&shouted), allows);
    }
    // An address, or a port, is another matter.
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) || name.contains(':') {
        return;
    }
    let content = serde_json::from_str::<Value>(content).unwrap_or_default();
    let listed = |list: &str| {
        let list = content[list].as_array().into_iter().flatten();
        let mut patterns = list.filter_map(Value::as_str);
        patterns.any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            obviously(pattern.as_bytes(), name.to_ascii_lowercase().as_bytes())
        })
    };
    assert_eq!(allows, listed("allow") && !listed("deny"));
}

/// The content of a state event, as what the rules of each room version read of it: power levels that the newest
/// versions take are the same levels in all.
pub(crate) fn auth_contents(bytes: &[u8]) {
    let content = text(bytes);
    let sender = UserId::parse("@alice:localhost").unwrap();
    let member = MemberContent::read(content);
    let _ = (member.authoriser(), member.third_party_token());
    let _ = JoinRulesContent::read(content);
    let _ = ThirdPartyKeys::read(&sender, content);
    let _ = unpadded::decode(content);
    let strict = PowerLevelsContent::read(RoomVersion::V12.rules(), content);
    for version in RoomVersion::ALL {
        let levels = PowerLevelsContent::read(version.rules(), content);
        if strict.is_ok() {
            assert_eq!(levels, strict, "{version:?}");
        }
        let create = Create::read(version.rules(), &sender, content);
        assert!(create.privileged.is_empty() || create.privileged.contains(sender.as_str()));
        let _ = Reference::read(version, content);
    }
}
