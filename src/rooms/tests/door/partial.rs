//! Rooms that are entered without their members: used at once, completed later.
//! [MSC3902](https://github.com/matrix-org/matrix-spec-proposals/pull/3902)

use std::collections::BTreeSet;

use comity_protocol::{
    auth::Membership,
    event::Signed,
    id::{EventId, OwnedEventId, OwnedRoomId},
    room_version::RoomVersion,
};
use comity_rooms::{
    Arrival, Claim, Completed, Entry, Outcome, PeerView, RoomError, Rooms, Way,
    tables::{Mode, Verdict},
};
use serde_json::{Map, json};

use crate::{
    joining::{
        ACCEPTED, BOB, Ring, hears, mode, name, order, pdus, read, say, signed, state, two, user,
    },
    remote::{ADMIN, ALICE, Draft, USERS, World, id},
};

const SOME: [RoomVersion; 3] = [RoomVersion::V6, RoomVersion::V10, RoomVersion::V12];
/// The server that let us in.
const RESIDENT: &str = "localhost";
const REJECTED: Outcome = Outcome::Settled(Verdict::Rejected);
const SOFT_FAILED: Outcome = Outcome::Settled(Verdict::SoftFailed);

/// A room that is elsewhere, and here without its members.
struct Partial {
    world: World,
    here: Rooms,
    room_id: OwnedRoomId,
    join: OwnedEventId,
    /// The event that the join follows.
    before: OwnedEventId,
}

impl Partial {
    async fn of(world: World, here: Rooms, room_id: OwnedRoomId) -> Self {
        Self::told(world, here, room_id, |_| true).await
    }

    /// The same by a server that sends only such of the events that the state rests on.
    async fn told(
        world: World,
        here: Rooms,
        room_id: OwnedRoomId,
        is_told: impl Fn(&Signed) -> bool,
    ) -> Self {
        Self::checked(world, here, room_id, is_told, |_| true).await
    }

    /// The same where some of the state can't be checked yet.
    async fn checked(
        world: World,
        here: Rooms,
        room_id: OwnedRoomId,
        is_told: impl Fn(&Signed) -> bool,
        is_checked: impl Fn(&Signed) -> bool,
    ) -> Self {
        let us = name("elsewhere");
        let bob = user(BOB);
        let versions: Vec<String> = RoomVersion::ALL.map(|v| v.as_str().to_owned()).to_vec();
        let template = world
            .rooms
            .template(us, &room_id, bob, Membership::Join, Some(&versions))
            .await
            .unwrap();
        let (version, event) = (template.version, &template.event);
        let join = here
            .complete(version, event, &room_id, bob, Membership::Join, Map::new())
            .unwrap();
        let admission = world
            .rooms
            .send_join(us, &room_id, read(join.event()), &Ring)
            .await
            .unwrap();
        let listed = admission.state_without_members().await.unwrap();
        let mut auth_chain = pdus(admission.view(), &listed.auth_chain).await;
        auth_chain.retain(is_told);
        let state = pdus(admission.view(), &listed.state).await;
        let (state, unchecked): (Vec<_>, Vec<_>) = state.into_iter().partition(is_checked);
        let entry = Entry {
            version,
            state,
            auth_chain,
            omitted: Some(admission.servers().await.unwrap()),
            unchecked: unchecked.iter().map(id).collect(),
            join: join.clone(),
        };
        here.enter(&room_id, entry).await.unwrap();
        Self {
            before: join.event().prev_events()[0].clone(),
            join: id(&join),
            world,
            here,
            room_id,
        }
    }

    async fn new(version: RoomVersion) -> Self {
        let (world, here, room_id) = two(version).await;
        Self::of(world, here, room_id).await
    }

    async fn theirs(&self) -> PeerView {
        let view = self.world.rooms.peer_view(name("elsewhere"), &self.room_id);
        view.await.unwrap()
    }

    /// What the other server says of the state before our join.
    async fn claim(&self) -> Claim {
        let theirs = self.theirs().await;
        let state = theirs.state_before(&self.before).await.unwrap();
        Claim {
            event: self.before.clone(),
            state: theirs.ids(&state.state).await.unwrap(),
        }
    }

    /// What becomes of the room by what a server claims.
    async fn by(&self, server: &str, claim: &Claim) -> Result<Completed, RoomError> {
        let claims = std::slice::from_ref(claim);
        let server = name(server);
        self.here
            .complete_state(&self.room_id, server, claims, &BTreeSet::new())
            .await
    }

