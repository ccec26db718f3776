//! Inviting users of other servers: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::time::Duration;

use comity_testkit::{Asked, HostilePeer, encode};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::pair::{ONE, Pair, TWO, VERSIONS, join, membership, synced};

/// An invite reaches its user with what they may know of the room; with it they may join.
#[tokio::test(start_paused = true)]
async fn an_invite_is_accepted() {
    for version in VERSIONS {
        let pair = Pair::new().await;
        let room = pair.room("private_chat", version).await;
        pair.alice.invite(&room, &pair.bob.id).await;
        let invited = synced(&pair.bob, "invite", &room).await.unwrap();
        let state = invited["invite_state"]["events"].as_array().unwrap();
        let has = |kind: &str| state.iter().any(|event: &Value| event["type"] == kind);
        assert!(has("m.room.create") && has("m.room.name"), "{version}");
        let (status, body) = join(&pair.bob, &room, &[]).await;
        assert_eq!(status, 200, "{version}: {body}");
        assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "join");
    }
}

/// <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>
#[tokio::test(start_paused = true)]
async fn an_invite_is_declined() {
    for version in VERSIONS {
        let pair = Pair::new().await;
        let room = pair.room("private_chat", version).await;
        pair.alice.invite(&room, &pair.bob.id).await;
        pair.bob.leave(&room).await;
        assert!(synced(&pair.bob, "invite", &room).await.is_none());
        let left = membership(&pair.alice, &room, &pair.bob).await;
        assert_eq!(left, "leave", "{version}");
    }
}

/// C10: an invite whose server is dead is declined within two seconds.
#[tokio::test(start_paused = true)]
async fn c10_an_invite_of_a_dead_server_is_declined() {
    let pair = Pair::new().await;
    let room = pair.room("private_chat", "11").await;
    pair.alice.invite(&room, &pair.bob.id).await;
    pair.federation.wire.hold(TWO, ONE);
    let begun = Instant::now();
    pair.bob.leave(&room).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(synced(&pair.bob, "invite", &room).await.is_none());
    // It hears of it when it lives again.
    pair.federation.wire.heal();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "leave");
}

