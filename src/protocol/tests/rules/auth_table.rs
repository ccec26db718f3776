//! Threat D4: every rule of versions 1–12 at its boundaries, against the oracle.
//!
//! Each table runs through the cross product of what a rule reads and compares verdicts; it also
//! counts them, so that a table which only ever says no would be noticed.

use comity_protocol::auth::{Rejection, check_auth};
use comity_protocol::room_version::RoomVersion;
use serde_json::{Value, json};

use crate::event::{Num, TestEvent};
use crate::oracle;
use crate::world::{Draft, World};

const CREATOR: &str = "@creator:one";
const SENDER: &str = "@sender:two";
const TARGET: &str = "@target:three";
const HELPER: &str = "@helper:four";

const MEMBERSHIPS: [Option<&str>; 6] = [
    None,
    Some("ban"),
    Some("invite"),
    Some("join"),
    Some("knock"),
    Some("leave"),
];

/// A room of events that judge one more.
struct Table {
    world: World,
    judges: Vec<Num>,
}

impl Table {
    fn new(version: RoomVersion) -> Self {
        Self::with_create(version, json!({}))
    }

    fn with_create(version: RoomVersion, mut create: Value) -> Self {
        if !version.rules().creator_is_sender {
            create["creator"] = json!(CREATOR);
        }
        let mut table = Self {
            world: World::new(version),
            judges: Vec::new(),
        };
        table.put("m.room.create", "", CREATOR, create);
        table
    }

    fn event(
        &self,
        event_type: &str,
        state_key: Option<&str>,
        sender: &str,
        content: Value,
    ) -> TestEvent {
        let number = self.world.events.len();
        let event_id = if self.world.rules().event_id_server_signs {
            format!("${number}:two")
        } else {
            format!("${number:0>43}")
        };
        let prev = self
            .world
            .events
            .last()
            .map(|event| event.num)
            .into_iter()
            .collect();
        self.world.make(Draft {
            event_id,
            event_type,
            state_key,
            sender,
            content,
            ts: 0,
            prev,
            auth: Vec::new(),
        })
    }

    fn put(&mut self, event_type: &str, state_key: &str, sender: &str, content: Value) {
        let event = self.event(event_type, Some(state_key), sender, content);
        self.judges.push(self.world.add(event));
    }

    fn member(&mut self, user: &str, membership: Option<&str>) {
        if let Some(membership) = membership {
            self.put(
                "m.room.member",
                user,
                user,
                json!({ "membership": membership }),
            );
        }
    }

    /// The verdict on an event, which the oracle must share.
    fn verdict(&self, event: &TestEvent) -> bool {
        let ours = self.world.allows(self.judges.iter().copied(), event);
        let theirs = oracle::allows(&self.world, self.judges.iter().copied(), event);
        assert_eq!(
            ours,
            theirs,
            "ours left, oracle right: {event:?}\n{}",
            self.world.tell()
        );
        ours
    }
}

/// Counts verdicts; at the end there must have been enough of both.
#[derive(Default)]
struct Tally([usize; 2]);

impl Tally {
    fn add(&mut self, verdict: bool) {
        self.0[usize::from(verdict)] += 1;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        assert!(
            std::thread::panicking() || self.0.iter().all(|count| *count >= 20),
            "{:?}",
            self.0
        );
    }
}

