//! Room versions as plain data: every rule that differs between versions is one named field.
//!
//! Algorithms take a [`RoomVersionRules`] and read its fields; nothing compares version numbers.
//! The table at the bottom is meant to be read top to bottom: each version says only what it
//! changed.
//!
//! See <https://spec.matrix.org/v1.19/rooms/>.

use serde::{Deserialize, Serialize};

/// A room version that this server can take part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum RoomVersion {
    #[serde(rename = "1")]
    V1,
    #[serde(rename = "2")]
    V2,
    #[serde(rename = "3")]
    V3,
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "5")]
    V5,
    #[serde(rename = "6")]
    V6,
    #[serde(rename = "7")]
    V7,
    #[serde(rename = "8")]
    V8,
    #[serde(rename = "9")]
    V9,
    #[serde(rename = "10")]
    V10,
    #[serde(rename = "11")]
    V11,
    #[serde(rename = "12")]
    V12,
}

impl RoomVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 12] = [
        Self::V1,
        Self::V2,
        Self::V3,
        Self::V4,
        Self::V5,
        Self::V6,
        Self::V7,
        Self::V8,
        Self::V9,
        Self::V10,
        Self::V11,
        Self::V12,
    ];

    /// The version named by the spec's identifier; `None` for one that isn't known.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// The spec's identifier, `"1"` to `"12"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
            Self::V5 => "5",
            Self::V6 => "6",
            Self::V7 => "7",
            Self::V8 => "8",
            Self::V9 => "9",
            Self::V10 => "10",
            Self::V11 => "11",
            Self::V12 => "12",
        }
    }

    /// What differs between this version and the others.
    pub const fn rules(self) -> &'static RoomVersionRules {
        match self {
            Self::V1 => &V1,
            Self::V2 => &V2,
            Self::V3 => &V3,
            Self::V4 => &V4,
            Self::V5 => &V5,
            Self::V6 => &V6,
            Self::V7 => &V7,
            Self::V8 => &V8,
            Self::V9 => &V9,
            Self::V10 => &V10,
            Self::V11 => &V11,
            Self::V12 => &V12,
        }
    }
}

impl std::fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an event gets its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdFormat {
    /// `$opaque:domain`, chosen by the sending server and carried in the event.
    Chosen,
    /// `$` and the reference hash in standard unpadded base64.
    Hash,
    /// `$` and the reference hash in URL-safe unpadded base64.
    UrlSafeHash,
}

/// Which state resolution algorithm a room uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateResolution {
    /// By depth and SHA-1 of the id.
    V1,
    /// By reverse topological power order and the mainline.
    V2,
    /// V2, starting from nothing, with the conflicted state subgraph.
    V2_1,
}

/// Which keys of an event's `content` survive redaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptContent {
    /// Every key.
    All,
    /// These keys.
    Keys(&'static [&'static str]),
}

/// Which keys of an event survive [redaction](https://spec.matrix.org/v1.19/client-server-api/#redactions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedactionRules {
    /// The event's own keys.
    pub event: &'static [&'static str],
    /// The keys of `content` by event type; of a type that isn't listed none survives.
    pub content: &'static [(&'static str, KeptContent)],
    /// Of `m.room.member` also `content.third_party_invite.signed`.
    pub third_party_invite_signed: bool,
}

impl RedactionRules {
    /// What survives of the content of an event of this type.
    pub fn content_of(&self, event_type: &str) -> KeptContent {
        self.content
            .iter()
            .find(|(kind, _)| *kind == event_type)
            .map_or(KeptContent::Keys(&[]), |(_, kept)| *kept)
    }
}

/// Every rule that differs between room versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomVersionRules {
    /// The version these rules are of.
    pub version: RoomVersion,

    /// How an event gets its id.
    pub event_id_format: EventIdFormat,
    /// The room's id is the hash of its `m.room.create` event, which itself has no `room_id` (v12).
    pub room_id_is_create_hash: bool,
    /// `prev_events` and `auth_events` are pairs of id and hashes rather than ids (v1, v2).
    pub references_with_hashes: bool,
    /// Numbers are integers within ±(2^53 − 1), written plainly; anything else is no event (v6).
    pub strict_canonical_json: bool,
    /// The greatest `depth` of an event.
    pub max_depth: u64,
    /// A redaction names its target in `content.redacts` rather than in `redacts` (v11).
    pub redacts_in_content: bool,
    /// What survives redaction.
    pub redaction: RedactionRules,

    /// A signature counts only if its key is valid at the event's `origin_server_ts` (v5).
    pub enforce_key_validity: bool,
    /// The server in the event's id must have signed as well (v1, v2).
    pub event_id_server_signs: bool,

    /// The state resolution algorithm.
    pub state_resolution: StateResolution,

    /// `m.room.redaction` has an auth rule of its own (v1, v2).
    pub special_case_redaction_auth: bool,
    /// `m.room.aliases` has an auth rule of its own (v1 to v5).
    pub special_case_aliases_auth: bool,
    /// Changes to `notifications` in power levels are limited by the sender's level (v6).
    pub limit_notification_levels: bool,
    /// Membership and join rule `knock` (v7).
    pub knock: bool,
    /// Join rule `restricted`, and with it the authorising server's signature (v8).
    pub restricted: bool,
    /// Join rule `knock_restricted` (v10).
    pub knock_restricted: bool,
    /// Power levels are integers; before, strings and floats were read as integers (v10).
    pub integer_power_levels: bool,
    /// The creator is the sender of `m.room.create`; before, its `content.creator` (v11).
    pub creator_is_sender: bool,
    /// Creators, `additional_creators` among them, stand above every power level (v12).
    pub privileged_creators: bool,
}

