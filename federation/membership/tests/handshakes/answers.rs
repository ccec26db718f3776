//! Events in the answer to `send_join`: the way in of a whole room (law 8).

use comity_testkit::{HostilePeer, encode};
use serde_json::{Value, json};

use crate::{
    hostile::{Den, EVIL},
    pair::{Pair, join, synced},
};

const KIND: &str = "org.example.state";

/// A state event of the room's maker, unsigned.
fn state_event(peer: &HostilePeer, den: &Den) -> Value {
    let own = usize::from(den.version == "12");
    let rests_on = &[&den.state[0].id, &den.state[1].id][own..];
    json!({
        "type": KIND, "state_key": "", "sender": peer.user("boss"), "room_id": den.id,
        "content": { "x": "met" }, "depth": 4, "origin_server_ts": 1,
        "prev_events": [den.state[2].id],
        "auth_events": rests_on,
    })
}

/// Joins a room whose state has one more event, as this text; what is seen of that event.
async fn meets(pair: &Pair, peer: &HostilePeer, den: &Den, text: &str) -> Option<Value> {
    let state = den.state.iter().map(|event| event.json.to_string());
    let all: Vec<String> = state.chain([text.to_owned()]).collect();
    den.answer(peer, &pair.bob.id, &all, &all);
    let (status, body) = join(&pair.bob, &den.id, &[EVIL]).await;
    assert_eq!(status, 200, "{body}");
    let path = format!("/_matrix/client/v3/rooms/{}/state/{KIND}/", encode(&den.id));
    let answer = pair.bob.get(path).unchecked_events().send().await;
    (answer.status == 200).then_some(answer.body)
}

/// A1, A2, A3, A4, A6, B2: what is no event, too large, nested too deeply or signed badly is left out of
/// the room, and the room is entered all the same.
#[tokio::test(start_paused = true)]
async fn a1_a2_a3_a4_a6_b2_bad_events_are_left_out() {
    let pair = Pair::new().await;
    let peer = HostilePeer::on(&pair.federation.wire, EVIL);
    for version in ["6", "11", "12"] {
        let den = Den::named(&peer, "good", version);
        let good = peer.sign(version, state_event(&peer, &den)).json;
        let seen = meets(&pair, &peer, &den, &good.to_string()).await;
        assert_eq!(seen, Some(json!({ "x": "met" })), "{version}");
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let large = format!("\"{}\"", "x".repeat(65_537));
    let cases = [
        ("depth", "9007199254740992"),
        ("depth", "1.0"),
        ("depth", "-0"),
        ("depth", "1e3"),
        ("depth", "-1"),
        ("depth", "\"5\""),
        ("content", "9007199254740992"),
        ("content", "1.0"),
        ("content", "-0"),
        ("content", "\"\\ud800\""),
        ("content", &deep),
        ("content", &large),
    ];
    for (n, (key, written)) in cases.into_iter().enumerate() {
        let den = Den::named(&peer, &format!("bad{n}"), "11");
        let mut event = state_event(&peer, &den);
        match key {
            "depth" => event["depth"] = json!("HERE"),
            _ => event["content"]["x"] = json!("HERE"),
        }
        let (_, text) = peer.sign_written("11", event, written);
        let seen = meets(&pair, &peer, &den, &text).await;
        let written = &written[..written.len().min(20)];
        assert_eq!(seen, None, "{key} {written}");
    }
    for (n, signatures) in [
        json!({}),
        json!({ EVIL: { "ed25519:evil": "A".repeat(86) } }),
        json!({ EVIL: { "ed25519:other": "A".repeat(86) } }),
    ]
    .into_iter()
    .enumerate()
    {
        let den = Den::named(&peer, &format!("forged{n}"), "11");
        let mut event = peer.sign("11", state_event(&peer, &den)).json;
        event["signatures"] = signatures;
        let seen = meets(&pair, &peer, &den, &event.to_string()).await;
        assert_eq!(seen, None, "{n}");
    }
}

/// B3: of a state event that doesn't fit its hash the room has the redacted form.
#[tokio::test(start_paused = true)]
async fn b3_only_the_redacted_form_is_kept() {
    let pair = Pair::new().await;
    let peer = HostilePeer::on(&pair.federation.wire, EVIL);
    for version in ["6", "11", "12"] {
        let den = Den::named(&peer, "hash", version);
        let event = peer.sign(version, state_event(&peer, &den)).json;
        let changed = event.to_string().replace("\"met\"", "\"canary\"");
        let seen = meets(&pair, &peer, &den, &changed).await;
        assert_eq!(seen, Some(json!({})), "{version}");
        assert!(!pair.bob.sync(None).await.to_string().contains("canary"));
    }
}

/// A8: from version 12 on a create event names no room, before that it must: otherwise there is no room.
#[tokio::test(start_paused = true)]
async fn a8_the_room_of_a_create_event() {
    let pair = Pair::new().await;
    let peer = HostilePeer::on(&pair.federation.wire, EVIL);
    for version in ["10", "11", "12"] {
        let den = Den::named(&peer, "a8", version);
        let mut create = den.state[0].json.clone();
        for key in ["hashes", "signatures"] {
            create.as_object_mut().unwrap().remove(key);
        }
        if version == "12" {
            create["room_id"] = json!(den.id);
        } else {
            create.as_object_mut().unwrap().remove("room_id");
        }
        let create = peer.sign(version, create).json;
        let others = den.state[1..].iter().map(|event| event.json.clone());
        let state: Vec<Value> = [create].into_iter().chain(others).collect();
        den.answer(&peer, &pair.bob.id, &state, &state);
        let (status, body) = join(&pair.bob, &den.id, &[EVIL]).await;
        assert!(status >= 400, "{version} {body}");
        assert!(synced(&pair.bob, "join", &den.id).await.is_none());
    }
}