    async fn complete(&self) -> Result<Completed, RoomError> {
        let claim = self.claim().await;
        let first = self.by(RESIDENT, &claim).await?;
        let Completed::Wanted(wanted) = first else {
            return Ok(first);
        };
        assert!(wanted.contains(&self.before));
        self.fetch().await;
        self.by(RESIDENT, &claim).await
    }

    /// Brings what the claim names.
    async fn fetch(&self) {
        let theirs = self.theirs().await;
        let state = theirs.state_before(&self.before).await.unwrap();
        let mut events = pdus(&theirs, &[state.state, state.auth_chain].concat()).await;
        events.push(signed(&theirs.event(&self.before).await.unwrap()));
        let outliers = events.into_iter().map(|event| Arrival {
            event,
            way: Way::Outlier,
        });
        let outliers = outliers.collect();
        self.here.receive(&self.room_id, outliers).await.unwrap();
    }

    /// The event of the state that the other server has.
    async fn theirs_of(&self, kind: &str, key: &str) -> OwnedEventId {
        let view = self.world.rooms.view(&self.room_id).await.unwrap();
        let found = view.state(kind, key).await.unwrap().unwrap();
        found.event.event_id().to_owned()
    }

    /// A claim without somebody's membership.
    async fn without(&self, who: &str, claim: &Claim) -> Claim {
        let member = self.theirs_of("m.room.member", who).await;
        let mut claim = claim.clone();
        claim.state.retain(|id| *id != member);
        claim
    }

    /// What a user says after an event, by these memberships of theirs and of others.
    async fn make(&mut self, draft: Draft, members: &[&EventId]) -> comity_protocol::event::Event {
        let mut auth = vec![self.theirs_of("m.room.power_levels", "").await];
        if !self.world.remote.version.rules().room_id_is_create_hash {
            auth.push(self.theirs_of("m.room.create", "").await);
        }
        auth.extend(members.iter().map(|id| (*id).to_owned()));
        let draft = Draft {
            auth: Some(auth),
            depth: Some(50),
            ..draft
        };
        self.world.remote.make(draft).event().clone()
    }

    async fn hears(&self, event: &comity_protocol::event::Event) -> Outcome {
        let before = hears(&self.here, &self.room_id, event).await;
        let Outcome::Wanted(wanted) = before else {
            return before;
        };
        assert!(wanted.prev.is_empty());
        for id in &wanted.auth {
            let theirs = self.theirs().await;
            let event = signed(&theirs.event(id).await.unwrap());
            let outlier = Arrival {
                event,
                way: Way::Outlier,
            };
            self.here
                .receive(&self.room_id, vec![outlier])
                .await
                .unwrap();
        }
        hears(&self.here, &self.room_id, event).await
    }
}

