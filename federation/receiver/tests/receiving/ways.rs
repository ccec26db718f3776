//! Each way by which a peer's events come to us. What is wrong with an event is found by all of them
//! (law 8); the way of `send_join` is tested with the handshakes.

use bytes::Bytes;
use comity_testkit::{Asked, Pdu, PeerRoom, Reply, encode};
use http::Method;
use serde_json::{Value, json};

use crate::world::{PEER, World};

const V1: &str = "/_matrix/federation/v1";
const KIND: &str = "org.example.state";
/// So many missing events of a state that the whole state is asked for.
const MANY: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// In a transaction.
    Send,
    /// As a missing parent.
    Missing,
    /// Alone, as part of a state.
    Event,
    /// In a whole state.
    State,
    /// As history.
    Backfill,
}

const WAYS: [Way; 5] = [
    Way::Send,
    Way::Missing,
    Way::Event,
    Way::State,
    Way::Backfill,
];

/// An event as text, with the id that its hash says.
#[derive(Clone)]
struct Text {
    what: String,
    id: String,
    text: String,
}

impl Way {
    async fn world(version: &str) -> World {
        World::with(version, json!({ "events": { KIND: 0 } })).await
    }

    /// An event that would come in by this way, unsigned.
    fn base(self, world: &World) -> Value {
        let (kind, key) = match self {
            Self::Event | Self::State => (KIND, Some("")),
            _ => ("m.room.message", None),
        };
        let content = json!({ "msgtype": "m.text", "body": "met" });
        let peer = &world.peer;
        peer.unsigned(&world.room, "mallory", kind, key, content)
    }

    /// Lets our server meet the event; whether its users see it then.
    async fn meets(self, world: &mut World, event: &Text) -> bool {
        let text = event.text.clone();
        let list = move |key: &'static str, text: String| {
            let body = Bytes::from(format!(
                r#"{{"origin":"{PEER}","origin_server_ts":1,"auth_chain":[],"{key}":[{text}]}}"#
            ));
            move |_: &Asked| Reply::from(body.clone())
        };
        let answer = |method: Method, path: &str, key: &'static str, text: String| {
            let path = format!("{V1}/{path}");
            world.peer.answer(method, &path, list(key, text));
        };
        let (missing, backfill, state, alone) = match self {
            Self::Send => Default::default(),
            Self::Missing => (text, String::new(), String::new(), String::new()),
            Self::Backfill => (String::new(), text, String::new(), String::new()),
            Self::State => (String::new(), String::new(), text, String::new()),
            Self::Event => (String::new(), String::new(), String::new(), text),
        };
        answer(Method::POST, "get_missing_events", "events", missing);
        answer(Method::GET, "backfill", "pdus", backfill);
        answer(Method::GET, "state/", "pdus", state);
        let single = format!("event/{}", percent(&event.id));
        answer(Method::GET, &single, "pdus", alone);
        let state = world.room.state.values();
        let mut ids: Vec<String> = state.map(|event| event.id.clone()).collect();
        if matches!(self, Self::Event | Self::State) {
            ids.push(event.id.clone());
        }
        if self == Self::State {
            ids.extend((0..MANY).map(|n| format!("${n:043}")));
        }
        let has_state = self != Self::Missing;
        world
            .peer
            .answer(Method::GET, &format!("{V1}/state_ids"), move |_| {
                if has_state {
                    (200, json!({ "pdu_ids": ids, "auth_chain_ids": [] }))
                } else {
                    (404, json!({ "errcode": "M_NOT_FOUND" }))
                }
            });
        drop(world.peer.heard());
        if self == Self::Send {
            let good = world.message("beside it");
            let told = world
                .send_texts(&[&event.text, &good.json.to_string()])
                .await;
            assert_eq!(told[&good.id], json!({}), "{} {told}", event.what);
        } else {
            // What follows it makes us look for it.
            let last = Pdu {
                id: event.id.clone(),
                json: json!({ "depth": 20 }),
            };
            let beyond = PeerRoom {
                last,
                ..world.room.clone()
            };
            let content = json!({ "msgtype": "m.text", "body": "after it" });
            let peer = &world.peer;
            let news = peer.event(&beyond, "mallory", "m.room.message", None, content);
            world.send(&[&news]).await;
        }
        world.settle().await;
        let _page = world.alice.messages(&world.room.id, 100).await;
        let heard: Vec<String> = {
            let heard = world.peer.heard().into_iter();
            heard.map(|asked| asked.target).collect()
        };
        let asked_by = match self {
            Self::Send => None,
            Self::Missing => Some("get_missing_events".to_owned()),
            Self::Event => Some(single),
            Self::State => Some("state/".to_owned()),
            Self::Backfill => Some("backfill".to_owned()),
        };
        if let Some(path) = asked_by {
            let was_asked = heard.iter().any(|target| target.contains(&path));
            assert!(was_asked, "{self:?} {}: {heard:?}", event.what);
        }
        match self {
            Self::Event | Self::State => {
                let room = encode(&world.room.id);
                let path = format!("/_matrix/client/v3/rooms/{room}/state/{KIND}/");
                let state = world.alice.get(path).unchecked_events().send().await;
                state.status == 200
            }
            _ => world.shows(&event.id).await,
        }
    }
}

