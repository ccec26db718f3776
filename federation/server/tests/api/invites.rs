//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::time::Duration;

use comity_testkit::{Answer, Federation, HostilePeer, Pdu, Settings, User, encode};
use serde_json::{Value, json};

const A: &str = "a.test";

struct Scene {
    federation: Federation,
    mallory: HostilePeer,
    alice: User,
}

async fn scene() -> Scene {
    with(Settings::default()).await
}

async fn with(settings: Settings) -> Scene {
    let server_name = A.try_into().unwrap();
    let settings = Settings {
        server_name,
        ..settings
    };
    let federation = Federation::with([settings]).await;
    let alice = federation[A].register("alice").await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    Scene {
        federation,
        mallory,
        alice,
    }
}

impl Scene {
    /// A room of the peer's, its create event, and an invite for Alice.
    fn invite(&self, version: &str, change: impl FnOnce(&mut Value)) -> (String, Pdu, Pdu) {
        let sender = self.mallory.user("m");
        let mut create = json!({
            "type": "m.room.create",
            "state_key": "",
            "sender": sender,
            "content": {"room_version": version},
            "depth": 1,
            "origin_server_ts": 1,
            "prev_events": [],
            "auth_events": [],
        });
        if version != "12" {
            create["room_id"] = json!("!theirs:mallory.test");
            create["content"]["creator"] = json!(sender);
        }
        if version == "1" {
            create["event_id"] = json!("$create:mallory.test");
        }
        let create = self.mallory.sign(version, create);
        let room = match version {
            "12" => create.id.replacen('$', "!", 1),
            _ => "!theirs:mallory.test".to_owned(),
        };
        let parent = match version {
            "1" => json!([[create.id, {"sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"}]]),
            _ => json!([create.id]),
        };
        let mut invite = json!({
            "type": "m.room.member",
            "state_key": self.alice.id,
            "sender": sender,
            "room_id": room,
            "content": {"membership": "invite"},
            "depth": 2,
            "origin": "mallory.test",
            "origin_server_ts": 2,
            "prev_events": parent,
            "auth_events": if version == "12" { json!([]) } else { parent.clone() },
        });
        if version == "1" {
            invite["event_id"] = json!("$invite:mallory.test");
        }
        change(&mut invite);
        (room, create, self.mallory.sign(version, invite))
    }

    async fn send(&self, version: &str, room: &str, invite: &Pdu, state: Value) -> Answer {
        let path = format!(
            "/_matrix/federation/v2/invite/{}/{}",
            encode(room),
            encode(&invite.id)
        );
        let body = json!({
            "room_version": version, "event": invite.json, "invite_room_state": state,
        });
        let peer = self.mallory.to(&self.federation[A]);
        peer.put(path).json(body).send().await
    }

    /// The rooms that Alice is invited to.
    async fn invited(&self) -> Vec<String> {
        let sync = self.alice.sync(None).await;
        let invites = sync["rooms"]["invite"].as_object();
        invites
            .map(|rooms| rooms.keys().cloned().collect())
            .unwrap_or_default()
    }
}

/// The invite comes back with our signature beside the inviter's, and the user sees it.
#[tokio::test]
async fn an_invite_is_cosigned_and_shown() {
    for version in ["1", "6", "11", "12"] {
        let scene = scene().await;
        let (room, create, invite) = scene.invite(version, |_| ());
        let answer = scene.send(version, &room, &invite, json!([create.json]));
        let signed = answer.await.ok();
        assert!(signed["event"]["signatures"][A].is_object());
        assert!(signed["event"]["signatures"]["mallory.test"].is_object());
        assert_eq!(signed["event"]["content"], invite.json["content"]);
        assert_eq!(scene.invited().await, [room]);
    }
}