/// A member who isn't known is unknown: nothing is refused or said for their absence, and other servers
/// don't learn the state. What is said is part of the room on both servers; once complete, so is all else.
#[tokio::test(start_paused = true)]
async fn a_room_is_used_before_its_members_are_known() {
    for version in SOME {
        let mut room = Partial::new(version).await;
        let (here, room_id) = (room.here.clone(), room.room_id.clone());
        assert_eq!(mode(&here, &room_id).await, Mode::Partial);
        assert_eq!(
            here.incomplete_rooms().await.unwrap(),
            std::slice::from_ref(&room_id)
        );
        let lacks = here.incomplete(&room_id).await.unwrap().unwrap();
        assert_eq!(lacks.prev, std::slice::from_ref(&room.before));
        let mut servers = here.servers_in(&room_id).await.unwrap();
        servers.sort();
        assert_eq!(
            servers,
            ["elsewhere", "localhost", "other", "remote"].map(|s| name(s).to_owned())
        );

        let hello = say(&here, &room_id, BOB, "hello").await;
        assert_eq!(hears(&room.world.rooms, &room_id, &hello).await, ACCEPTED);
        let member = room.theirs_of("m.room.member", USERS[0]).await;
        let draft = Draft::message(USERS[0], "hi", &[hello.event_id()]);
        let hi = room.make(draft, &[&member]).await;
        assert_eq!(room.hears(&hi).await, ACCEPTED, "{version}");
        assert_eq!(hears(&room.world.rooms, &room_id, &hi).await, ACCEPTED);

        let peer = here.peer_view(name("remote"), &room_id).await.unwrap();
        let refused = peer.state_before(hi.event_id()).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{version}");
        let knows = Some(&["6", "10", "12"].map(str::to_owned)[..]);
        let (us, who) = (name("remote"), user("@new:remote"));
        let refused = here
            .template(us, &room_id, who, Membership::Join, knows)
            .await;
        assert!(matches!(refused, Err(RoomError::UnknownRoom)), "{version}");
        let unknown = here.whole_view(&room_id).await;
        assert!(matches!(unknown, Err(RoomError::Incomplete)), "{version}");
        // Those who name a room without a name are known; others may be there or not.
        let who = user("@unheard:remote");
        let kicked = here.kick(user(BOB), &room_id, who, None).await;
        assert!(matches!(kicked, Err(RoomError::Incomplete)), "{version}");

        assert_eq!(
            room.complete().await.unwrap(),
            Completed::Whole,
            "{version}"
        );
        assert_eq!(mode(&here, &room_id).await, Mode::Joined);
        assert_eq!(
            state(&here, &room_id).await,
            state(&room.world.rooms, &room_id).await
        );
        let (ours, theirs) = (
            here.summary(&room_id).await.unwrap(),
            room.world.rooms.summary(&room_id).await.unwrap(),
        );
        assert_eq!((ours.joined, ours.ours), (theirs.joined, 1), "{version}");
        let said = [
            room.join.clone(),
            hello.event_id().to_owned(),
            hi.event_id().to_owned(),
        ];
        assert_eq!(order(&here, &room_id).await, said);
        assert!(here.incomplete_rooms().await.unwrap().is_empty());
        let mut views = Vec::new();
        for rooms in [&here, &room.world.rooms] {
            let view = rooms.view(&room_id).await.unwrap();
            let found = view.event(hi.event_id()).await.unwrap().unwrap();
            let root = found.root_before().unwrap().unwrap();
            assert!(!root.is_partial());
            let nums = view.state_nums(root, None).await.unwrap();
            let found = view.load(&nums).await.unwrap().into_iter();
            let mut ids: Vec<_> = found.map(|one| one.event.event_id().to_owned()).collect();
            ids.sort();
            views.push(ids);
        }
        assert_eq!(views[0], views[1], "{version}");
    }
}

/// What of the state couldn't be checked when we came in is part of it once it can be: the state is the others' then.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_checked_is_waited_for() {
    for version in SOME {
        let (mut world, here, room_id) = two(version).await;
        let content = json!({ "topic": "late" });
        let tip = world.tip.clone();
        let topic = Draft::state(ADMIN, "m.room.topic", "", content, &[&tip]);
        let topic = world.accepted(topic).await;
        world.tip = world.accepted(Draft::message(ADMIN, "hi", &[&topic])).await;
        let is_checked = |signed: &Signed| id(signed) != topic;
        let told = |_: &Signed| true;
        let room = Partial::checked(world, here, room_id, told, is_checked).await;
        let (here, room_id) = (&room.here, &room.room_id);
        assert!(here.summary(room_id).await.unwrap().topic.is_none());
        let claim = room.claim().await;
        let Completed::Wanted(wanted) = room.by(RESIDENT, &claim).await.unwrap() else {
            panic!("{version}: complete without its topic");
        };
        assert!(wanted.contains(&topic), "{version}");
        assert_eq!(room.complete().await.unwrap(), Completed::Whole);
        let (ours, theirs) = (
            state(here, room_id).await,
            state(&room.world.rooms, room_id).await,
        );
        assert_eq!(ours, theirs, "{version}");
        let summary = here.summary(room_id).await.unwrap();
        assert_eq!(summary.topic.as_deref(), Some("late"), "{version}");
    }
}

