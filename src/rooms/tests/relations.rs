//! What relates to events, and events found from a time: from an index, whatever else is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use std::time::Duration;

use comity_protocol::{
    client_event::ClientFormat,
    id::{OwnedEventId, RoomId, UserId},
};
use comity_rooms::{Intent, RoomError, Rooms, Viewer};
use serde_json::{Value, json};
use world::*;

async fn say(rooms: &Rooms, room: &RoomId, who: &UserId, content: Value) -> OwnedEventId {
    let intent = Intent::message(who, "m.room.message", &content);
    send(rooms, room, intent).await.unwrap().event_id
}

fn relates(rel_type: &str, to: &OwnedEventId) -> Value {
    json!({ "body": rel_type, "m.relates_to": { "rel_type": rel_type, "event_id": to } })
}

async fn rendered(rooms: &Rooms, room: &RoomId, who: &UserId, event: &OwnedEventId) -> Value {
    let view = rooms.view(room).await.unwrap();
    let found = view.event(event).await.unwrap().unwrap();
    let viewer = Viewer {
        user: who,
        device: None,
    };
    let found = [found];
    let events = view.render(&found, viewer, ClientFormat::WithRoomId);
    serde_json::from_str(events.await.unwrap()[0].get()).unwrap()
}

/// Aggregations: an edit and references are bundled however much else, and however many edits that
/// don't count, relate to the event since.
#[tokio::test(start_paused = true)]
async fn bundles_find_what_matters_among_much() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
        let room = public_room(&rooms, alice).await;
        join(&rooms, bob, &room).await.unwrap();
        let event = say(&rooms, &room, alice, json!({ "body": "first" })).await;
        let edit = say(&rooms, &room, alice, relates("m.replace", &event)).await;
        let reference = say(&rooms, &room, bob, relates("m.reference", &event)).await;
        for _ in 0..120 {
            say(&rooms, &room, bob, relates("m.replace", &event)).await;
        }
        let bundled = &rendered(&rooms, &room, bob, &event).await["unsigned"]["m.relations"];
        assert_eq!(bundled["m.replace"]["event_id"], edit.as_str());
        assert_eq!(
            bundled["m.reference"]["chunk"][0]["event_id"],
            reference.as_str()
        );
        // A thousand other reactions hide no double.
        let react = async |who, key: &str| {
            let content = json!({ "m.relates_to":
                { "rel_type": "m.annotation", "event_id": event, "key": key } });
            send(&rooms, &room, Intent::message(who, "m.reaction", &content)).await
        };
        react(alice, "+").await.unwrap();
        for n in 0..40 {
            react(bob, &n.to_string()).await.unwrap();
        }
        react(bob, "+").await.unwrap();
        let double = react(alice, "+").await;
        assert!(matches!(double, Err(RoomError::DuplicateAnnotation)));
    }
}

/// Threads come in the order of their latest event, which a redaction takes back.
#[tokio::test(start_paused = true)]
async fn threads_stand_where_they_were_written_in_last() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let alice = user("@alice:localhost");
        let room = public_room(&rooms, alice).await;
        let mut roots = Vec::new();
        for n in 0..3 {
            let root = say(&rooms, &room, alice, json!({ "body": n.to_string() })).await;
            say(&rooms, &room, alice, relates("m.thread", &root)).await;
            roots.push(root);
        }
        let order = async || {
            let view = rooms.view(&room).await.unwrap();
            let (mut order, mut before) = (Vec::new(), None);
            while let Some((num, thread)) = view.threads(before, 1).await.unwrap().pop() {
                let root = view.load(&[num]).await.unwrap().pop().unwrap();
                let root = root.event.event_id().to_owned();
                order.push(roots.iter().position(|known| *known == root).unwrap());
                before = Some(thread.latest_seq);
            }
            order
        };
        assert_eq!(order().await, [2, 1, 0]);
        let again = say(&rooms, &room, alice, relates("m.thread", &roots[0])).await;
        assert_eq!(order().await, [0, 2, 1]);
        let mut redaction =
            Intent::message(alice, "m.room.redaction", &json!({ "redacts": again }));
        redaction.redacts = Some(again.clone());
        send(&rooms, &room, redaction).await.unwrap();
        assert_eq!(order().await, [2, 1, 0]);
        let bundled = rendered(&rooms, &room, alice, &roots[0]).await;
        assert_eq!(bundled["unsigned"]["m.relations"]["m.thread"]["count"], 1);
    }
}

/// `timestamp_to_event`: the event next to a time, in a history longer than is looked at in one go, and
/// for someone who sees only its end.
#[tokio::test(start_paused = true)]
async fn events_are_found_from_a_time() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
        let room = public_room(&rooms, alice).await;
        let hidden = json!({ "history_visibility": "joined" });
        let hidden = Intent::state(alice, "m.room.history_visibility", "", &hidden);
        let before = send(&rooms, &room, hidden).await.unwrap().event_id;
        let mut times = Vec::new();
        for n in 0..700 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let event = say(&rooms, &room, alice, json!({ "body": n.to_string() })).await;
            let view = rooms.view(&room).await.unwrap();
            let found = view.event(&event).await.unwrap().unwrap();
            times.push((found.event.origin_server_ts(), event));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let joined = join(&rooms, bob, &room).await.unwrap().event_id;
        let view = rooms.view(&room).await.unwrap();
        let near = async |ts: i64, backwards, who| {
            let found = view.near(ts, backwards, who).await.unwrap();
            found.map(|found| found.event.event_id().to_owned())
        };
        for at in [0, 1, 255, 256, 511, 699] {
            let (ts, event) = times[at].clone();
            assert_eq!(near(ts, false, alice).await, Some(event.clone()), "{at}");
            assert_eq!(
                near(ts - 1, false, alice).await,
                Some(event.clone()),
                "{at}"
            );
            assert_eq!(near(ts, true, alice).await, Some(event.clone()), "{at}");
            assert_eq!(near(ts + 1, true, alice).await, Some(event), "{at}");
        }
        assert_eq!(near(0, true, alice).await, None);
        assert_eq!(near(i64::MAX, false, alice).await, None);
        assert_eq!(near(times[0].0, false, bob).await, Some(joined));
        assert_eq!(near(times[500].0, true, bob).await, Some(before));
    }
}
