//! Servers that hear the same events in different orders come to the same room.

use comity_protocol::{event::Signed, id::OwnedEventId, room_version::RoomVersion};
use comity_rooms::{Arrival, Outcome, Way, tables::Verdict};
use rand::{RngExt, SeedableRng, seq::IndexedRandom, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::remote::{ADMIN, ALICE, Draft, USERS, World, id};

/// Rooms for each version.
const SEEDS: u64 = 4;
const EVENTS: usize = 24;

fn draft(version: RoomVersion, rng: &mut ChaCha8Rng, prev: Vec<OwnedEventId>, at: usize) -> Draft {
    let sender = *[ADMIN, USERS[0], USERS[1], USERS[2]].choose(rng).unwrap();
    let target = *USERS.choose(rng).unwrap();
    let mut draft = match rng.random_range(0..9) {
        0 => Draft::member(ADMIN, target, "ban", &[]),
        1 => Draft::member(sender, target, "leave", &[]),
        2 | 3 => Draft::member(target, target, "join", &[]),
        4 => {
            let mut users = json!({ ADMIN: 100, target: 50 });
            users[*USERS.choose(rng).unwrap()] = json!(rng.random_range(0..60));
            if version < RoomVersion::V12 {
                users[ALICE] = json!(100);
            }
            let levels = json!({ "users": users });
            Draft::state(ADMIN, "m.room.power_levels", "", levels, &[])
        }
        5 => {
            let rule = *["public", "invite"].choose(rng).unwrap();
            let rule = json!({ "join_rule": rule });
            Draft::state(sender, "m.room.join_rules", "", rule, &[])
        }
        6 | 7 => {
            let topic = json!({ "topic": at.to_string() });
            Draft::state(sender, "m.room.topic", "", topic, &[])
        }
        _ => Draft::message(sender, &at.to_string(), &[]),
    };
    draft.prev = prev;
    draft
}

/// Delivers in a random order and in random portions; what is wanted comes again later.
async fn deliver(world: &World, mut events: Vec<Signed>, rng: &mut ChaCha8Rng) {
    while !events.is_empty() {
        events.shuffle(rng);
        let portion = rng.random_range(1..=events.len());
        let arrivals: Vec<_> = events.drain(..portion).collect();
        let outcomes = world
            .receive_all(
                arrivals
                    .iter()
                    .map(|event| Arrival {
                        event: event.clone(),
                        way: Way::New,
                    })
                    .collect(),
            )
            .await;
        for (event_id, outcome) in outcomes {
            match outcome {
                Outcome::Settled(_) => {}
                Outcome::Wanted(_) => {
                    events.extend(arrivals.iter().find(|event| id(event) == event_id).cloned());
                }
                Outcome::Unasked(_) => panic!("{event_id}: the room has no policy server"),
                Outcome::Refused(why) => panic!("{event_id}: {why}"),
            }
        }
    }
}

/// Random graphs in random orders, in every room version: once an event has joined all forks, the
/// state is the same; and so is what is derived from it.
#[tokio::test(start_paused = true)]
async fn rooms_converge() {
    for version in RoomVersion::ALL {
        for seed in 0..SEEDS {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut first = World::new(version).await;
            let others = [World::new(version).await, World::new(version).await];
            let authority = first.tip.clone();
            let mut all = vec![first.tip.clone()];
            let mut events: Vec<Signed> = Vec::new();
            for at in 0..EVENTS {
                let latest = &all[all.len().saturating_sub(5)..];
                let count = *[1, 1, 2].choose(&mut rng).unwrap();
                let prev = latest.sample(&mut rng, count).cloned().collect();
                let signed = first.remote.make(draft(version, &mut rng, prev, at));
                let outcome = first.receive(signed.clone(), Way::New).await;
                if outcome == Outcome::Settled(Verdict::Rejected) {
                    first.remote.forget_state(&id(&signed));
                }
                all.push(id(&signed));
                events.push(signed);
            }
            let follows = |id: &OwnedEventId| {
                let mut cited = events.iter().flat_map(|event| event.event().prev_events());
                cited.any(|prev| prev == id)
            };
            let ends: Vec<OwnedEventId> = all.iter().filter(|id| !follows(id)).cloned().collect();
            let mut last = Draft::message(ADMIN, "the end", &[]);
            last.prev = ends;
            let mut auth = vec![("m.room.power_levels", ""), ("m.room.member", ADMIN)];
            if !version.rules().room_id_is_create_hash {
                auth.push(("m.room.create", ""));
            }
            let after =
                |(kind, key): &(&str, &str)| first.remote.state_after(&authority, kind, key);
            last.auth = Some(auth.iter().map(after).collect());
            let last = first.remote.make(last);
            let accepted = Outcome::Settled(Verdict::Accepted);
            let outcome = first.receive(last.clone(), Way::New).await;
            assert_eq!(outcome, accepted, "{version} {seed}");
            let expected = first.state().await;
            let joined = first.rooms.summary(&first.remote.room_id).await.unwrap();
            for world in others {
                assert_eq!(world.remote.room_id, first.remote.room_id);
                deliver(&world, events.clone(), &mut rng).await;
                let outcome = world.receive(last.clone(), Way::New).await;
                assert_eq!(outcome, accepted, "{version} {seed}");
                let end = [id(&last)].into();
                assert_eq!(world.extremities().await, end, "{version} {seed}");
                assert_eq!(world.state().await, expected, "{version} {seed}");
                let summary = world.rooms.summary(&world.remote.room_id).await.unwrap();
                assert_eq!(summary, joined, "{version} {seed}");
            }
        }
    }
}
