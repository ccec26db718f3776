//! Peers that answer a handshake as they shouldn't.

use std::time::Duration;

use bytes::Bytes;
use comity_testkit::{HostilePeer, Pdu, encode};
use http::Method;
use serde_json::{Value, json};

use crate::pair::{ONE, Pair, TWO, join, knock, synced};

pub const EVIL: &str = "evil.test";

fn make(membership: &str) -> String {
    format!("/_matrix/federation/v1/make_{membership}")
}

fn signed_anything(peer: &HostilePeer) -> bool {
    let heard = peer.heard();
    heard.iter().any(|asked| asked.method == Method::PUT)
}

/// C2: a template that isn't what was asked for is thrown away, nothing is signed, and the next server
/// is asked, when there is one.
#[tokio::test(start_paused = true)]
async fn c2_templates_for_something_else_are_thrown_away() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    let peer = HostilePeer::on(&pair.federation.wire, EVIL);
    let bob = pair.bob.id.clone();
    let good = |membership: &str| {
        json!({
            "type": "m.room.member", "room_id": room, "sender": bob, "state_key": bob,
            "content": { "membership": membership }, "depth": 5,
            "prev_events": ["$parent"], "auth_events": ["$create"],
        })
    };
    let dave = format!("@dave:{TWO}");
    // The room's own server is asked too, whatever the user names.
    pair.federation.wire.cut(ONE, TWO);
    let changes = [
        ("type", json!("m.room.power_levels")),
        ("room_id", json!("!other:evil.test")),
        ("sender", json!(dave)),
        ("state_key", json!(dave)),
        ("content", json!({ "membership": "ban" })),
        (
            "content",
            json!({ "membership": "join", "join_authorised_via_users_server": dave }),
        ),
        ("prev_events", json!("none")),
    ];
    for (key, value) in changes {
        for membership in ["join", "knock"] {
            let mut event = good(membership);
            event[key] = value.clone();
            peer.answer(
                Method::GET,
                &make(membership),
                move |_| json!({ "room_version": "11", "event": event }),
            );
        }
        for (status, _) in [
            join(&pair.bob, &room, &[EVIL]).await,
            knock(&pair.bob, &room, &[EVIL]).await,
        ] {
            assert!(status >= 400, "{key}: {value}");
        }
        assert!(!signed_anything(&peer), "{key}: {value}");
    }
    pair.federation.wire.heal();
    // It is left alone for a while.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (status, body) = join(&pair.bob, &room, &[EVIL, ONE]).await;
    assert_eq!(status, 200, "{body}");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias>: whatever a server
/// refuses a join with, the client is told what its API has for it.
#[tokio::test(start_paused = true)]
async fn refusals_are_told_in_the_clients_terms() {
    let pair = Pair::new().await;
    let room = format!("!room:{EVIL}");
    let said = [
        (403, "M_FORBIDDEN", 403, "M_FORBIDDEN"),
        (400, "M_UNABLE_TO_AUTHORISE_JOIN", 403, "M_FORBIDDEN"),
        (400, "M_UNABLE_TO_GRANT_JOIN", 403, "M_FORBIDDEN"),
        (429, "M_LIMIT_EXCEEDED", 429, "M_LIMIT_EXCEEDED"),
    ];
    for (n, (status, errcode, expected, told)) in said.into_iter().enumerate() {
        let name = format!("peer{n}.test");
        let peer = HostilePeer::on(&pair.federation.wire, &name);
        let error = json!({ "errcode": errcode, "error": "canary", "retry_after_ms": 5_000 });
        peer.answer(Method::GET, &make("join"), move |_| (status, error.clone()));
        let (status, body) = join(&pair.bob, &room, &[&name]).await;
        assert_eq!((status, &body["errcode"]), (expected, &json!(told)));
        assert!(!body.to_string().contains("canary"), "{body}");
        let wait = (expected == 429).then_some(5_000);
        assert_eq!(body["retry_after_ms"].as_u64(), wait, "{errcode}");
    }
    // What is said of the room says more than that it can't be said now.
    let (status, _) = join(&pair.bob, &room, &["peer3.test", "peer0.test"]).await;
    assert_eq!(status, 403);
}

/// A room of the peer's own: its state, and the answers that let a user join it.
pub struct Den {
    pub id: String,
    pub version: String,
    pub state: Vec<Pdu>,
}

impl Den {
    fn of(peer: &HostilePeer) -> Self {
        Self::named(peer, "den", "10")
    }

    /// A room of this version, whose id the name makes before version 12.
    pub fn named(peer: &HostilePeer, name: &str, version: &str) -> Self {
        let (mut id, boss) = (format!("!{name}:{EVIL}"), peer.user("boss"));
        let is_named_by_create = version == "12";
        let mut state: Vec<Pdu> = Vec::new();
        let events = [
            (
                "m.room.create",
                "",
                json!({ "creator": boss, "room_version": version, "name": name }),
            ),
            (
                "m.room.member",
                boss.as_str(),
                json!({ "membership": "join" }),
            ),
            ("m.room.join_rules", "", json!({ "join_rule": "public" })),
        ];
        for (kind, key, content) in events {
            let ids: Vec<&String> = state.iter().map(|event| &event.id).collect();
            let prev: Vec<&&String> = ids.last().into_iter().collect();
            let auth = &ids[usize::from(is_named_by_create && !ids.is_empty())..];
            let mut event = json!({
                "type": kind, "state_key": key, "sender": boss, "room_id": id,
                "content": content, "depth": state.len() + 1, "origin_server_ts": 1,
                "prev_events": prev, "auth_events": auth,
            });
            if is_named_by_create && state.is_empty() {
                event.as_object_mut().unwrap().remove("room_id");
                let create = peer.sign(version, event);
                id = create.id.replacen('$', "!", 1);
                state.push(create);
            } else {
                state.push(peer.sign(version, event));
            }
        }
        Self {
            id,
            version: version.to_owned(),
            state,
        }
    }