/// The first version of the endpoint.
#[tokio::test]
async fn older_servers_invite_too() {
    let scene = scene().await;
    let (room, _, invite) = scene.invite("1", |_| ());
    let path = format!(
        "/_matrix/federation/v1/invite/{}/{}",
        encode(&room),
        encode(&invite.id)
    );
    let peer = scene.mallory.to(&scene.federation[A]);
    let mut body = invite.json.clone();
    body["unsigned"] = json!({"invite_room_state": [
        {"type": "m.room.name", "state_key": "", "sender": "@m:mallory.test", "content": {"name": "Theirs"}},
    ]});
    let answer = peer.put(path).json(body).send().await.ok();
    assert_eq!(answer[0], 200);
    assert!(answer[1]["event"]["signatures"][A].is_object());
    assert_eq!(scene.invited().await, [room]);
}

/// Threat C1 (CVE-2025-68667): what is no invite of ours from whoever asks is not signed, whatever it is.
#[tokio::test]
async fn c1_what_is_no_invite_is_not_signed() {
    let scene = scene().await;
    scene.federation[A].register("bob").await;
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("a join", |event| {
            event["content"]["membership"] = json!("join")
        }),
        ("a ban", |event| {
            event["content"]["membership"] = json!("ban")
        }),
        ("no member event", |event| {
            event["type"] = json!("m.room.power_levels")
        }),
        ("of another's user", |event| {
            event["state_key"] = json!("@x:b.test")
        }),
        ("by another server", |event| {
            event["sender"] = json!("@x:b.test")
        }),
        ("by ourselves", |event| {
            event["sender"] = json!("@bob:a.test")
        }),
    ];
    for version in ["6", "12"] {
        for (what, change) in changes {
            let (room, create, invite) = scene.invite(version, change);
            let answer = scene.send(version, &room, &invite, json!([create.json]));
            let answer = answer.await;
            assert!(
                [400, 403].contains(&answer.status.as_u16()),
                "{what}: {}",
                answer.body
            );
            assert!(!answer.body.to_string().contains("signatures"), "{what}");
        }
        // The path names another room, or another event.
        let (room, create, invite) = scene.invite(version, |_| ());
        let state = json!([create.json]);
        let answer = scene.send(version, "!other:mallory.test", &invite, state.clone());
        answer.await.error(400, "M_INVALID_PARAM");
        let other = Pdu {
            id: "$other".into(),
            json: invite.json.clone(),
        };
        let answer = scene.send(version, &room, &other, state.clone()).await;
        answer.error(400, "M_INVALID_PARAM");
        // Another version than the room's: then it is another event.
        let other = if version == "6" { "12" } else { "6" };
        let answer = scene.send(other, &room, &invite, state).await;
        assert_eq!(answer.status, 400);
    }
    assert_eq!(scene.invited().await, [""; 0]);
}

/// Threat C7 (CVE-2024-52815): a state that is none. Version 12 refuses it, older ones pass it over; sync goes on.
#[tokio::test]
async fn c7_a_room_state_that_is_none() {
    for version in ["6", "12"] {
        let states = [
            Value::Null,
            json!("x"),
            json!({}),
            json!([]),
            json!([null, 3, "x", {}]),
            json!([{"type": "m.room.name", "state_key": "", "sender": "@m:mallory.test", "content": {"name": "n"}}]),
        ];
        for state in states {
            let scene = scene().await;
            let (room, _, invite) = scene.invite(version, |_| ());
            let answer = scene.send(version, &room, &invite, state.clone()).await;
            if version == "12" {
                answer.error(400, "M_INVALID_PARAM");
                assert_eq!(scene.invited().await, [""; 0], "{state}");
            } else {
                answer.ok();
                assert_eq!(scene.invited().await, [room], "{state}");
            }
        }
    }
}