/// Joins, leaves and knocks of a user's own, under every join rule.
#[test]
fn d4_own_membership() {
    let mut tally = Tally::default();
    let rules = [
        "public",
        "invite",
        "knock",
        "restricted",
        "knock_restricted",
        "private",
        "odd",
    ];
    // Who vouches: nobody, one with and without the level, one who isn't in the room.
    let authorisers = [None, Some(CREATOR), Some(HELPER), Some(TARGET)];
    for version in RoomVersion::ALL {
        for rule in rules {
            for membership in MEMBERSHIPS {
                let mut table = Table::new(version);
                table.member(CREATOR, Some("join"));
                table.member(HELPER, Some("join"));
                table.member(SENDER, membership);
                let users = if version.rules().privileged_creators {
                    json!({ HELPER: 9 })
                } else {
                    json!({ CREATOR: 10, HELPER: 9 })
                };
                table.put(
                    "m.room.power_levels",
                    "",
                    CREATOR,
                    json!({ "invite": 10, "users": users }),
                );
                table.put(
                    "m.room.join_rules",
                    "",
                    CREATOR,
                    json!({ "join_rule": rule }),
                );
                for new in ["join", "leave", "knock", "ban", "odd"] {
                    for authoriser in authorisers {
                        if new != "join" && authoriser.is_some() {
                            continue;
                        }
                        let mut content = json!({ "membership": new });
                        if let Some(authoriser) = authoriser {
                            content["join_authorised_via_users_server"] = json!(authoriser);
                        }
                        let event = table.event("m.room.member", Some(SENDER), SENDER, content);
                        tally.add(table.verdict(&event));
                    }
                }
            }
        }
    }
}

/// Nobody's server can have signed for an authoriser that is no user (from version 8; the oracle
/// leaves it to the signatures).
#[test]
fn d4_an_authoriser_is_a_user() {
    for version in RoomVersion::ALL {
        for authoriser in [json!("nobody"), json!(null), json!(7)] {
            let mut table = Table::new(version);
            table.put(
                "m.room.join_rules",
                "",
                CREATOR,
                json!({ "join_rule": "public" }),
            );
            let content =
                json!({ "membership": "join", "join_authorised_via_users_server": authoriser });
            let event = table.event("m.room.member", Some(SENDER), SENDER, content);
            let verdict = table.world.allows(table.judges.iter().copied(), &event);
            assert_eq!(
                verdict,
                !version.rules().restricted,
                "{version} {authoriser}"
            );
        }
    }
}

/// Invites, kicks, bans and unbans at the boundary of each level.
#[test]
fn d4_memberships_of_others() {
    let mut tally = Tally::default();
    for version in RoomVersion::ALL {
        for sender in [CREATOR, SENDER] {
            for sender_is in MEMBERSHIPS {
                for target_is in MEMBERSHIPS {
                    for (own, target, required) in [
                        (50, 49, 50),
                        (50, 50, 50),
                        (50, 51, 50),
                        (49, 0, 50),
                        (51, 50, 50),
                        (0, -1, 0),
                        (0, 0, 0),
                    ] {
                        let mut table = Table::new(version);
                        table.member(sender, sender_is);
                        table.member(TARGET, target_is);
                        let mut users = json!({ SENDER: own, TARGET: target });
                        if !version.rules().privileged_creators {
                            users[CREATOR] = json!(own);
                        }
                        let levels = json!({ "invite": required, "kick": required, "ban": required, "users": users });
                        table.put("m.room.power_levels", "", CREATOR, levels);
                        table.put(
                            "m.room.join_rules",
                            "",
                            CREATOR,
                            json!({ "join_rule": "public" }),
                        );
                        for new in ["join", "invite", "leave", "ban", "knock"] {
                            let content = json!({ "membership": new });
                            let event = table.event("m.room.member", Some(TARGET), sender, content);
                            tally.add(table.verdict(&event));
                        }
                    }
                }
            }
        }
    }
}

/// Unbanning takes both the ban and the kick level; each is the boundary once.
#[test]
fn d4_unban_takes_two_levels() {
    let mut tally = Tally::default();
    for version in RoomVersion::ALL {
        for ban in [49, 50, 51] {
            for kick in [49, 50, 51] {
                let mut table = Table::new(version);
                table.member(SENDER, Some("join"));
                table.member(TARGET, Some("ban"));
                let levels = json!({ "kick": kick, "ban": ban, "users": { SENDER: 50 } });
                table.put("m.room.power_levels", "", CREATOR, levels);
                let event = table.event(
                    "m.room.member",
                    Some(TARGET),
                    SENDER,
                    json!({ "membership": "leave" }),
                );
                assert_eq!(
                    table.verdict(&event),
                    ban <= 50 && kick <= 50,
                    "{version} ban {ban} kick {kick}"
                );
                tally.add(ban <= 50 && kick <= 50);
            }
        }
    }
}