/// As our server writes ids into paths.
fn percent(id: &str) -> String {
    encode(id).replace('$', "%24")
}

fn plain(world: &World, what: &str, event: Value) -> Text {
    let event = world.peer.sign(&world.room.version, event);
    Text {
        what: what.to_owned(),
        id: event.id,
        text: event.json.to_string(),
    }
}

/// What no event may be, each with what is wrong with it.
fn bad(world: &World, way: Way) -> Vec<Text> {
    let base = way.base(world);
    let version = &world.room.version;
    let mut bad = Vec::new();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let numbers = ["9007199254740992", "1.0", "-0", "1e3"];
    let depths = numbers.into_iter().chain(["-1", "\"5\""]);
    let depths = depths.map(|depth| ("depth", depth));
    let contents = numbers.into_iter().chain([deep.as_str(), "\"\\ud800\""]);
    let contents = contents.map(|value| ("content", value));
    for (key, written) in depths.chain(contents) {
        // Nobody can sign a request that has it (A4).
        if way == Way::Send && written.contains("ud800") {
            continue;
        }
        let mut event = base.clone();
        match key {
            "depth" => event["depth"] = json!("HERE"),
            _ => event["content"]["x"] = json!("HERE"),
        }
        let (id, text) = world.peer.sign_written(version, event, written);
        let what = format!("{key} {}", &written[..written.len().min(20)]);
        bad.push(Text { what, id, text });
    }
    let mut large = base.clone();
    large["content"]["x"] = json!("HERE");
    let written = format!("\"{}\"", "x".repeat(65_537));
    let (id, text) = world.peer.sign_written(version, large, &written);
    let what = "too large".to_owned();
    bad.push(Text { what, id, text });
    let mut long = base.clone();
    long["type"] = json!("x".repeat(256));
    bad.push(plain(world, "a long type", long));
    let mut forged = plain(world, "signed badly", base.clone());
    let mut json: Value = serde_json::from_str(&forged.text).unwrap();
    json["signatures"][PEER]["ed25519:evil"] = json!("A".repeat(86));
    forged.text = json.to_string();
    bad.push(forged);
    let mut unsigned = plain(world, "not signed", base);
    json["signatures"] = json!({});
    unsigned.text = json.to_string();
    bad.push(unsigned);
    bad
}

/// The ways lead in: else what follows would prove nothing.
#[tokio::test(start_paused = true)]
async fn a_good_event_comes_in_by_every_way() {
    for way in WAYS {
        for version in ["6", "11", "12"] {
            let mut world = Way::world(version).await;
            let mut written = way.base(&world);
            written["content"]["x"] = json!("HERE");
            let (id, text) = world.peer.sign_written(version, written, "[[{\"n\":-5}]]");
            let what = version.to_owned();
            let good = Text { what, id, text };
            assert!(way.meets(&mut world, &good).await, "{way:?} {version}");
        }
    }
}

/// A1, A2, A3, A4, A6, B2: what is no event, too large, nested too deeply or signed badly is dropped, by
/// whichever way it comes, and what comes with it is taken.
#[tokio::test(start_paused = true)]
async fn a1_a2_a3_a4_a6_b2_bad_events_are_dropped_by_every_way() {
    for way in WAYS {
        let mut world = Way::world("11").await;
        for event in bad(&world, way) {
            // A room of its own: what is beyond a hole in it stays.
            let room = json!({
                "preset": "public_chat", "room_version": "11",
                "power_level_content_override": { "events": { KIND: 0 } },
            });
            let room = world.alice.create_room(room).await;
            world.room = world.peer.join(world.here(), &room, "mallory").await;
            let event = bad(&world, way)
                .into_iter()
                .find(|other| other.what == event.what)
                .unwrap();
            let came_in = way.meets(&mut world, &event).await;
            assert!(!came_in, "{way:?} {}", event.what);
            world.alice.send(&room, "the room goes on").await;
        }
    }
}

/// B3: of an event that doesn't fit its hash only the redacted form is kept, shown and served, by
/// whichever way it comes.
#[tokio::test(start_paused = true)]
async fn b3_only_the_redacted_form_is_kept_by_every_way() {
    for way in WAYS {
        let mut world = Way::world("11").await;
        let mut event = plain(&world, "a wrong hash", way.base(&world));
        event.text = event.text.replace("\"met\"", "\"canary\"");
        assert!(way.meets(&mut world, &event).await, "{way:?}");
        let path = format!("{V1}/event/{}", encode(&event.id));
        let peer = world.peer.to(world.here());
        let served = peer.get(path).send().await;
        if matches!(way, Way::Send | Way::Missing) {
            assert_eq!(served.body["pdus"][0]["content"], json!({}), "{way:?}");
        }
        let room = encode(&world.room.id);
        for path in [
            format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100"),
            format!("/_matrix/client/v3/rooms/{room}/state"),
            "/_matrix/client/v3/sync?timeout=0".to_owned(),
        ] {
            let seen = world.alice.get(path).unchecked_events().send().await;
            let seen = String::from_utf8_lossy(&seen.bytes).into_owned();
            assert!(!seen.contains("canary"), "{way:?} {seen}");
        }
        assert!(!String::from_utf8_lossy(&served.bytes).contains("canary"));
    }
}