/// Threat C11: who takes no invites gets none, and the sender learns it by the specification's code.
#[tokio::test]
async fn c11_who_takes_no_invites_gets_none() {
    let scene = scene().await;
    let path = format!(
        "/_matrix/client/v3/user/{}/account_data/m.invite_permission_config",
        encode(&scene.alice.id)
    );
    let block = scene
        .alice
        .put(path)
        .json(json!({"default_action": "block"}));
    block.send().await.ok();
    let (room, create, invite) = scene.invite("12", |_| ());
    let answer = scene.send("12", &room, &invite, json!([create.json]));
    answer.await.error(403, "M_INVITE_BLOCKED");
    let (room, create, invite) =
        scene.invite("12", |event| event["state_key"] = json!("@nobody:a.test"));
    let answer = scene.send("12", &room, &invite, json!([create.json]));
    answer.await.error(403, "M_FORBIDDEN");
    assert_eq!(scene.invited().await, [""; 0]);
}

/// Threat C11: of 300 invites for one user, each to another room by another sender, most are told to come later.
#[tokio::test(start_paused = true)]
async fn c11_a_flood_of_invites_is_held_back() {
    let limits = Settings {
        limits: true,
        ..Settings::default()
    };
    let scene = with(limits).await;
    let mut taken = 0;
    for n in 0..300 {
        let room = format!("!r{n}:mallory.test");
        let (_, _, invite) = scene.invite("6", |event| {
            event["sender"] = json!(format!("@m{n}:mallory.test"));
            event["room_id"] = json!(room);
        });
        let answer = scene.send("6", &room, &invite, json!([])).await;
        if answer.status == 200 {
            taken += 1;
        } else {
            let refused = answer.error(429, "M_LIMIT_EXCEEDED");
            assert!(refused["retry_after_ms"].as_u64() > Some(0));
        }
    }
    assert!((1..50).contains(&taken), "{taken}");
    assert_eq!(scene.invited().await.len(), taken);
    // It is over some time after.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (room, create, invite) = scene.invite("12", |_| ());
    let answer = scene.send("12", &room, &invite, json!([create.json]));
    answer.await.ok();
}

/// <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>: an invite by address becomes one of a user, if the identity
/// server's word is for that user and that invite, and the room in path and body is one (C3).
#[tokio::test]
async fn an_invite_by_address_is_exchanged() {
    let scene = scene().await;
    let bob = scene.federation[A].register("bob").await;
    let room = scene
        .alice
        .create_room(json!({"preset": "private_chat"}))
        .await;
    let identity = &scene.mallory;
    let promise = json!({
        "display_name": "b...",
        "key_validity_url": "https://mallory.test/valid",
        "public_key": identity.public_key(),
        "public_keys": [{"public_key": identity.public_key()}],
    });
    let alice = &scene.alice;
    alice
        .set_state(&room, "m.room.third_party_invite", "token", promise)
        .await;
    let exchange = |path_room: &str, signed: Value, sender: &str| {
        let path = format!(
            "/_matrix/federation/v1/exchange_third_party_invite/{}",
            encode(path_room)
        );
        let body = json!({
            "type": "m.room.member",
            "room_id": room,
            "sender": sender,
            "state_key": bob.id,
            "content": {
                "membership": "invite",
                "third_party_invite": {"display_name": "b...", "signed": signed},
            },
        });
        let peer = scene.mallory.to(&scene.federation[A]);
        peer.put(path).json(body).send()
    };
    let signed =
        |mxid: &str, token: &str| identity.sign_object(json!({"mxid": mxid, "token": token}));
    let good = signed(&bob.id, "token");
    for bad in [
        signed(&scene.alice.id, "token"),
        signed(&bob.id, "other"),
        json!({"mxid": bob.id, "token": "token", "signatures": {}}),
        json!({}),
    ] {
        let answer = exchange(&room, bad, &scene.alice.id).await;
        answer.error(403, "M_FORBIDDEN");
    }
    let others = exchange("!other:a.test", good.clone(), &scene.alice.id).await;
    others.error(400, "M_INVALID_PARAM");
    let forged = exchange(&room, good.clone(), "@m:mallory.test").await;
    forged.error(403, "M_FORBIDDEN");
    exchange(&room, good, &scene.alice.id).await.ok();
    let sync = bob.sync(None).await;
    assert!(sync["rooms"]["invite"][&room].is_object(), "{sync}");
}