/// The creator's first join needs no invitation, and only as the very second event.
#[test]
fn d4_the_first_join() {
    for version in RoomVersion::ALL {
        for (user, only_create_before) in [(CREATOR, true), (CREATOR, false), (SENDER, true)] {
            let mut table = Table::new(version);
            table.put(
                "m.room.join_rules",
                "",
                CREATOR,
                json!({ "join_rule": "invite" }),
            );
            let mut event = table.event(
                "m.room.member",
                Some(user),
                user,
                json!({ "membership": "join" }),
            );
            let prev = if only_create_before {
                vec![0]
            } else {
                vec![0, 1]
            };
            event.prev_ids = prev
                .iter()
                .map(|num| table.world.event(*num).event_id.clone())
                .collect();
            event.prev = prev;
            assert_eq!(
                table.verdict(&event),
                user == CREATOR && only_create_before,
                "{version} {user}"
            );
        }
    }
}

/// Third-party invites: a signature of the right key, for this user, by this sender, of this room.
#[test]
fn d4_third_party_invites() {
    use comity_protocol::{canonical, unpadded};
    use ed25519_dalek::{Signer, SigningKey};

    let key = SigningKey::from_bytes(&[7; 32]);
    let public = unpadded::encode(key.verifying_key().as_bytes());
    let url_safe = unpadded::encode_url_safe(key.verifying_key().as_bytes());
    let other = unpadded::encode(SigningKey::from_bytes(&[8; 32]).verifying_key().as_bytes());
    let signed = |mxid: &str, token: &str| {
        let mut signed = json!({ "mxid": mxid, "token": token });
        let text = canonical::to_canonical(&signed).unwrap();
        let signature = unpadded::encode(&key.sign(text.as_bytes()).to_bytes());
        signed["signatures"] = json!({ "identity.example": { "ed25519:0": signature } });
        signed
    };
    let good = signed(TARGET, "token");
    let mut forged = good.clone();
    forged["mxid"] = json!(HELPER);
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({});
    let mut misnamed = good.clone();
    misnamed["signatures"]["identity.example"] =
        json!({ "rsa:0": "AA", "ed25519:1": "AA", "x": 1 });
    let keys = json!({ "public_key": public });
    // What is signed, the room's keys, who invites, whom, what they are; and the verdict.
    let table = [
        (json!({ "signed": good }), &keys, SENDER, TARGET, None, true),
        (
            json!({ "signed": good }),
            &json!({ "public_key": url_safe }),
            SENDER,
            TARGET,
            None,
            true,
        ),
        (
            json!({ "signed": good }),
            &json!({ "public_keys": [{ "public_key": other }, { "public_key": public }] }),
            SENDER,
            TARGET,
            None,
            true,
        ),
        (
            json!({ "signed": good }),
            &keys,
            SENDER,
            TARGET,
            Some("leave"),
            true,
        ),
        (
            json!({ "signed": good }),
            &keys,
            SENDER,
            TARGET,
            Some("ban"),
            false,
        ),
        (
            json!({ "signed": good }),
            &json!({ "public_key": other }),
            SENDER,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": good }),
            &json!({}),
            SENDER,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": good }),
            &keys,
            CREATOR,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": good }),
            &keys,
            SENDER,
            HELPER,
            None,
            false,
        ),
        (
            json!({ "signed": forged }),
            &keys,
            SENDER,
            HELPER,
            None,
            false,
        ),
        (
            json!({ "signed": unsigned }),
            &keys,
            SENDER,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": misnamed }),
            &keys,
            SENDER,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": signed(TARGET, "another") }),
            &keys,
            SENDER,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": { "mxid": TARGET } }),
            &keys,
            SENDER,
            TARGET,
            None,
            false,
        ),
        (
            json!({ "signed": { "token": "token" } }),
            &keys,
            SENDER,
            TARGET,
            None,
            false,
        ),
        (json!({}), &keys, SENDER, TARGET, None, false),
    ];
    for version in RoomVersion::ALL {
        for (invite, keys, sender, target, membership, expected) in &table {
            let mut table = Table::new(version);
            // Whoever holds the promise need not be in the room any more.
            table.member(SENDER, Some("leave"));
            table.member(target, *membership);
            table.put(
                "m.room.third_party_invite",
                "token",
                SENDER,
                (*keys).clone(),
            );
            let content = json!({ "membership": "invite", "third_party_invite": invite });
            let event = table.event("m.room.member", Some(target), sender, content);
            assert_eq!(
                table.verdict(&event),
                *expected,
                "{version} {invite} {keys}"
            );
        }
    }
}

