//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms> and what belongs to it.

use comity_testkit::{Client, Federation, HostilePeer, Pdu, User, encode};
use serde_json::{Value, json};

const A: &str = "a.test";
const V1: &str = "/_matrix/federation/v1";
const V2: &str = "/_matrix/federation/v2";
const VERSIONS: [&str; 4] = ["1", "6", "11", "12"];

async fn scene() -> (Federation, HostilePeer, User) {
    let federation = Federation::of([A]).await;
    let alice = federation[A].register("alice").await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    (federation, mallory, alice)
}

fn public(version: &str) -> Value {
    json!({"preset": "public_chat", "room_version": version})
}

fn make(what: &str, room: &str, user: &str, version: &str) -> String {
    let (room, user) = (encode(room), encode(user));
    format!("{V1}/make_{what}/{room}/{user}?ver={version}")
}

fn send(what: &str, room: &str, event: &Pdu) -> String {
    format!("{V2}/send_{what}/{}/{}", encode(room), encode(&event.id))
}

/// The event of a handshake, signed by the peer, as `change` leaves it.
async fn signed(
    mallory: &HostilePeer,
    peer: &Client,
    path: String,
    change: impl FnOnce(&mut Value),
) -> (Pdu, String) {
    let template = peer.get(path).send().await.ok();
    let version = template["room_version"].as_str().unwrap();
    let mut event = mallory.completed(&template["event"], version);
    change(&mut event);
    (mallory.sign(version, event), version.to_owned())
}

/// A user of another server joins, in each room version, is seen, speaks for their server, and leaves.
#[tokio::test]
async fn a_user_of_another_server_comes_and_goes() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    for version in VERSIONS {
        let room = alice.create_room(public(version)).await;
        let joined = mallory.join(&federation[A], &room, "m").await;
        assert!(
            joined
                .state
                .contains_key(&("m.room.create".to_owned(), String::new()))
        );
        let path = format!("/_matrix/client/v3/rooms/{}/joined_members", encode(&room));
        let members = alice.get(path.clone()).send().await.ok();
        assert!(
            members["joined"]["@m:mallory.test"].is_object(),
            "{members}"
        );

        let path_of_leave = make("leave", &room, "@m:mallory.test", version);
        let (leave, _) = signed(&mallory, &peer, path_of_leave, |_| ()).await;
        let left = peer.put(send("leave", &room, &leave)).json(&leave.json);
        assert_eq!(left.send().await.ok(), json!({}));
        let members = alice.get(path).send().await.ok();
        assert!(members["joined"]["@m:mallory.test"].is_null());
    }
}

/// The first version of `send_join` and `send_leave`: a pair of status and answer.
#[tokio::test]
async fn older_servers_are_answered_in_pairs() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    let room = alice.create_room(public("6")).await;
    let old = |path: String| path.replace("/v2/", "/v1/");
    let path = make("join", &room, "@m:mallory.test", "6");
    let (join, _) = signed(&mallory, &peer, path, |_| ()).await;
    let joined = peer.put(old(send("join", &room, &join))).json(&join.json);
    let joined = joined.send().await.ok();
    assert_eq!(joined[0], 200);
    assert!(joined[1]["state"].as_array().unwrap().len() > 4);
    let path = make("leave", &room, "@m:mallory.test", "6");
    let (leave, _) = signed(&mallory, &peer, path, |_| ()).await;
    let left = peer
        .put(old(send("leave", &room, &leave)))
        .json(&leave.json);
    assert_eq!(left.send().await.ok(), json!([200, {}]));
}

/// Without members the answer names the servers instead, and what is in the state isn't repeated.
#[tokio::test]
async fn members_are_left_out_where_asked() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    let named = json!({"preset": "public_chat", "name": "Named"});
    let room = alice.create_room(named).await;
    let path = make("join", &room, "@m:mallory.test", "12");
    let (join, _) = signed(&mallory, &peer, path, |_| ()).await;
    let path = format!("{}?omit_members=true", send("join", &room, &join));
    let joined = peer.put(path).json(&join.json).send().await.ok();
    assert_eq!(joined["members_omitted"], true);
    assert_eq!(joined["servers_in_room"], json!([A]));
    let state = joined["state"].as_array().unwrap();
    assert!(state.iter().all(|event| event["type"] != "m.room.member"));
    let chain = joined["auth_chain"].as_array().unwrap();
    assert!(chain.iter().any(|event| event["type"] == "m.room.member"));
    assert!(chain.iter().all(|event| !state.contains(event)));
}

