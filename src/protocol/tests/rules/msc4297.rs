//! Threat D1 (CVE-2025-49090): the two graphs on which state resolution v2 resets a room's state,
//! from the problem statement of [MSC4297](https://github.com/matrix-org/matrix-spec-proposals/pull/4297).
//! Version 12 has to get them right, in whatever order things come.

use comity_protocol::room_version::RoomVersion;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::drawn::{Drawn, Line};
use crate::oracle;
use crate::world::State;

/// Of each graph; 10,000 in all.
const ORDERS: u64 = 5_000;

fn member(name: &'static str, user: &'static str, auth: &[&'static str]) -> Line {
    let content = json!({ "membership": "join", "displayname": name });
    (name, "m.room.member", user, user, content, auth.to_vec())
}

fn state(
    name: &'static str,
    event_type: &'static str,
    sender: &'static str,
    content: Value,
    auth: &[&'static str],
) -> Line {
    (name, event_type, "", sender, content, auth.to_vec())
}

/// The beginning of both: a public room of Alice's, whom Bob and Charlie join.
fn beginning() -> Vec<Line> {
    vec![
        state(
            "create",
            "m.room.create",
            "@alice:x",
            json!({ "creator": "@alice:x" }),
            &[],
        ),
        member("alice", "@alice:x", &["create"]),
        state(
            "levels",
            "m.room.power_levels",
            "@alice:x",
            json!({}),
            &["create", "alice"],
        ),
        state(
            "public",
            "m.room.join_rules",
            "@alice:x",
            json!({ "join_rule": "public" }),
            &["create", "levels", "alice"],
        ),
        member("bob", "@bob:x", &["create", "levels", "public"]),
        member("charlie", "@charlie:x", &["create", "levels", "public"]),
    ]
}

/// Problem A: Alice makes the room invite-only and leaves; then two servers disagree whether she
/// did the former.
fn problem_a(version: RoomVersion) -> (Vec<Line>, [Vec<&'static str>; 2]) {
    let mut lines = beginning();
    if !version.rules().privileged_creators {
        lines[2].4 = json!({ "users": { "@alice:x": 100 } });
    }
    let left = json!({ "membership": "leave" });
    lines.extend([
        state(
            "invite",
            "m.room.join_rules",
            "@alice:x",
            json!({ "join_rule": "invite" }),
            &["create", "levels", "alice"],
        ),
        (
            "gone",
            "m.room.member",
            "@alice:x",
            "@alice:x",
            left,
            vec!["create", "levels", "alice"],
        ),
        member("bob+", "@bob:x", &["create", "levels", "bob", "invite"]),
        member(
            "charlie+",
            "@charlie:x",
            &["create", "levels", "charlie", "invite"],
        ),
    ]);
    let bobs = vec!["create", "levels", "charlie", "invite", "gone", "bob+"];
    let charlies = vec!["create", "levels", "bob", "public", "gone", "charlie+"];
    (lines, [bobs, charlies])
}

/// Problem B: levels are raised twice; one server knows the last, the other has fallen back to the
/// first, and the ones between are in neither state.
fn problem_b(version: RoomVersion) -> (Vec<Line>, [Vec<&'static str>; 2]) {
    let with_alice = |mut users: Value| {
        if !version.rules().privileged_creators {
            users["@alice:x"] = json!(100);
        }
        json!({ "users": users })
    };
    let mut lines = beginning();
    lines[2].4 = with_alice(json!({}));
    let second = with_alice(json!({ "@bob:x": 50 }));
    let third = with_alice(json!({ "@bob:x": 50, "@charlie:x": 50 }));
    lines.extend([
        state(
            "levels+",
            "m.room.power_levels",
            "@alice:x",
            second,
            &["create", "levels", "alice"],
        ),
        state(
            "levels++",
            "m.room.power_levels",
            "@bob:x",
            third,
            &["create", "levels+", "bob"],
        ),
        member("zara", "@zara:x", &["create", "levels++", "public"]),
        member("eve", "@eve:x", &["create", "levels++", "public"]),
        member("eve+", "@eve:x", &["create", "levels++", "public", "eve"]),
    ]);
    let zaras = vec![
        "create", "alice", "bob", "charlie", "public", "levels++", "zara",
    ];
    let eves = vec![
        "create", "alice", "bob", "charlie", "public", "levels", "eve+",
    ];
    (lines, [zaras, eves])
}

/// Resolves in random orders: of numbers, of `auth_events`, of forks and their copies, and from
/// random bases. There must be one answer, and the oracle must share it.
fn resolve(
    version: RoomVersion,
    (lines, forks): &(Vec<Line>, [Vec<&'static str>; 2]),
    orders: u64,
) -> Vec<String> {
    let mut answer: Option<Vec<String>> = None;
    for seed in 0..orders {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let drawn = Drawn::new(version, lines, &mut dice);
        let two = forks.each_ref().map(|names| drawn.state(names));
        let mut many: Vec<&State> = two.iter().collect();
        while dice.random_bool(0.5) {
            many.push(two.choose(&mut dice).unwrap());
        }
        many.shuffle(&mut dice);
        let empty = State::new();
        let base = [&two[0], &two[1], &empty]
            .choose(&mut dice)
            .copied()
            .unwrap();
        let resolved = drawn.world.resolve(base, &many);
        if seed % 100 == 0 {
            assert_eq!(
                resolved,
                oracle::resolve(&drawn.world, &many),
                "seed {seed}"
            );
        }
        let mut names: Vec<_> = resolved
            .values()
            .map(|num| {
                drawn
                    .world
                    .event(*num)
                    .event_id
                    .as_str()
                    .trim_start_matches(['$', '0'])
                    .to_owned()
            })
            .collect();
        names.sort();
        match &answer {
            None => answer = Some(names),
            Some(answer) => assert_eq!(*answer, names, "seed {seed}"),
        }
    }
    answer.unwrap()
}

#[test]
fn d1_problem_a() {
    let resolved = resolve(RoomVersion::V12, &problem_a(RoomVersion::V12), ORDERS);
    assert_eq!(
        resolved,
        ["bob+", "charlie+", "create", "gone", "invite", "levels"]
    );
}

#[test]
fn d1_problem_b() {
    let resolved = resolve(RoomVersion::V12, &problem_b(RoomVersion::V12), ORDERS);
    assert_eq!(
        resolved,
        [
            "alice", "bob", "charlie", "create", "eve+", "levels++", "public", "zara"
        ]
    );
}

/// What version 11 makes of them, and all servers with it: the join rule is lost, the levels reset.
#[test]
fn d1_version_11_has_the_problems() {
    let resolved = resolve(RoomVersion::V11, &problem_a(RoomVersion::V11), 200);
    assert!(
        !resolved.contains(&"invite".to_owned()) && !resolved.contains(&"public".to_owned()),
        "{resolved:?}"
    );
    let resolved = resolve(RoomVersion::V11, &problem_b(RoomVersion::V11), 200);
    assert!(resolved.contains(&"levels".to_owned()), "{resolved:?}");
}