/// What was accepted for what it claimed of its sender is rejected once the members are known, and no longer
/// followed; what follows it stays.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_by_a_false_claim_is_rejected() {
    for version in SOME {
        for is_followed in [false, true] {
            let (mut world, here, room_id) = two(version).await;
            let joined = world
                .remote
                .state_after(&world.tip, "m.room.member", USERS[0]);
            let leave = Draft::member(USERS[0], USERS[0], "leave", &[&world.tip.clone()]);
            world.tip = world.accepted(leave).await;
            let mut room = Partial::of(world, here, room_id.clone()).await;
            let here = room.here.clone();
            let draft = Draft::message(USERS[0], "bad", &[&room.join.clone()]);
            let bad = room.make(draft, &[&joined]).await;
            assert_eq!(room.hears(&bad).await, ACCEPTED, "{version}");
            let mut last = room.join.clone();
            let mut said = vec![room.join.clone()];
            if is_followed {
                let member = room.theirs_of("m.room.member", USERS[1]).await;
                let draft = Draft::message(USERS[1], "good", &[bad.event_id()]);
                let good = room.make(draft, &[&member]).await;
                assert_eq!(room.hears(&good).await, ACCEPTED, "{version}");
                last = good.event_id().to_owned();
                said.push(last.clone());
            }
            assert_eq!(room.complete().await.unwrap(), Completed::Whole);
            assert_eq!(order(&here, &room_id).await, said, "{version}");
            let view = here.view(&room_id).await.unwrap();
            assert!(view.event(bad.event_id()).await.unwrap().is_none());
            let next = say(&here, &room_id, BOB, "next").await;
            assert_eq!(next.prev_events(), [last], "{version}");
            assert_eq!(room.hears(&bad).await, REJECTED);
        }
    }
}

/// What was rejected or soft-failed only because of such an event is part of the room once that one is rejected
/// itself.
#[tokio::test(start_paused = true)]
async fn what_was_hidden_by_a_false_claim_is_accepted() {
    for version in SOME {
        for is_after in [true, false] {
            let (mut world, here, room_id) = two(version).await;
            let joined = world.remote.state_after(&world.tip, "m.room.member", ADMIN);
            let leave = Draft::member(ADMIN, ADMIN, "leave", &[&world.tip.clone()]);
            world.tip = world.accepted(leave).await;
            let mut room = Partial::of(world, here, room_id.clone()).await;
            let here = room.here.clone();
            let member = room.theirs_of("m.room.member", USERS[1]).await;
            let draft = Draft::member(ADMIN, USERS[1], "leave", &[&room.join.clone()]);
            let kick = room.make(draft, &[&joined, &member]).await;
            assert_eq!(room.hears(&kick).await, ACCEPTED, "{version}");
            let (parent, verdict) = match is_after {
                true => (kick.event_id().to_owned(), REJECTED),
                false => (room.join.clone(), SOFT_FAILED),
            };
            let draft = Draft::message(USERS[1], "still here", &[&parent]);
            let said = room.make(draft, &[&member]).await;
            assert_eq!(room.hears(&said).await, verdict, "{version}");
            assert_eq!(room.complete().await.unwrap(), Completed::Whole);
            let expected = [room.join.clone(), said.event_id().to_owned()];
            assert_eq!(order(&here, &room_id).await, expected, "{version}");
            assert_eq!(
                state(&here, &room_id).await,
                state(&room.world.rooms, &room_id).await
            );
            let next = say(&here, &room_id, BOB, "next").await;
            assert_eq!(next.prev_events(), [said.event_id()], "{version}");
        }
    }
}

/// data-model.md, Events: what was soft-failed is rejected once the whole state forbids it, so that what it set
/// isn't in the state of what follows it.
#[tokio::test(start_paused = true)]
async fn what_was_soft_failed_by_a_false_claim_is_rejected() {
    for version in SOME {
        let (mut world, here, room_id) = two(version).await;
        let joined = world
            .remote
            .state_after(&world.tip, "m.room.member", USERS[0]);
        let leave = Draft::member(USERS[0], USERS[0], "leave", &[&world.tip.clone()]);
        world.tip = world.accepted(leave).await;
        let mut room = Partial::of(world, here, room_id.clone()).await;
        let boss = room.theirs_of("m.room.member", ADMIN).await;
        let draft = Draft::member(ADMIN, USERS[0], "leave", &[&room.join.clone()]);
        let kick = room.make(draft, &[&boss, &joined]).await;
        assert_eq!(room.hears(&kick).await, ACCEPTED, "{version}");
        let draft = Draft::message(USERS[0], "still here", &[&room.join.clone()]);
        let said = room.make(draft, &[&joined]).await;
        assert_eq!(room.hears(&said).await, SOFT_FAILED, "{version}");
        assert_eq!(room.complete().await.unwrap(), Completed::Whole);
        assert_eq!(room.hears(&said).await, REJECTED, "{version}");
        let expected = [room.join.clone(), kick.event_id().to_owned()];
        assert_eq!(order(&room.here, &room_id).await, expected, "{version}");
    }
}