/// Rooms that the asking server doesn't know the version of; rooms that aren't here; users who aren't its own (threat C9).
#[tokio::test]
async fn templates_are_for_those_who_can_use_them() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    let room = alice.create_room(public("12")).await;
    let refused = peer
        .get(make("join", &room, "@m:mallory.test", "11"))
        .send()
        .await
        .error(400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(refused["room_version"], "12");
    let nothing = format!(
        "{V1}/make_join/{}/{}",
        encode(&room),
        encode("@m:mallory.test")
    );
    let refused = peer.get(nothing).send().await;
    refused.error(400, "M_INCOMPATIBLE_ROOM_VERSION");
    for what in ["join", "leave", "knock"] {
        let nowhere = make(what, "!nowhere:a.test", "@m:mallory.test", "12");
        peer.get(nowhere).send().await.error(404, "M_NOT_FOUND");
        for user in [alice.id.as_str(), "@x:b.test"] {
            let others = make(what, &room, user, "12");
            peer.get(others).send().await.error(403, "M_FORBIDDEN");
        }
    }
}

/// Threats C3, C9, B2: what comes back must be the membership that was asked for, of the room in the path, signed by its sender's server.
#[tokio::test]
async fn c3_c9_another_event_than_the_one_asked_for_is_refused() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    for version in ["6", "12"] {
        let room = alice.create_room(public(version)).await;
        let other = alice.create_room(public(version)).await;
        let path = || make("join", &room, "@m:mallory.test", version);
        type Change<'a> = Box<dyn FnOnce(&mut Value) + 'a>;
        let changes: [(&str, Change<'_>); 6] = [
            (
                "another room",
                Box::new(|event| event["room_id"] = json!(other)),
            ),
            (
                "another membership",
                Box::new(|event| event["content"]["membership"] = json!("leave")),
            ),
            (
                "another user",
                Box::new(|event| event["state_key"] = json!("@n:mallory.test")),
            ),
            (
                "another type",
                Box::new(|event| event["type"] = json!("m.room.topic")),
            ),
            (
                "another server's user",
                Box::new(|event| {
                    event["sender"] = json!(alice.id);
                    event["state_key"] = json!(alice.id);
                }),
            ),
            (
                "no state",
                Box::new(|event| drop(event.as_object_mut().unwrap().remove("state_key"))),
            ),
        ];
        for (what, change) in changes {
            let (event, _) = signed(&mallory, &peer, path(), change).await;
            let answer = peer.put(send("join", &room, &event)).json(&event.json);
            let status = answer.send().await.status.as_u16();
            assert!([400, 403].contains(&status), "{what}: {status}");
        }
        // The event of the path is another.
        let (event, _) = signed(&mallory, &peer, path(), |_| ()).await;
        let elsewhere = format!("{V2}/send_join/{}/$other", encode(&room));
        let answer = peer.put(elsewhere).json(&event.json).send().await;
        answer.error(400, "M_INVALID_PARAM");
        // A wrong signature.
        let mut forged = event.clone();
        forged.json["signatures"]["mallory.test"]["ed25519:evil"] = json!("AAAA");
        let answer = peer.put(send("join", &room, &event)).json(&forged.json);
        answer.send().await.error(403, "M_FORBIDDEN");
        // Nothing of it is there; the good one is taken.
        let ids = format!("{V1}/event/{}", encode(&event.id));
        peer.get(ids).send().await.error(404, "M_NOT_FOUND");
        let answer = peer.put(send("join", &room, &event)).json(&event.json);
        answer.send().await.ok();
    }
}

/// Threat C4: a banned user is refused at either step.
#[tokio::test]
async fn c4_a_banned_user_is_refused() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    for version in VERSIONS {
        let room = alice.create_room(public(version)).await;
        let path = make("join", &room, "@m:mallory.test", version);
        let (join, _) = signed(&mallory, &peer, path.clone(), |_| ()).await;
        alice.ban(&room, "@m:mallory.test").await;
        peer.get(path).send().await.error(403, "M_FORBIDDEN");
        let answer = peer.put(send("join", &room, &join)).json(&join.json);
        answer.send().await.error(403, "M_FORBIDDEN");
    }
}

