//! What comes of the time before we were in a room, or between two stays of ours, once we are in it.

use comity_protocol::{
    event::Event,
    id::{OwnedEventId, RoomId},
};
use comity_rooms::{Filled, Rooms, Run, num::EventNum};
use serde_json::json;

use crate::{
    joining::{ACCEPTED, BOB, SOME, enter, hears, name, say, signed, state, two, user},
    remote::{ADMIN, ALICE, Draft},
};

async fn ends(rooms: &Rooms, room_id: &RoomId) -> Vec<OwnedEventId> {
    let view = rooms.view(room_id).await.unwrap();
    let nums = view.head().extremities.iter().map(|num| EventNum(*num));
    let found = view.load(&nums.collect::<Vec<_>>()).await.unwrap();
    let ids = found.iter().map(|end| end.event.event_id().to_owned());
    ids.collect()
}

/// What follows only what we knew before we left is no end of the graph that began anew with our join, event by event or at once, and
/// the state of that time undoes nothing. Whoever brings the two together is followed as ever.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>
#[tokio::test(start_paused = true)]
async fn what_was_before_we_came_back_is_no_end() {
    for version in SOME {
        let (mut world, there, room_id) = two(version).await;
        enter(&there, &room_id, BOB).await.unwrap();
        there.leave(user(BOB), &room_id, None).await.unwrap();
        let leave = ends(&there, &room_id).await.remove(0);
        let view = there.view(&room_id).await.unwrap();
        let leave = view.event(&leave).await.unwrap().unwrap().event;
        assert_eq!(hears(&world.rooms, &room_id, &leave).await, ACCEPTED);
        let one = say(&world.rooms, &room_id, ALICE, "one").await;
        let two = say(&world.rooms, &room_id, ALICE, "two").await;
        let join = enter(&there, &room_id, BOB).await.unwrap();
        let begins = state(&there, &room_id).await;
        let begun = std::slice::from_ref(&join.event_id);

        let (_, at_first) = world.remote.events[&world.tip].clone();
        let mut by_admin = |body, prev: &Event| {
            let known = (prev.clone(), at_first.clone());
            world
                .remote
                .events
                .insert(prev.event_id().to_owned(), known);
            let made = Draft::message(ADMIN, body, &[prev.event_id()]);
            world.remote.make(made).event().clone()
        };
        let apart = by_admin("apart", &one);
        let view = there.view(&room_id).await.unwrap();
        let came = view.event(&join.event_id).await.unwrap().unwrap().event;
        let fork = by_admin("fork", &came);
        for event in [&one, &apart, &two] {
            assert_eq!(hears(&there, &room_id, event).await, ACCEPTED, "{version}");
            assert_eq!(ends(&there, &room_id).await, begun);
        }
        assert_eq!(state(&there, &room_id).await, begins, "{version}");

        assert_eq!(hears(&world.rooms, &room_id, &apart).await, ACCEPTED);
        let both = say(&world.rooms, &room_id, ALICE, "both").await;
        assert_eq!(both.prev_events().len(), 2);
        assert_eq!(hears(&there, &room_id, &both).await, ACCEPTED, "{version}");
        for rooms in [&there, &world.rooms] {
            assert_eq!(ends(rooms, &room_id).await, [both.event_id().to_owned()]);
        }
        // What follows our join is a fork like any other.
        assert_eq!(hears(&there, &room_id, &fork).await, ACCEPTED, "{version}");
        let forked = [both.event_id(), fork.event_id()];
        assert_eq!(ends(&there, &room_id).await, forked, "{version}");
    }
}

/// What is fetched of the past with gaps in it is judged by the state that is known: what another event between would allow is fetched
/// again, and not rejected for good.
#[tokio::test(start_paused = true)]
async fn what_rests_on_a_gap_in_a_run_is_not_rejected() {
    const LATE: &str = "@late:remote";
    for version in SOME {
        let (mut world, there, room_id) = two(version).await;
        let first = world.say("first").await;
        let content = json!({ "membership": "join" });
        let join = Draft::state(LATE, "m.room.member", LATE, content, &[first.event_id()]);
        let join = world.remote.make(join);
        let mine = Draft::message(LATE, "mine", &[join.event().event_id()]);
        let mine = world.remote.make(mine);
        for event in [&join, &mine] {
            assert_eq!(hears(&world.rooms, &room_id, event.event()).await, ACCEPTED);
        }
        let joined = enter(&there, &room_id, BOB).await.unwrap();
        let host = world.rooms.peer_view(name("elsewhere"), &room_id);
        let host = host.await.unwrap();
        let state = host.state_before(first.event_id()).await.unwrap();
        let whole = Run {
            seq: joined.seq,
            events: vec![signed(&first), join, mine],
            state: host.ids(&state.state).await.unwrap(),
        };
        let mut gapped = whole.clone();
        gapped.events.remove(1);
        let filled = there.fill(&room_id, gapped).await.unwrap();
        assert_eq!(filled, Filled::Placed(0), "{version}");
        let filled = there.fill(&room_id, whole).await.unwrap();
        assert_eq!(filled, Filled::Placed(3), "{version}");
    }
}
