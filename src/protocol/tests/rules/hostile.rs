//! Graphs made to hurt, and the cost of ordinary ones.

use std::cell::Cell;
use std::collections::BTreeSet;

use comity_protocol::room_version::RoomVersion;
use comity_protocol::state_res::{
    AuthGraph, Events, MemoryGraph, Missing, StateDifference, resolve,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::drawn::{Drawn, Line};
use crate::event::{Num, TestEvent};

const ALICE: &str = "@alice:x";

fn topic(name: &'static str, auth: &[&'static str]) -> Line {
    (
        name,
        "m.room.topic",
        "",
        ALICE,
        json!({ "topic": name }),
        auth.to_vec(),
    )
}

fn levels(name: &'static str, auth: &[&'static str]) -> Line {
    let content = json!({ "users": { ALICE: 100 } });
    (
        name,
        "m.room.power_levels",
        "",
        ALICE,
        content,
        auth.to_vec(),
    )
}

fn beginning() -> Vec<Line> {
    let join = json!({ "membership": "join" });
    vec![
        (
            "create",
            "m.room.create",
            "",
            ALICE,
            json!({ "creator": ALICE }),
            vec![],
        ),
        ("alice", "m.room.member", ALICE, ALICE, join, vec!["create"]),
        levels("levels", &["create", "alice"]),
    ]
}

/// Threat D12: events that cite themselves or each other end nowhere and hold up nothing.
#[test]
fn d12_cycles_and_self_references() {
    for version in [RoomVersion::V1, RoomVersion::V2, RoomVersion::V11] {
        let mut lines = beginning();
        lines.extend([
            levels("self", &["create", "alice", "self"]),
            levels("there", &["create", "alice", "back"]),
            levels("back", &["create", "alice", "there"]),
            topic("good", &["create", "alice", "levels"]),
            topic("on self", &["create", "alice", "self"]),
            topic("on back", &["create", "alice", "back"]),
        ]);
        let mut answers = BTreeSet::new();
        for seed in 0..50 {
            let drawn = Drawn::new(version, &lines, &mut ChaCha8Rng::seed_from_u64(seed));
            let forks = [
                drawn.state(&["create", "alice", "levels", "good"]),
                drawn.state(&["create", "alice", "self", "on self"]),
                drawn.state(&["create", "alice", "there", "on back"]),
                drawn.state(&["create", "alice", "back", "on self"]),
            ];
            let resolved = drawn.world.resolve(&forks[0], &forks.each_ref());
            let ids = resolved
                .values()
                .map(|num| drawn.world.event(*num).event_id.clone());
            answers.insert(ids.collect::<Vec<_>>());
        }
        assert_eq!(answers.len(), 1, "{version}: {answers:?}");
        if version != RoomVersion::V1 {
            let answer = answers.first().unwrap();
            assert!(
                answer.iter().any(|id| id.as_str().ends_with("0levels")),
                "{version}: {answer:?}"
            );
        }
    }
}

/// Threat D12: a walker visits an event once. With as many edges as this, a walk by paths never
/// ends, and one that recurses runs out of stack.
#[test]
fn d12_deep_and_tangled_graphs_are_walked_once() {
    const DEPTH: Num = 100_000;
    let mut graph = MemoryGraph::default();
    for num in 0..DEPTH {
        let cited: Vec<Num> = [1, 2, 3]
            .iter()
            .filter_map(|back| num.checked_sub(*back))
            .collect();
        graph.add(num, &cited);
    }
    graph.add(0, &[DEPTH - 1]);
    let forks = [BTreeSet::from([DEPTH - 1]), BTreeSet::from([DEPTH - 2])];
    assert_eq!(graph.auth_difference(&forks, &|_| false), BTreeSet::new());
    let everything = graph.conflicted_subgraph(&BTreeSet::from([5, DEPTH - 5]));
    assert_eq!(everything.len(), DEPTH as usize);
}

/// A room at hand with a thousand members more than its events tell of; counts what it is asked.
struct Counting<'a> {
    drawn: &'a Drawn,
    base: &'a crate::world::State,
    lost: BTreeSet<Num>,
    asked: Cell<usize>,
}

impl Events for Counting<'_> {
    type Event = TestEvent;

    fn event(&self, num: &Num) -> Option<&TestEvent> {
        self.asked.set(self.asked.get() + 1);
        (!self.lost.contains(num)).then(|| self.drawn.world.event(*num))
    }
    fn is_rejected(&self, _: &Num) -> bool {
        false
    }
    fn base(&self, event_type: &str, state_key: &str) -> Option<Num> {
        self.asked.set(self.asked.get() + 1);
        self.base
            .get(&(event_type.to_owned(), state_key.to_owned()))
            .copied()
    }
}

fn two_topics() -> Vec<Line> {
    let mut lines = beginning();
    lines.extend([
        topic("one", &["create", "alice", "levels"]),
        topic("two", &["create", "alice", "levels"]),
    ]);
    lines
}