/// A state that is another room's, or that would have forbidden our join, isn't believed; the room stays
/// as it was.
#[tokio::test(start_paused = true)]
async fn a_false_state_is_not_believed() {
    let mut room = Partial::new(RoomVersion::V10).await;
    let (here, room_id) = (room.here.clone(), room.room_id.clone());
    let mut claim = room.claim().await;
    room.fetch().await;
    let create = room.theirs_of("m.room.create", "").await;
    claim.state.retain(|id| *id != create);
    let refused = room.by(RESIDENT, &claim).await;
    assert!(matches!(refused, Err(RoomError::Invalid(_))));

    let (levels, boss) = (
        room.theirs_of("m.room.power_levels", "").await,
        room.theirs_of("m.room.member", ADMIN).await,
    );
    let draft = Draft::member(ADMIN, BOB, "ban", &[&room.before.clone()]);
    let draft = Draft {
        auth: Some(vec![create, levels, boss]),
        ..draft
    };
    let ban = room.world.remote.make(draft);
    let mut claim = room.claim().await;
    claim.state.push(id(&ban));
    let outlier = Arrival {
        event: ban,
        way: Way::Outlier,
    };
    here.receive(&room_id, vec![outlier]).await.unwrap();
    let refused = room.by(RESIDENT, &claim).await;
    assert!(matches!(refused, Err(RoomError::Invalid(_))));
    assert_eq!(mode(&here, &room_id).await, Mode::Partial);
    assert_eq!(room.complete().await.unwrap(), Completed::Whole);
}

/// Another server than the one that let us in is believed only where its state has a member on each server that this one
/// named: else any server in the room could keep what is said here from the others.
#[tokio::test(start_paused = true)]
async fn c5_a_state_without_servers_of_the_room_is_not_believed() {
    for version in SOME {
        let room = Partial::new(version).await;
        room.fetch().await;
        let whole = room.claim().await;
        let less = room.without(ALICE, &whole).await;
        let refused = room.by("remote", &less).await;
        assert!(matches!(refused, Err(RoomError::Invalid(_))), "{version}");
        assert_eq!(mode(&room.here, &room.room_id).await, Mode::Partial);
        let believed = room.by("remote", &whole).await;
        assert_eq!(believed.unwrap(), Completed::Whole, "{version}");

        let room = Partial::new(version).await;
        room.fetch().await;
        let less = room.without(ALICE, &room.claim().await).await;
        let believed = room.by(RESIDENT, &less).await;
        assert_eq!(believed.unwrap(), Completed::Whole, "{version}");
    }
}

/// Who waits for the members of a room hears at once that we have left it.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_room_that_was_left() {
    let room = Partial::new(RoomVersion::V11).await;
    let start = tokio::time::Instant::now();
    let leave = room.here.leave(user(BOB), &room.room_id, None);
    let (view, left) = tokio::join!(room.here.whole_view(&room.room_id), leave);
    left.unwrap();
    assert_eq!(view.unwrap().head().mode, Mode::Left);
    assert!(start.elapsed().as_secs() < 1);
}

/// Who leaves before the room is complete has left it; who comes again enters it anew.
#[tokio::test(start_paused = true)]
async fn a_partial_room_is_left_and_entered_again() {
    for version in SOME {
        let room = Partial::new(version).await;
        let (here, room_id) = (room.here.clone(), room.room_id.clone());
        here.leave(user(BOB), &room_id, None).await.unwrap();
        assert_eq!(mode(&here, &room_id).await, Mode::Left, "{version}");
        assert!(here.incomplete(&room_id).await.unwrap().is_none());
        let left = order(&here, &room_id).await.pop().unwrap();
        let view = here.view(&room_id).await.unwrap();
        let leave = view.event(&left).await.unwrap().unwrap().event;
        assert_eq!(hears(&room.world.rooms, &room_id, &leave).await, ACCEPTED);
        // What our join rests on we have, and it isn't sent by all servers.
        let is_news = |event: &Signed| event.event().state_key() != Some(BOB);
        let again = Partial::told(room.world, here.clone(), room_id.clone(), is_news).await;
        assert_eq!(mode(&here, &room_id).await, Mode::Partial);
        let hello = say(&here, &room_id, BOB, "again").await;
        assert_eq!(
            again.complete().await.unwrap(),
            Completed::Whole,
            "{version}"
        );
        assert_eq!(hears(&again.world.rooms, &room_id, &hello).await, ACCEPTED);
        assert_eq!(
            state(&here, &room_id).await,
            state(&again.world.rooms, &room_id).await
        );
    }
}
