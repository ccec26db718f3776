//! What an event costs on disk (performance.md, W10).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod samples;
mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use comity_rooms::{
    Intent,
    tables::{Body, Generation},
};
use comity_storage::{
    Engine, Family, Value,
    engine::{Memory, Scan},
};
use samples::Samples;
use world::*;

/// Bytes of all rows, keys and values, by family.
async fn weigh(disk: &Memory) -> BTreeMap<&'static str, usize> {
    let mut bytes = BTreeMap::new();
    for family in Family::ALL {
        let scan = Scan {
            family,
            slot: None,
            from: Bytes::new(),
            to: Bytes::from_static(&[255; 64]),
            reverse: false,
            limit: usize::MAX,
        };
        let rows = Engine::Memory(disk.clone())
            .scan_many(&[scan])
            .await
            .unwrap();
        let rows = rows.iter().flatten();
        bytes.insert(
            family.name(),
            rows.map(|(key, value)| key.len() + value.len()).sum(),
        );
    }
    bytes
}

/// All rows of a message of 900 bytes, before the engine compresses them in its turn (the target of 700 is for
/// the disk); the log counts apart, since it is pruned.
#[tokio::test(start_paused = true)]
async fn w10_a_message_fits() {
    const EVENTS: usize = 1_000;
    for lanes in LANES {
        let disk = Memory::new();
        let rooms = open(&disk, lanes).await;
        let alice = user("@alice:localhost");
        let room = public_room(&rooms, alice).await;
        let mut members = vec![alice];
        for name in ["@bob:localhost", "@carol:localhost", "@dave:localhost"] {
            join(&rooms, user(name), &room).await.unwrap();
            members.push(user(name));
        }
        let mut earlier = send(
            &rooms,
            &room,
            Intent::message(alice, "m.room.message", &serde_json::json!({ "body": "" })),
        )
        .await
        .unwrap()
        .event_id;
        let (before, mut samples) = (weigh(&disk).await, Samples::new(7));
        let mut plain = 0;
        for n in 0..EVENTS {
            let sender = members[n % members.len()];
            let (event_type, content) = samples.sent(sender, earlier.as_str());
            let intent = Intent::message(sender, event_type, &content);
            let Ok(placed) = send(&rooms, &room, intent).await else {
                continue;
            };
            let view = rooms.view(&room).await.unwrap();
            let event = view.event(&placed.event_id).await.unwrap().unwrap().event;
            plain += event.json().len();
            earlier = placed.event_id;
        }
        let after = weigh(&disk).await;
        let each: BTreeMap<_, _> = after
            .iter()
            .map(|(family, bytes)| (*family, (bytes - before[family]) / EVENTS))
            .collect();
        println!(
            "{lanes} lanes: bytes a message: {each:?}; its JSON {}",
            plain / EVENTS
        );
        let kept: usize = each.values().sum::<usize>() - each["log"];
        assert!(kept <= 1_100, "{kept}");
    }
}

/// The dictionary takes nearly half of bodies that it wasn't made from, and they come back. What is left is
/// mostly what nothing compresses: ids, hashes, signatures, ciphertexts.
#[test]
fn w10_bodies_are_compressed() {
    let (mut before, mut after) = (0, 0);
    let events = Samples::new(99).events(1_000);
    for json in events {
        before += json.len();
        let body = Body {
            generation: Generation::Full,
            json,
        };
        let mut row = Vec::new();
        body.write(&mut row);
        after += row.len();
        assert_eq!(Body::read(Body::FORMAT, &row).unwrap(), body);
    }
    println!(
        "{} bytes a body, {} compressed",
        before / 1_000,
        after / 1_000
    );
    assert!(after * 100 < before * 56, "{before} {after}");
}