/// An invite that its server can't be given is none.
#[tokio::test(start_paused = true)]
async fn an_invite_that_arrives_nowhere_is_refused() {
    let pair = Pair::new().await;
    let room = pair.room("private_chat", "11").await;
    pair.federation.wire.cut(ONE, TWO);
    let path = format!(
        "/_matrix/client/v3/rooms/{}/invite",
        comity_testkit::encode(&room)
    );
    let body = serde_json::json!({ "user_id": pair.bob.id });
    let answer = pair.alice.post(path).json(body).send().await;
    assert!(answer.status.as_u16() >= 400);
    let path = format!(
        "/_matrix/client/v3/rooms/{}/state/m.room.member/{}",
        comity_testkit::encode(&room),
        comity_testkit::encode(&pair.bob.id)
    );
    assert_eq!(pair.alice.get(path).send().await.status, 404);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>: whoever invites learns from the other server too that the
/// invite is blocked, and of one that is ignored nothing (MSC4155).
#[tokio::test(start_paused = true)]
async fn a_blocked_invite_is_refused_and_an_ignored_one_is_not() {
    let pair = Pair::new().await;
    let of = |kind: &str| {
        format!(
            "/_matrix/client/v3/user/{}/account_data/{kind}",
            pair.bob.id
        )
    };
    let (permission, filter) = (
        of("m.invite_permission_config"),
        of("org.matrix.msc4155.invite_permission_config"),
    );
    for (path, wish, status) in [
        (&permission, json!({ "default_action": "block" }), 403),
        (&permission, json!({}), 200),
        (&filter, json!({ "blocked_servers": [ONE] }), 403),
        (&filter, json!({ "ignored_servers": [ONE] }), 200),
    ] {
        let room = pair.room("private_chat", "11").await;
        let _ = pair.bob.put(path).json(&wish).send().await.ok();
        let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(&room));
        let body = json!({ "user_id": pair.bob.id });
        let answer = pair.alice.post(path).json(body).send().await;
        match status {
            403 => drop(answer.error(403, "M_INVITE_BLOCKED")),
            _ => drop(answer.ok()),
        }
        let sync = pair.bob.sync(None).await;
        let is_shown = sync["rooms"]["invite"][&room].is_object();
        assert_eq!(is_shown, wish == json!({}), "{wish}");
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>: how an invite ended is in the
/// room's timeline under `leave`, whether its room was told, is gone, or told us.
#[tokio::test(start_paused = true)]
async fn how_an_invite_ended_is_shown() {
    for version in VERSIONS {
        let pair = Pair::new().await;
        for end in ["told", "dead", "rescinded"] {
            let room = pair.room("private_chat", version).await;
            let since = pair.bob.sync(None).await;
            pair.alice.invite(&room, &pair.bob.id).await;
            match end {
                "told" => pair.bob.leave(&room).await,
                "dead" => {
                    pair.federation.wire.cut(ONE, TWO);
                    pair.bob.leave(&room).await;
                    pair.federation.wire.heal();
                }
                _ => {
                    pair.alice.kick(&room, &pair.bob.id).await;
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
            let answer = pair.bob.sync(since["next_batch"].as_str()).await;
            assert!(answer["rooms"]["invite"].get(&room).is_none());
            let left = &answer["rooms"]["leave"][&room]["timeline"]["events"];
            let events = left.as_array().unwrap();
            assert_eq!(events.len(), 1, "{version} {end}");
            let leave = &events[0];
            let by = if end == "rescinded" {
                &pair.alice
            } else {
                &pair.bob
            };
            assert_eq!(leave["content"]["membership"], "leave");
            assert_eq!(leave["sender"], *by.id, "{version} {end}");
            assert_eq!(leave["state_key"], *pair.bob.id);
            assert!(leave["event_id"].is_string() && leave["origin_server_ts"].is_u64());
            if end == "told" {
                let there = pair.alice.messages(&room, 1).await.remove(0);
                assert_eq!(there["event_id"], leave["event_id"], "{version}");
            }
        }
    }
}

/// Whoever isn't in a room can't tell who may take an invite back: only who gave it can.
#[tokio::test(start_paused = true)]
async fn an_invite_is_taken_back_by_who_gave_it() {
    let pair = Pair::new().await;
    let carol = pair.federation[ONE].register("carol").await;
    let room = pair.room("private_chat", "11").await;
    pair.alice.invite(&room, &carol.id).await;
    carol.join(&room).await;
    let levels = serde_json::json!({ "users": { &*pair.alice.id: 100, &*carol.id: 100 } });
    let set = pair
        .alice
        .set_state(&room, "m.room.power_levels", "", levels);
    set.await;
    carol.invite(&room, &pair.bob.id).await;
    pair.alice.kick(&room, &pair.bob.id).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(synced(&pair.bob, "invite", &room).await.is_some());
    carol.invite(&room, &pair.bob.id).await;
    carol.kick(&room, &pair.bob.id).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(synced(&pair.bob, "invite", &room).await.is_none());
}

/// C8 (CVE-2023-32323): however much a room says of itself, what an invite tells of it is bounded, and what
/// is said in the room reaches the invited user's server.
#[tokio::test(start_paused = true)]
async fn c8_what_an_invite_tells_is_bounded() {
    const SEND: &str = "/_matrix/federation/v1/send/";
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    let long = "x".repeat(60_000);
    for (kind, content) in [
        ("m.room.name", json!({ "name": long })),
        ("m.room.topic", json!({ "topic": long })),
        ("m.room.avatar", json!({ "url": format!("mxc://a/{long}") })),
        (
            "m.room.encryption",
            json!({ "algorithm": "m.megolm.v1.aes-sha2", "padding": long }),
        ),
        (
            "m.room.join_rules",
            json!({ "join_rule": "public", "padding": long }),
        ),
    ] {
        pair.alice.set_state(&room, kind, "", content).await;
    }
    let peer = HostilePeer::on(&pair.federation.wire, "peer.test");
    peer.answer(Method::PUT, SEND, |_: &Asked| json!({ "pdus": {} }));
    peer.join(&pair.federation[ONE], &room, "there").await;
    let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(&room));
    let body = json!({ "user_id": "@guest:peer.test" });
    // It isn't signed there, so it is none; what it told is what counts here.
    let refused = pair.alice.post(path).json(body).send().await;
    assert!(refused.status.as_u16() >= 400);
    let said = pair.alice.send(&room, "still heard").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let heard = peer.heard();
    let invite = heard.iter().find(|asked| asked.target.contains("/invite/"));
    let state = &invite.unwrap().body["invite_room_state"];
    assert!(
        state.to_string().len() < 130_000,
        "{}",
        state.to_string().len()
    );
    let mut state = state.as_array().unwrap().iter();
    assert!(state.any(|event| event["type"] == "m.room.create"));
    let sent = heard.iter().filter(|asked| asked.target.starts_with(SEND));
    let bodies: Vec<String> = sent.map(|asked| asked.body.to_string()).collect();
    assert!(
        bodies.iter().any(|body| body.contains("still heard")),
        "{said}"
    );
}