fn topics_differ(drawn: &Drawn) -> Vec<StateDifference<Num>> {
    let key = ("m.room.topic".to_owned(), String::new());
    ["one", "two"]
        .map(|name| StateDifference::from([(key.clone(), Some(drawn.num(name)))]))
        .into()
}

/// What resolution asks for does not grow with the room's state.
#[test]
fn the_cost_is_that_of_the_conflict() {
    for version in [RoomVersion::V1, RoomVersion::V11, RoomVersion::V12] {
        let drawn = Drawn::new(version, &two_topics(), &mut ChaCha8Rng::seed_from_u64(0));
        let mut costs = BTreeSet::new();
        for members in [0, 1_000, 16_000] {
            let mut base = drawn.state(&["create", "alice", "levels"]);
            let alice = drawn.num("alice");
            base.extend(
                (0..members).map(|n| (("m.room.member".to_owned(), format!("@{n}:x")), alice)),
            );
            let room = Counting {
                drawn: &drawn,
                base: &base,
                lost: BTreeSet::new(),
                asked: Cell::new(0),
            };
            resolve(
                version.rules(),
                &room,
                &drawn.world.graph,
                &topics_differ(&drawn),
            )
            .unwrap();
            costs.insert(room.asked.get());
        }
        assert_eq!(costs.len(), 1, "{version}: {costs:?}");
        assert!(costs.first().unwrap() < &150, "{version}: {costs:?}");
    }
}

/// What isn't at hand is named, all of one kind at once, and never taken for absent.
#[test]
fn missing_events_are_named() {
    for version in [RoomVersion::V1, RoomVersion::V11, RoomVersion::V12] {
        let drawn = Drawn::new(version, &two_topics(), &mut ChaCha8Rng::seed_from_u64(0));
        let base = drawn.state(&["create", "alice", "levels"]);
        for lost in [vec!["one", "two"], vec!["alice", "levels"], vec!["create"]] {
            let lost: BTreeSet<Num> = lost.into_iter().map(|name| drawn.num(name)).collect();
            let room = Counting {
                drawn: &drawn,
                base: &base,
                lost: lost.clone(),
                asked: Cell::new(0),
            };
            let refused = resolve(
                version.rules(),
                &room,
                &drawn.world.graph,
                &topics_differ(&drawn),
            );
            assert_eq!(refused, Err(Missing(lost)), "{version}");
        }
    }
}

/// No fork and one fork are no conflict.
#[test]
fn nothing_to_resolve() {
    let drawn = Drawn::new(
        RoomVersion::V12,
        &two_topics(),
        &mut ChaCha8Rng::seed_from_u64(0),
    );
    let base = drawn.state(&["create", "alice", "levels", "one"]);
    let room = Counting {
        drawn: &drawn,
        base: &base,
        lost: BTreeSet::new(),
        asked: Cell::new(0),
    };
    let rules = RoomVersion::V12.rules();
    assert_eq!(
        resolve(rules, &room, &drawn.world.graph, &[]),
        Ok(StateDifference::new())
    );
    let [_, two] = topics_differ(&drawn).try_into().unwrap();
    let fork: StateDifference<Num> = two;
    let resolved = resolve(
        rules,
        &room,
        &drawn.world.graph,
        std::slice::from_ref(&fork),
    );
    assert_eq!(resolved, Ok(fork));
}

/// An event that only the auth difference brings in may decide an entry no fork has; so it does
/// also when the base has that entry already.
#[test]
fn an_entry_of_no_fork_does_not_hang_on_the_base() {
    let join = json!({ "membership": "join" });
    let member = |name, user, auth: &[&'static str]| -> Line {
        (
            name,
            "m.room.member",
            user,
            user,
            join.clone(),
            auth.to_vec(),
        )
    };
    for version in [RoomVersion::V11, RoomVersion::V12] {
        let mut lines = beginning();
        let open = json!({ "join_rule": "public" });
        lines.extend([
            (
                "public",
                "m.room.join_rules",
                "",
                ALICE,
                open,
                vec!["create", "alice", "levels"],
            ),
            member("eve", "@eve:x", &["create", "levels", "public"]),
            member("bob", "@bob:x", &["create", "levels", "public"]),
            member(
                "bob by eve",
                "@bob:x",
                &["create", "levels", "public", "eve"],
            ),
        ]);
        let drawn = Drawn::new(version, &lines, &mut ChaCha8Rng::seed_from_u64(0));
        let common = ["create", "alice", "levels", "public"];
        let state = |more: &[&str]| drawn.state(&[&common, more].concat());
        let forks = [state(&["bob"]), state(&["bob by eve"])];
        let expected = state(&["bob by eve", "eve"]);
        for base in [state(&[]), state(&["eve"]), state(&["bob"])] {
            assert_eq!(
                drawn.world.resolve(&base, &forks.each_ref()),
                expected,
                "{version}"
            );
        }
    }
}