/// Threat C6: a restricted join is signed by the authoriser's server if they may and the user fulfils a condition.
#[tokio::test]
async fn c6_restricted_joins_are_cosigned_or_refused() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    let club = alice.create_room(public("11")).await;
    let rules = json!({"join_rule": "restricted", "allow": [
        {"type": "m.room_membership", "room_id": club},
    ]});
    let restricted = json!({
        "preset": "private_chat",
        "room_version": "11",
        "initial_state": [{"type": "m.room.join_rules", "content": rules}],
    });
    let room = alice.create_room(restricted).await;
    let path = || make("join", &room, "@m:mallory.test", "11");
    // Not in the club: no template, and none made up is signed.
    peer.get(path()).send().await.error(403, "M_FORBIDDEN");
    mallory.join(&federation[A], &club, "m").await;
    let (join, _) = signed(&mallory, &peer, path(), |_| ()).await;
    assert_eq!(
        join.json["content"]["join_authorised_via_users_server"],
        json!(alice.id)
    );
    // Through somebody who may not.
    let powerless = federation[A].register("bob").await;
    let (other, _) = signed(&mallory, &peer, path(), |event| {
        event["content"]["join_authorised_via_users_server"] = json!(powerless.id);
    })
    .await;
    let answer = peer.put(send("join", &room, &other)).json(&other.json);
    answer.send().await.error(403, "M_FORBIDDEN");
    // As it should be.
    let answer = peer.put(send("join", &room, &join)).json(&join.json);
    let answer = answer.send().await.ok();
    assert!(answer["event"]["signatures"][A].is_object());
    assert!(answer["event"]["signatures"]["mallory.test"].is_object());
    // Where nobody of ours may let anybody in, another server is to be asked.
    let mut levels = alice.state(&room, "m.room.power_levels", "").await;
    levels["invite"] = json!(100);
    levels["users"][&alice.id] = json!(0);
    alice
        .set_state(&room, "m.room.power_levels", "", levels)
        .await;
    let other = make("join", &room, "@n:mallory.test", "11");
    mallory.join(&federation[A], &club, "n").await;
    let answer = peer.get(other).send().await;
    answer.error(400, "M_UNABLE_TO_GRANT_JOIN");
    // Nor where nobody here can know whether the condition is fulfilled.
    // Of a room that this server has left its rows say who was in it, not who is.
    alice.leave(&club).await;
    for unknown in ["!elsewhere:b.test", club.as_str()] {
        let rules = json!({"join_rule": "restricted", "allow": [
            {"type": "m.room_membership", "room_id": unknown},
        ]});
        let elsewhere = json!({
            "preset": "private_chat",
            "room_version": "11",
            "initial_state": [{"type": "m.room.join_rules", "content": rules}],
        });
        let elsewhere = alice.create_room(elsewhere).await;
        let other = make("join", &elsewhere, "@n:mallory.test", "11");
        let answer = peer.get(other).send().await;
        answer.error(400, "M_UNABLE_TO_AUTHORISE_JOIN");
    }
}

/// Threat F9: a server that the room shuts out hands nothing over, though its template is older.
#[tokio::test]
async fn f9_a_server_shut_out_hands_nothing_over() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    let room = alice.create_room(public("12")).await;
    mallory.join(&federation[A], &room, "m").await;
    let user = "@n:mallory.test";
    let mut ready = Vec::new();
    let (join, _) = signed(&mallory, &peer, make("join", &room, user, "12"), |_| ()).await;
    ready.push((send("join", &room, &join), join));
    let path = make("leave", &room, "@m:mallory.test", "12");
    let (leave, _) = signed(&mallory, &peer, path, |_| ()).await;
    ready.push((send("leave", &room, &leave), leave));
    let knock = json!({"join_rule": "knock"});
    alice.set_state(&room, "m.room.join_rules", "", knock).await;
    let (knock, _) = signed(&mallory, &peer, make("knock", &room, user, "12"), |_| ()).await;
    let path = format!("{V1}/send_knock/{}/{}", encode(&room), encode(&knock.id));
    ready.push((path, knock));
    let acl = json!({"allow": ["*"], "deny": ["Mallory.TEST"]});
    alice.set_state(&room, "m.room.server_acl", "", acl).await;
    for (path, event) in ready {
        let answer = peer.put(&path).json(&event.json).send().await;
        answer.error(403, "M_FORBIDDEN");
        let path = format!(
            "/_matrix/client/v3/rooms/{}/event/{}",
            encode(&room),
            encode(&event.id)
        );
        assert_eq!(alice.get(path).send().await.status, 404);
    }
}

/// Knocking: the knocker learns of the room what its stripped state tells, and is seen to knock.
#[tokio::test]
async fn a_user_of_another_server_knocks() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    for version in ["7", "12"] {
        let room = alice
            .create_room(json!({
                "room_version": version,
                "name": "Closed",
                "initial_state": [
                    {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
                ],
            }))
            .await;
        let path = make("knock", &room, "@m:mallory.test", version);
        let (knock, _) = signed(&mallory, &peer, path, |_| ()).await;
        let path = format!("{V1}/send_knock/{}/{}", encode(&room), encode(&knock.id));
        let answer = peer.put(path).json(&knock.json).send().await.ok();
        let state = answer["knock_room_state"].as_array().unwrap();
        assert!(state.iter().any(|event| event["type"] == "m.room.create"));
        assert!(state.iter().any(|event| event["type"] == "m.room.name"));
        let member = alice.state(&room, "m.room.member", "@m:mallory.test").await;
        assert_eq!(member["membership"], "knock");
        // Who isn't let in by knocking alone.
        let join = make("join", &room, "@m:mallory.test", version);
        peer.get(join).send().await.error(403, "M_FORBIDDEN");
    }
}
