//! Memberships that a resolution of forks takes away, and gives back.

use comity_protocol::{
    event::{Event, Signed},
    room_version::RoomVersion,
};
use comity_rooms::{Join, Outcome, Way, tables::Mode};
use serde_json::json;

use crate::{
    joining::{ACCEPTED, Ring, mode, order, read, user},
    remote::{ADMIN, ALICE, Draft, World, id},
};

const SOME: [RoomVersion; 3] = [RoomVersion::V6, RoomVersion::V10, RoomVersion::V12];
const DAVE: &str = "@dave:localhost";

/// A room in which Dave is the last of this server, with two events of elsewhere that knew nothing of his coming: one closes the room
/// to newcomers, the other, which comes first wherever they meet, takes that power away.
struct Undone {
    world: World,
    closing: Signed,
    overruling: Signed,
}

impl Undone {
    async fn new(version: RoomVersion) -> Self {
        let mut world = World::new(version).await;
        let open = json!({ "join_rule": "public" });
        let tip = world.tip.clone();
        let open = Draft::state(ADMIN, "m.room.join_rules", "", open, &[&tip]);
        let tip = world.accepted(open).await;
        let mut users = json!({ ADMIN: 50 });
        if version < RoomVersion::V12 {
            users[ALICE] = json!(100);
        }
        let levels = json!({ "users": users, "events": { "m.room.join_rules": 100 } });
        let levels = Draft::state(ADMIN, "m.room.power_levels", "", levels, &[&tip]);
        let overruling = world.remote.make(levels);
        let closed = json!({ "join_rule": "invite" });
        let closed = Draft::state(ADMIN, "m.room.join_rules", "", closed, &[&tip]);
        let closing = world.remote.make(closed);
        let room_id = world.remote.room_id.clone();
        let request = Join::default();
        let joined = world.rooms.join(user(DAVE), &room_id, request);
        joined.await.unwrap();
        let left = world.rooms.leave(user(ALICE), &room_id, None);
        left.await.unwrap();
        let undone = Self {
            world,
            closing,
            overruling,
        };
        assert_eq!(undone.mode().await, Mode::Joined);
        undone
    }

    async fn mode(&self) -> Mode {
        mode(&self.world.rooms, &self.world.remote.room_id).await
    }

    async fn daves(&self) -> String {
        let room_id = &self.world.remote.room_id;
        let row = self.world.rooms.member(user(DAVE), room_id).await.unwrap();
        row.unwrap().value.membership
    }

    async fn hears(&self, event: &Signed) -> Outcome {
        self.world.receive(event.clone(), Way::New).await
    }
}

/// A server whose last user's join is undone where forks meet is in the room no more; the others may know better already, and send it
/// what shows that. So it is heard, and the user is in the room again. Rows say so all the time: the user is told of both.
#[tokio::test(start_paused = true)]
async fn who_is_put_out_where_forks_meet_comes_back() {
    for version in SOME {
        let room = Undone::new(version).await;
        assert_eq!(room.hears(&room.closing).await, ACCEPTED, "{version}");
        assert_eq!(room.mode().await, Mode::Left, "{version}");
        assert_eq!(room.daves().await, "leave", "{version}");
        let said = Draft::message(ADMIN, "nobody here", &[&id(&room.closing)]);
        let mut room = room;
        let said = room.world.remote.make(said);
        assert_eq!(room.hears(&said).await, ACCEPTED, "{version}");
        assert_eq!(room.mode().await, Mode::Left, "{version}");
        assert_eq!(room.hears(&room.overruling).await, ACCEPTED, "{version}");
        assert_eq!(room.mode().await, Mode::Joined, "{version}");
        assert_eq!(room.daves().await, "join", "{version}");
        let state = room.world.state().await;
        let rules = &state[&("m.room.join_rules".to_owned(), String::new())];
        assert_ne!(*rules, id(&room.closing), "{version}");
        let order = order(&room.world.rooms, &room.world.remote.room_id).await;
        assert!(order.contains(&id(&said)), "{version}");
    }
}

/// An invite that came meanwhile is kept beside the room for as long as we aren't in it; when we are in it again its state says who is
/// invited.
#[tokio::test(start_paused = true)]
async fn what_was_kept_beside_ends_with_the_way_back() {
    let mut room = Undone::new(RoomVersion::V11).await;
    room.hears(&room.closing.clone()).await;
    let erin = user("@erin:localhost");
    let invite = Draft::member(ADMIN, erin.as_str(), "invite", &[&id(&room.closing)]);
    let invite: Event = room.world.remote.make(invite).event().clone();
    let room_id = room.world.remote.room_id.clone();
    let rooms = room.world.rooms.clone();
    let remote = "remote".try_into().unwrap();
    let taken = rooms.receive_invite(remote, &room_id, read(&invite), &[], &Ring);
    taken.await.unwrap();
    let reader = rooms.tenant().reader();
    let beside = rooms.out_of_band(&reader, erin, &room_id).await.unwrap();
    assert_eq!(beside.unwrap().membership, "invite");
    assert_eq!(room.hears(&room.overruling.clone()).await, ACCEPTED);
    assert_eq!(room.mode().await, Mode::Joined);
    let reader = rooms.tenant().reader();
    assert!(
        rooms
            .out_of_band(&reader, erin, &room_id)
            .await
            .unwrap()
            .is_none()
    );
    let row = rooms.member(erin, &room_id).await.unwrap().unwrap();
    assert_eq!(row.value.membership, "leave");
}

/// A leave that the room tells late, from before a user was invited anew, doesn't end that invite, as it would be by coming in time.
#[tokio::test(start_paused = true)]
async fn a_late_leave_ends_no_newer_invite() {
    let mut room = Undone::new(RoomVersion::V11).await;
    room.hears(&room.closing.clone()).await;
    let erin = user("@erin:localhost");
    let kick = Draft::member(ADMIN, erin.as_str(), "leave", &[&id(&room.closing)]);
    let kick = room.world.remote.make(kick);
    let invite = Draft::member(ADMIN, erin.as_str(), "invite", &[&id(&kick)]);
    let invite: Event = room.world.remote.make(invite).event().clone();
    let room_id = room.world.remote.room_id.clone();
    let rooms = room.world.rooms.clone();
    let remote = "remote".try_into().unwrap();
    let taken = rooms.receive_invite(remote, &room_id, read(&invite), &[], &Ring);
    taken.await.unwrap();
    assert_eq!(room.hears(&kick).await, ACCEPTED);
    assert_eq!(room.mode().await, Mode::Left);
    let reader = rooms.tenant().reader();
    let beside = rooms.out_of_band(&reader, erin, &room_id).await.unwrap();
    assert_eq!(beside.unwrap().membership, "invite");
    let row = rooms.member(erin, &room_id).await.unwrap().unwrap();
    assert_eq!(row.value.membership, "invite");
    // One that was made since does.
    let since = Draft::member(ADMIN, erin.as_str(), "leave", &[&id(&kick)]);
    let since = room.world.remote.make(since);
    assert_eq!(room.hears(&since).await, ACCEPTED);
    let reader = rooms.tenant().reader();
    let beside = rooms.out_of_band(&reader, erin, &room_id).await.unwrap();
    assert_eq!(beside, None);
    let row = rooms.member(erin, &room_id).await.unwrap().unwrap();
    assert_eq!(row.value.membership, "leave");
}