use KeptContent::{All, Keys};

const REDACTION_V1: RedactionRules = RedactionRules {
    event: &[
        "auth_events",
        "content",
        "depth",
        "event_id",
        "hashes",
        "membership",
        "origin",
        "origin_server_ts",
        "prev_events",
        "prev_state",
        "room_id",
        "sender",
        "signatures",
        "state_key",
        "type",
    ],
    content: &[
        ("m.room.aliases", Keys(&["aliases"])),
        ("m.room.create", Keys(&["creator"])),
        ("m.room.history_visibility", Keys(&["history_visibility"])),
        ("m.room.join_rules", Keys(&["join_rule"])),
        ("m.room.member", Keys(&["membership"])),
        ("m.room.power_levels", POWER_LEVELS_V1),
    ],
    third_party_invite_signed: false,
};

const POWER_LEVELS_V1: KeptContent = Keys(&[
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
]);

const REDACTION_V6: RedactionRules = RedactionRules {
    content: &[
        ("m.room.create", Keys(&["creator"])),
        ("m.room.history_visibility", Keys(&["history_visibility"])),
        ("m.room.join_rules", Keys(&["join_rule"])),
        ("m.room.member", Keys(&["membership"])),
        ("m.room.power_levels", POWER_LEVELS_V1),
    ],
    ..REDACTION_V1
};

const REDACTION_V8: RedactionRules = RedactionRules {
    content: &[
        ("m.room.create", Keys(&["creator"])),
        ("m.room.history_visibility", Keys(&["history_visibility"])),
        ("m.room.join_rules", Keys(&["allow", "join_rule"])),
        ("m.room.member", Keys(&["membership"])),
        ("m.room.power_levels", POWER_LEVELS_V1),
    ],
    ..REDACTION_V6
};

const REDACTION_V9: RedactionRules = RedactionRules {
    content: &[
        ("m.room.create", Keys(&["creator"])),
        ("m.room.history_visibility", Keys(&["history_visibility"])),
        ("m.room.join_rules", Keys(&["allow", "join_rule"])),
        (
            "m.room.member",
            Keys(&["join_authorised_via_users_server", "membership"]),
        ),
        ("m.room.power_levels", POWER_LEVELS_V1),
    ],
    ..REDACTION_V8
};

const REDACTION_V11: RedactionRules = RedactionRules {
    event: &[
        "auth_events",
        "content",
        "depth",
        "event_id",
        "hashes",
        "origin_server_ts",
        "prev_events",
        "room_id",
        "sender",
        "signatures",
        "state_key",
        "type",
    ],
    content: &[
        ("m.room.create", All),
        ("m.room.history_visibility", Keys(&["history_visibility"])),
        ("m.room.join_rules", Keys(&["allow", "join_rule"])),
        (
            "m.room.member",
            Keys(&["join_authorised_via_users_server", "membership"]),
        ),
        (
            "m.room.power_levels",
            Keys(&[
                "ban",
                "events",
                "events_default",
                "invite",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ]),
        ),
        ("m.room.redaction", Keys(&["redacts"])),
    ],
    third_party_invite_signed: true,
};

const V1: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V1,
    event_id_format: EventIdFormat::Chosen,
    room_id_is_create_hash: false,
    references_with_hashes: true,
    strict_canonical_json: false,
    max_depth: i64::MAX as u64,
    redacts_in_content: false,
    redaction: REDACTION_V1,
    enforce_key_validity: false,
    event_id_server_signs: true,
    state_resolution: StateResolution::V1,
    special_case_redaction_auth: true,
    special_case_aliases_auth: true,
    limit_notification_levels: false,
    knock: false,
    restricted: false,
    knock_restricted: false,
    integer_power_levels: false,
    creator_is_sender: false,
    privileged_creators: false,
};

const V2: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V2,
    state_resolution: StateResolution::V2,
    ..V1
};

const V3: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V3,
    event_id_format: EventIdFormat::Hash,
    references_with_hashes: false,
    event_id_server_signs: false,
    special_case_redaction_auth: false,
    ..V2
};

const V4: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V4,
    event_id_format: EventIdFormat::UrlSafeHash,
    ..V3
};

const V5: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V5,
    enforce_key_validity: true,
    ..V4
};

const V6: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V6,
    strict_canonical_json: true,
    max_depth: crate::canonical::MAX_INTEGER as u64,
    redaction: REDACTION_V6,
    special_case_aliases_auth: false,
    limit_notification_levels: true,
    ..V5
};

const V7: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V7,
    knock: true,
    ..V6
};

const V8: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V8,
    redaction: REDACTION_V8,
    restricted: true,
    ..V7
};

const V9: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V9,
    redaction: REDACTION_V9,
    ..V8
};

const V10: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V10,
    knock_restricted: true,
    integer_power_levels: true,
    ..V9
};

const V11: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V11,
    redacts_in_content: true,
    redaction: REDACTION_V11,
    creator_is_sender: true,
    ..V10
};

const V12: RoomVersionRules = RoomVersionRules {
    version: RoomVersion::V12,
    room_id_is_create_hash: true,
    state_resolution: StateResolution::V2_1,
    privileged_creators: true,
    ..V11
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_rules_belong_together() {
        for version in RoomVersion::ALL {
            assert_eq!(RoomVersion::parse(version.as_str()), Some(version));
            assert_eq!(version.rules().version, version);
            assert_eq!(serde_json::to_value(version).unwrap(), version.as_str());
        }
        assert_eq!(RoomVersion::parse("13"), None);
        assert_eq!(RoomVersion::parse("01"), None);
    }
}