/// What it takes to send: membership, level, state keys, servers, aliases, redactions.
#[test]
fn d4_sending() {
    let mut tally = Tally::default();
    let kinds = [
        ("m.room.message", None),
        ("m.room.topic", Some("")),
        ("org.example.mine", Some(SENDER)),
        ("org.example.mine", Some(TARGET)),
        ("org.example.mine", Some("@")),
        ("m.room.aliases", None),
        ("m.room.aliases", Some("two")),
        ("m.room.aliases", Some("one")),
        ("m.room.third_party_invite", Some("token")),
        ("m.room.member", None),
    ];
    let levels = [
        None,
        Some(json!({ "users": { SENDER: 50 } })),
        Some(json!({ "users": { SENDER: 49 } })),
        Some(json!({ "users_default": 50 })),
        Some(
            json!({ "users_default": 49, "state_default": 49, "events_default": 50, "invite": 49 }),
        ),
        Some(json!({ "users_default": 49, "events_default": 49, "invite": 50 })),
        Some(
            json!({ "users_default": 10, "events": { "m.room.message": 11, "m.room.topic": 10 } }),
        ),
        Some(
            json!({ "users_default": 10, "events": { "m.room.message": 10, "m.room.topic": 11 } }),
        ),
        Some(json!({ "users_default": -1 })),
    ];
    for version in RoomVersion::ALL {
        for federate in [
            json!({}),
            json!({ "m.federate": true }),
            json!({ "m.federate": false }),
        ] {
            for membership in MEMBERSHIPS {
                for levels in &levels {
                    let mut table = Table::with_create(version, federate.clone());
                    table.member(SENDER, membership);
                    table.member(CREATOR, membership);
                    if let Some(levels) = levels {
                        table.put("m.room.power_levels", "", CREATOR, levels.clone());
                    }
                    for (event_type, state_key) in kinds {
                        for sender in [SENDER, CREATOR] {
                            let event = table.event(event_type, state_key, sender, json!({}));
                            tally.add(table.verdict(&event));
                        }
                    }
                }
            }
        }
    }
}

/// A redaction asks for the redact level or a target of its own domain, in versions 1 and 2.
#[test]
fn d4_redactions() {
    for version in RoomVersion::ALL {
        for level in [49, 50, 51] {
            for target in ["$event:one", "$event:two", "$event"] {
                let mut table = Table::new(version);
                table.member(SENDER, Some("join"));
                table.put(
                    "m.room.power_levels",
                    "",
                    CREATOR,
                    json!({ "users": { SENDER: level } }),
                );
                let event = table.event(
                    "m.room.redaction",
                    None,
                    SENDER,
                    json!({ "redacts": target }),
                );
                let expected = !version.rules().special_case_redaction_auth
                    || level >= 50
                    || target == "$event:two";
                assert_eq!(
                    table.verdict(&event),
                    expected,
                    "{version} {level} {target}"
                );
            }
        }
    }
}

