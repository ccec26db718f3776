//! Policy servers: what comes from others without the word of the room's.
//! <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use comity_testkit::{Fate, HostilePeer, Pdu};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::World;

const POLICY: &str = "policy.test";
const SIGN: &str = "/_matrix/policy/v1/sign";
const MISSING: &str = "/_matrix/federation/v1/get_missing_events/";
const VERSIONS: [&str; 3] = ["6", "11", "12"];

/// A room whose policy server recommends what doesn't say so.
struct Protected {
    world: World,
    policy: HostilePeer,
    is_away: Arc<AtomicBool>,
}

impl Protected {
    async fn new(version: &'static str) -> Self {
        let world = World::new(version).await;
        let policy = HostilePeer::on(&world.federation.wire, POLICY);
        let mut room = policy.join(world.here(), &world.room.id, "warden").await;
        let key = policy.policy_key(1);
        let is_away = Arc::new(AtomicBool::new(false));
        let away = is_away.clone();
        let signing = key.clone();
        policy.answer(Method::POST, SIGN, move |asked| {
            let text = asked.body["content"]["body"].as_str().unwrap_or_default();
            if away.load(Ordering::Relaxed) {
                (500, json!({ "errcode": "M_UNKNOWN", "error": "away" }))
            } else if text.contains("spam") {
                (400, json!({ "errcode": "M_FORBIDDEN", "error": "spam" }))
            } else if text.contains("forged") {
                let forged = json!({ POLICY: { "ed25519:policy_server": "A".repeat(86) } });
                (200, forged)
            } else {
                (200, signing.sign(version, &asked.body))
            }
        });
        let set = world
            .alice
            .set_state(&room.id, "m.room.policy", "", key.designation());
        let set = set.await;
        let mut world = world;
        // Mallory has heard of it.
        room.last.id = set;
        world.room.last.id = room.last.id.clone();
        world.room.last.json["depth"] = json!(50);
        Self {
            world,
            policy,
            is_away,
        }
    }

    /// Sends a message that follows the last one which our server took.
    async fn send(&mut self, body: &str) -> Pdu {
        let event = self.world.message(body);
        assert_eq!(self.world.send(&[&event]).await[&event.id], json!({}));
        event
    }