    /// Answers a user's join with this state and these auth events, byte by byte.
    pub fn answer<T: ToString>(
        &self,
        peer: &HostilePeer,
        user: &str,
        state: &[T],
        auth_chain: &[T],
    ) {
        let own = usize::from(self.version == "12");
        let rests_on = &[&self.state[0].id, &self.state[2].id][own..];
        let event = json!({
            "type": "m.room.member", "room_id": self.id, "sender": user, "state_key": user,
            "content": { "membership": "join" }, "depth": 4,
            "prev_events": [self.state[2].id], "auth_events": rests_on,
        });
        let version = self.version.clone();
        peer.answer(
            Method::GET,
            &make("join"),
            move |_| json!({ "room_version": version, "event": event }),
        );
        let list = |events: &[T]| {
            let events: Vec<String> = events.iter().map(T::to_string).collect();
            events.join(",")
        };
        let answer = format!(
            r#"{{"state":[{}],"auth_chain":[{}]}}"#,
            list(state),
            list(auth_chain)
        );
        let answer = Bytes::from(answer);
        let path = "/_matrix/federation/v2/send_join";
        peer.answer(Method::PUT, path, move |_| answer.clone());
    }
}

/// A join that a server took in and the state that it answers with forbids is none, and its user is told so.
#[tokio::test(start_paused = true)]
async fn what_the_state_forbids_is_told_as_forbidden() {
    let pair = Pair::new().await;
    let peer = HostilePeer::on(&pair.federation.wire, EVIL);
    let den = Den::of(&peer);
    let all: Vec<Value> = den.state.iter().map(|event| event.json.clone()).collect();
    let mut closed = all[2].clone();
    closed["content"] = json!({ "join_rule": "invite" });
    for key in ["hashes", "signatures"] {
        closed.as_object_mut().unwrap().remove(key);
    }
    let closed = peer.sign("10", closed).json;
    let state = [all[0].clone(), all[1].clone(), closed];
    den.answer(&peer, &pair.bob.id, &state, &all);
    let (status, body) = join(&pair.bob, &den.id, &[EVIL]).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    assert!(synced(&pair.bob, "join", &den.id).await.is_none());
}

/// C5, B2: an answer without the room's create event, or with another one's, makes no room; events of
/// it that are signed badly, of another room, or forbidden are left out of it.
#[tokio::test(start_paused = true)]
async fn c5_poisoned_states_are_left_out() {
    let pair = Pair::new().await;
    let peer = HostilePeer::on(&pair.federation.wire, EVIL);
    let den = Den::of(&peer);
    let all: Vec<Value> = den.state.iter().map(|event| event.json.clone()).collect();
    let mut unsigned = all[0].clone();
    unsigned["signatures"] = json!({});
    let mut foreign = all[0].clone();
    foreign["room_id"] = json!("!other:evil.test");
    let mut other = all[0].clone();
    other["content"]["room_version"] = json!("11");
    let other = peer.sign("10", other).json;
    for create in [None, Some(unsigned), Some(foreign), Some(other)] {
        let mut state: Vec<Value> = create.into_iter().collect();
        state.extend(all[1..].iter().cloned());
        den.answer(&peer, &pair.bob.id, &state, &state);
        let (status, body) = join(&pair.bob, &den.id, &[EVIL]).await;
        assert!(status >= 400, "{body}");
        assert!(synced(&pair.bob, "join", &den.id).await.is_none());
    }

    let boss = peer.user("boss");
    let forged = |kind: &str, sender: &str| {
        json!({
            "type": kind, "state_key": "", "sender": sender, "room_id": den.id,
            "content": { "name": "forged" }, "depth": 5, "origin_server_ts": 1,
            "prev_events": [den.state[2].id], "auth_events": [den.state[0].id, den.state[1].id],
        })
    };
    let good = peer.sign("10", forged("m.room.topic", boss.as_str())).json;
    let mut mis_signed = peer.sign("10", forged("m.room.name", boss.as_str())).json;
    mis_signed["signatures"][EVIL]["ed25519:evil"] = json!("A".repeat(86));
    let not_theirs = peer
        .sign("10", forged("m.room.avatar", &pair.alice.id))
        .json;
    let stranger = peer.user("stranger");
    let forbidden = peer
        .sign("10", forged("m.room.pinned", stranger.as_str()))
        .json;
    let poison = [good, mis_signed, not_theirs, forbidden, json!({}), json!(1)];
    let state: Vec<Value> = all.iter().chain(&poison).cloned().collect();
    den.answer(&peer, &pair.bob.id, &state, &all);
    let (status, body) = join(&pair.bob, &den.id, &[EVIL]).await;
    assert_eq!(status, 200, "{body}");
    for (kind, there) in [
        ("m.room.topic", true),
        ("m.room.name", false),
        ("m.room.avatar", false),
        ("m.room.pinned", false),
    ] {
        let path = format!("/_matrix/client/v3/rooms/{}/state/{kind}", encode(&den.id));
        let status = pair.bob.get(path).unchecked_events().send().await.status;
        assert_eq!(status == 200, there, "{kind}");
    }
}