/// The power levels a sender of level 50 finds, and what becomes of a change to them.
fn change(version: RoomVersion, before: Value, after: Value) -> (Table, TestEvent) {
    let mut table = Table::new(version);
    table.member(SENDER, Some("join"));
    table.put("m.room.power_levels", "", CREATOR, before);
    let event = table.event("m.room.power_levels", Some(""), SENDER, after);
    (table, event)
}

/// Every property from every boundary value to every other.
#[test]
fn d4_changes_of_power_levels() {
    let mut tally = Tally::default();
    let values = [None, Some(-1), Some(0), Some(49), Some(50), Some(51)];
    let fields = [
        "users_default",
        "events_default",
        "state_default",
        "ban",
        "redact",
        "kick",
        "invite",
    ];
    let entries = [
        ("events", "m.room.topic"),
        ("events", "m.room.message"),
        ("notifications", "room"),
        ("notifications", "org.example.other"),
        ("users", TARGET),
        ("users", SENDER),
    ];
    for version in RoomVersion::ALL {
        for before in values {
            for after in values {
                let levels = json!({ "users": { SENDER: 50 }, "events": {}, "notifications": {} });
                for field in fields {
                    let mut contents = [levels.clone(), levels.clone()];
                    for (content, value) in contents.iter_mut().zip([before, after]) {
                        if let Some(value) = value {
                            content[field] = json!(value);
                        }
                    }
                    let [before, after] = contents;
                    let (table, event) = change(version, before, after);
                    tally.add(table.verdict(&event));
                }
                for (map, key) in entries {
                    let mut contents = [levels.clone(), levels.clone()];
                    for (content, value) in contents.iter_mut().zip([before, after]) {
                        if let Some(value) = value {
                            content[map][key] = json!(value);
                        }
                    }
                    let [before, after] = contents;
                    let (table, event) = change(version, before, after);
                    tally.add(table.verdict(&event));
                }
            }
        }
    }
}

/// Values of every kind in every property, alone in a first power levels event.
#[test]
fn d4_values_of_power_levels() {
    let mut tally = Tally::default();
    let values = [
        json!(50),
        json!("50"),
        json!(" +050 "),
        json!("-7"),
        json!("fifty"),
        json!("5 0"),
        json!(""),
        json!(null),
        json!(true),
        json!([50]),
        json!({}),
    ];
    for version in RoomVersion::ALL {
        for value in &values {
            let mut contents = Vec::new();
            for field in [
                "users_default",
                "events_default",
                "state_default",
                "ban",
                "redact",
                "kick",
                "invite",
            ] {
                contents.push(json!({ field: value }));
            }
            contents.push(json!({ "events": { "m.room.topic": value } }));
            contents.push(json!({ "events": value }));
            contents.push(json!({ "users": { TARGET: value } }));
            contents.push(json!({ "users": value }));
            if version.rules().limit_notification_levels {
                contents.push(json!({ "notifications": { "room": value } }));
                contents.push(json!({ "notifications": value }));
            }
            for content in contents {
                let mut table = Table::new(version);
                table.member(CREATOR, Some("join"));
                let event = table.event("m.room.power_levels", Some(""), CREATOR, content);
                tally.add(table.verdict(&event));
            }
        }
        for user in [
            "target",
            "@target",
            "@:three",
            "@tar get:three",
            "@target:th ree",
            TARGET,
        ] {
            let mut table = Table::new(version);
            table.member(CREATOR, Some("join"));
            let content = json!({ "users": { user: 1 } });
            let event = table.event("m.room.power_levels", Some(""), CREATOR, content);
            tally.add(table.verdict(&event));
        }
    }
}