    /// What the policy server was asked about.
    fn asked(&self) -> Vec<String> {
        let heard = self.policy.heard().into_iter();
        let asked = heard.filter(|asked| asked.target == SIGN);
        let text = |body: &Value| {
            body["content"]["body"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        asked.map(|asked| text(&asked.body)).collect()
    }
}

/// Validating policy server signatures: what lacks the server's is asked about, and soft-failed where that refuses, answers nonsense,
/// or doesn't answer. What has it isn't asked about.
#[tokio::test(start_paused = true)]
async fn what_the_policy_server_does_not_recommend_is_soft_failed() {
    for version in VERSIONS {
        let mut room = Protected::new(version).await;
        drop(room.policy.heard());
        let good = room.send("good").await;
        room.world.sees(&good.id).await;
        assert_eq!(room.asked(), ["good"], "{version}");
        room.world.room.went_on(&good);

        let spam = room.send("spam").await;
        let forged = room.send("forged").await;
        let mut signed = room.world.message("signed");
        let word = room.policy.policy_key(1).sign(version, &signed.json);
        signed.json["signatures"][POLICY] = word[POLICY].clone();
        assert_eq!(room.world.send(&[&signed]).await[&signed.id], json!({}));
        room.world.sees(&signed.id).await;
        assert_eq!(room.asked(), ["spam", "forged"], "{version}");
        // By a key that isn't the room's it is asked about anew.
        let mut stale = room.world.message("stale");
        let word = room.policy.policy_key(2).sign(version, &stale.json);
        stale.json["signatures"][POLICY] = word[POLICY].clone();
        assert_eq!(room.world.send(&[&stale]).await[&stale.id], json!({}));
        room.world.sees(&stale.id).await;
        assert_eq!(room.asked(), ["stale"], "{version}");

        room.is_away.store(true, Ordering::Relaxed);
        let unasked = room.send("unasked").await;
        let mut last = room.world.message("last");
        let word = room.policy.policy_key(1).sign(version, &last.json);
        last.json["signatures"][POLICY] = word[POLICY].clone();
        assert_eq!(room.world.send(&[&last]).await[&last.id], json!({}));
        room.world.sees(&last.id).await;
        // Whoever was away is asked as soon as there is something to ask.
        room.is_away.store(false, Ordering::Relaxed);
        drop(room.policy.heard());
        let back = room.send("back").await;
        room.world.sees(&back.id).await;
        assert_eq!(room.asked(), ["back"], "{version}");
        for event in [&spam, &forged, &unasked] {
            assert!(!room.world.shows(&event.id).await, "{version}");
        }
        assert_eq!(
            room.world.texts().await,
            ["good", "signed", "stale", "last", "back"]
        );
    }
}

/// What follows an event that the server hasn't signed either is asked about as well, and goes in behind it. Nothing is asked about twice,
/// though what they rest on must be fetched.
#[tokio::test(start_paused = true)]
async fn a_chain_of_events_is_asked_about() {
    let mut room = Protected::new("11").await;
    drop(room.policy.heard());
    let first = room.world.message("first");
    let missing = room.world.unsent(1).remove(0);
    let pdu = missing.json.clone();
    room.world
        .peer
        .answer(Method::POST, MISSING, move |_| json!({ "events": [pdu] }));
    let chain = room.world.unsent(20);
    let pdus: Vec<&Pdu> = std::iter::once(&first).chain(&chain).collect();
    room.world.send(&pdus).await;
    room.world.sees(&chain[19].id).await;
    assert_eq!(room.asked().len(), 22);
    assert_eq!(room.world.texts().await.len(), 22);
}

/// A server that is overwhelmed, or out of reach for a moment, has said nothing of the event: it is asked once more, when it wants to be.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_of_an_event_is_asked_once_more() {
    let overwhelmed =
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "x", "retry_after_ms": 4_000 });
    for (status, said) in [
        (429, overwhelmed),
        (503, json!({ "errcode": "M_UNKNOWN", "error": "x" })),
    ] {
        let mut room = Protected::new("11").await;
        let key = room.policy.policy_key(1);
        let begun = Instant::now();
        let was_asked = AtomicBool::new(false);
        room.policy.answer(Method::POST, SIGN, move |asked| {
            let is_early = status == 429 && begun.elapsed() < Duration::from_secs(4);
            match was_asked.swap(true, Ordering::Relaxed) && !is_early {
                true => (200, key.sign("11", &asked.body)),
                false => (status, said.clone()),
            }
        });
        let event = room.send("asked twice").await;
        room.world.sees(&event.id).await;
    }
}

/// D8: a search takes no longer for a policy server that is slow; it goes on another time, with what it has by then.
#[tokio::test(start_paused = true)]
async fn d8_a_slow_policy_server_draws_no_search_out() {
    let mut room = Protected::new("11").await;
    let known = room.world.room.clone();
    let chain = room.world.unsent(90);
    let news = room.world.say("news");
    room.world.room = known;
    let pdus: Vec<Value> = chain.iter().map(|event| event.json.clone()).collect();
    let peer = &room.world.peer;
    peer.answer(Method::POST, MISSING, move |_| json!({ "events": pdus }));
    let wire = &room.world.federation.wire;
    wire.judge(|passing| match passing.request.uri().path() {
        SIGN => Fate::After(Duration::from_secs(9)),
        _ => Fate::Arrives,
    });
    drop(room.policy.heard());
    room.world.send(&[&news]).await;
    sleep(Duration::from_secs(85)).await;
    // Eight at a time for one minute.
    let asked = room.asked().len();
    assert!((40..=64).contains(&asked), "{asked}");
    room.world.sees(&news.id).await;
    assert_eq!(room.world.texts().await.len(), 91);
}

/// Determining if a policy server is enabled: not one without a user in the room. The event that designates it is nobody's to judge.
#[tokio::test(start_paused = true)]
async fn a_room_uses_only_a_policy_server_that_is_in_it() {
    let levels = json!({ "users": { "@mallory:evil.test": 100, "@alice:here.test": 100 } });
    let mut world = World::with("11", levels).await;
    let policy = HostilePeer::on(&world.federation.wire, POLICY);
    let content = policy.policy_key(1).designation();
    let event = world
        .peer
        .event(&world.room, "mallory", "m.room.policy", Some(""), content);
    assert_eq!(world.send(&[&event]).await[&event.id], json!({}));
    world.room.went_on(&event);
    world.settle().await;
    world.alice.send(&world.room.id, "hello").await;
    assert!(policy.heard().is_empty());
}