/// Floats count as what stands before their point in versions 1–5 (the oracle reads none).
#[test]
fn d4_floats_in_old_versions() {
    for version in &RoomVersion::ALL[..5] {
        for (float, integer) in [
            ("50.99", 50),
            ("4.99E1", 49),
            ("5.1e1", 51),
            ("-0.5", 0),
            ("49.0", 49),
        ] {
            for property in ["ban", "kick"] {
                let float: Value = serde_json::from_str(float).unwrap();
                let (table, event) = change(
                    *version,
                    json!({ "users_default": 50 }),
                    json!({ property: float, "users_default": 50 }),
                );
                let ours = table.world.allows(table.judges.iter().copied(), &event);
                let (table, event) = change(
                    *version,
                    json!({ "users_default": 50 }),
                    json!({ property: integer, "users_default": 50 }),
                );
                assert_eq!(ours, table.verdict(&event), "{version} {property} {float}");
            }
        }
    }
}

/// Threat D2: nobody can list a creator in version 12, not even a creator.
#[test]
fn d2_creators_are_not_in_power_levels() {
    for version in RoomVersion::ALL {
        for listed in [CREATOR, HELPER, TARGET] {
            let create = json!({ "additional_creators": [HELPER] });
            let mut table = Table::with_create(version, create);
            table.member(CREATOR, Some("join"));
            let content = json!({ "users": { listed: 100 } });
            let event = table.event("m.room.power_levels", Some(""), CREATOR, content);
            let expected = version != RoomVersion::V12 || listed == TARGET;
            assert_eq!(table.verdict(&event), expected, "{version} {listed}");
        }
    }
}

/// The create event by itself. Threat D2: a second one is no beginning.
#[test]
fn d4_create() {
    let mut tally = Tally::default();
    for version in RoomVersion::ALL {
        let name = version.as_str();
        let contents = [
            json!({ "creator": CREATOR }),
            json!({}),
            json!({ "creator": CREATOR, "room_version": name }),
            json!({ "creator": CREATOR, "additional_creators": [] }),
            json!({ "creator": CREATOR, "additional_creators": [HELPER] }),
            json!({ "creator": CREATOR, "additional_creators": [HELPER, "helper"] }),
            json!({ "creator": CREATOR, "additional_creators": [1] }),
            json!({ "creator": CREATOR, "additional_creators": HELPER }),
            json!({ "creator": CREATOR, "additional_creators": null }),
        ];
        for content in contents {
            for sender in [CREATOR, SENDER] {
                let empty = Table {
                    world: World::new(version),
                    judges: Vec::new(),
                };
                let mut event = empty.event("m.room.create", Some(""), sender, content.clone());
                tally.add(empty.verdict(&event));
                event.prev_ids = vec!["$before".try_into().unwrap()];
                event.prev = vec![7];
                assert!(
                    !empty.verdict(&event),
                    "a create event after another in {version}"
                );
            }
        }
        for odd in [json!("13"), json!(""), json!(1), json!(null)] {
            // The oracle leaves this to its caller.
            let empty = World::new(version);
            let draft = Draft {
                event_id: format!("${:0>43}", 0),
                event_type: "m.room.create",
                state_key: Some(""),
                sender: CREATOR,
                content: json!({ "creator": CREATOR, "room_version": odd }),
                ts: 0,
                prev: Vec::new(),
                auth: Vec::new(),
            };
            let verdict = check_auth(version.rules(), &empty.make(draft), &Default::default());
            assert_eq!(
                verdict,
                Err(Rejection::UnrecognisedRoomVersion),
                "{version} {odd}"
            );
        }
    }
}

/// Nothing but a create event is allowed in a room without one.
#[test]
fn d4_no_create_event() {
    for version in RoomVersion::ALL {
        let table = Table::new(version);
        for (event_type, state_key) in [
            ("m.room.message", None),
            ("m.room.member", Some(CREATOR)),
            ("m.room.power_levels", Some("")),
        ] {
            let event = table.event(
                event_type,
                state_key,
                CREATOR,
                json!({ "membership": "join" }),
            );
            let verdict = check_auth(version.rules(), &event, &Default::default());
            assert_eq!(verdict, Err(Rejection::NoCreate));
        }
    }
}
