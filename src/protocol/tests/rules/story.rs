//! Random rooms: a few users of three servers who join, invite, kick, ban, change power levels and
//! join rules and set topics, on forks that merge again, with clocks that disagree.
//!
//! Each event is checked by both implementations as it is made, and each merge resolved by both.

use std::collections::BTreeSet;

use comity_protocol::room_version::{RoomVersion, StateResolution};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::event::Num;
use crate::world::{Draft, State, World};
use crate::{naive_v1, oracle};

const USERS: [&str; 6] = [
    "@ada:one",
    "@bob:one",
    "@cy:two",
    "@dan:two",
    "@eve:three",
    "@fay:three",
];
const LEVELS: [i64; 9] = [-1, 0, 1, 49, 50, 51, 99, 100, 101];

/// A difference between the implementations, with the room that shows it.
pub struct Differs(pub String);

pub struct Story {
    pub world: World,
    /// The state after each event.
    after: Vec<State>,
    dice: ChaCha8Rng,
    pub merges: usize,
    pub allowed: usize,
    pub refused: usize,
}

impl Story {
    /// Plays the room of a seed.
    pub fn play(seed: u64, version: RoomVersion) -> Result<Self, Differs> {
        let mut story = Self {
            world: World::new(version),
            after: Vec::new(),
            dice: ChaCha8Rng::seed_from_u64(seed),
            merges: 0,
            allowed: 0,
            refused: 0,
        };
        story.begin();
        let start = story.world.events.len();
        for _ in 0..story.dice.random_range(8..28) {
            story.step(start)?;
        }
        Ok(story)
    }

    fn below(&mut self, end: usize) -> usize {
        self.dice.random_range(0..end)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.dice.random_range(0..100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len());
        from[at].clone()
    }

    fn event_id(&mut self) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHabcdefgh0123456789-_";
        let text: String = (0..43).map(|_| char::from(self.pick(ALPHABET))).collect();
        if self.world.rules().event_id_server_signs {
            let server = self.pick(&["one", "two", "three"]);
            format!("${}:{server}", &text[..8])
        } else {
            format!("${text}")
        }
    }

    /// A level, in one of the ways the version lets it be written.
    fn level(&mut self) -> Value {
        let level = self.pick(&LEVELS);
        if self.world.rules().integer_power_levels || !self.chance(10) {
            json!(level)
        } else {
            let sign = if level >= 0 && self.chance(50) {
                "+"
            } else {
                ""
            };
            json!(format!(" {sign}{level} "))
        }
    }

    fn ts(&mut self) -> i64 {
        // Mostly in order, often equal, sometimes far off.
        let now = i64::try_from(self.world.events.len()).unwrap() / 3;
        if self.chance(10) {
            self.dice.random_range(0..20)
        } else {
            now
        }
    }

    /// The room's first events: create, the creator's join, mostly power levels, a join rule.
    fn begin(&mut self) {
        let rules = self.world.rules();
        let mut create = json!({ "room_version": self.world.version.as_str() });
        if !rules.creator_is_sender {
            create["creator"] = json!(USERS[0]);
        }
        if rules.privileged_creators && self.chance(50) {
            create["additional_creators"] = json!([USERS[2]]);
        }
        if self.chance(5) {
            create["m.federate"] = json!(false);
        }
        self.state_event("m.room.create", "", USERS[0], create);
        self.state_event(
            "m.room.member",
            USERS[0],
            USERS[0],
            json!({ "membership": "join" }),
        );
        if self.chance(90) {
            let mut users = json!({ USERS[1]: self.level() });
            if !rules.privileged_creators {
                users[USERS[0]] = json!(100);
            }
            self.state_event(
                "m.room.power_levels",
                "",
                USERS[0],
                json!({ "users": users }),
            );
        }
        let rule = self.pick(&["public", "public", "invite", "knock", "restricted"]);
        self.state_event(
            "m.room.join_rules",
            "",
            USERS[0],
            json!({ "join_rule": rule }),
        );
        for user in [USERS[1], USERS[2]] {
            if rule == "public" {
                self.state_event("m.room.member", user, user, json!({ "membership": "join" }));
            }
        }
    }

    /// An event after the last one that is known to be allowed.
    fn state_event(&mut self, event_type: &str, state_key: &str, sender: &str, content: Value) {
        let last = self.world.events.last().map(|event| event.num);
        let mut state = last.map_or_else(State::new, |last| self.after[last as usize].clone());
        let draft = Draft {
            event_id: self.event_id(),
            event_type,
            state_key: Some(state_key),
            sender,
            content,
            ts: self.ts(),
            prev: last.into_iter().collect(),
            auth: Vec::new(),
        };
        let mut event = self.world.make(draft);
        event.auth = self.world.select(&event, &state);
        event.auth_ids = event
            .auth
            .iter()
            .map(|num| self.world.event(*num).event_id.clone())
            .collect();
        state.insert(event.key().unwrap(), event.num);
        self.world.add(event);
        self.after.push(state);
    }

    /// One event more: on the forward extremities, or somewhere in the past.
    fn step(&mut self, start: usize) -> Result<(), Differs> {
        let end = self.world.events.len();
        let first = u32::try_from(start - 1).unwrap();
        let mut prev = BTreeSet::new();
        for _ in 0..self.pick(&[1, 1, 1, 2, 2, 3, 4]) {
            let back = if self.chance(70) { 6 } else { 30 };
            let at = end.saturating_sub(1 + self.below(back));
            prev.insert(u32::try_from(at).unwrap().max(first));
        }
        let prev: Vec<Num> = prev.into_iter().collect();
        let before = self.merge(&prev)?;

        // Mostly judged by the state before it, sometimes by what an older server would think.
        let elsewhere = self.dice.random_range(start - 1..end);
        let judged_by = if self.chance(85) {
            before.clone()
        } else {
            self.after[elsewhere].clone()
        };
        let (event_type, state_key, sender, content) = self.deed(&judged_by);
        let draft = Draft {
            event_id: self.event_id(),
            event_type,
            state_key: state_key.as_deref(),
            sender,
            content,
            ts: self.ts(),
            prev,
            auth: Vec::new(),
        };
        let mut event = self.world.make(draft);
        event.auth = self.world.select(&event, &judged_by);
        event.auth_ids = event
            .auth
            .iter()
            .map(|num| self.world.event(*num).event_id.clone())
            .collect();

        let mut verdicts = Vec::new();
        for judges in [event.auth.clone(), self.world.select(&event, &before)] {
            let ours = self.world.allows(judges.iter().copied(), &event);
            let theirs = oracle::allows(&self.world, judges.iter().copied(), &event);
            if ours != theirs {
                return Err(Differs(format!(
                    "allowed: ours {ours}, oracle {theirs}, judged by {judges:?}\n{event:?}\n{}",
                    self.world.tell()
                )));
            }
            verdicts.push(ours);
        }
        if verdicts[0] && verdicts[1] {
            self.allowed += 1;
        } else {
            self.refused += 1;
        }
        if !verdicts[0] {
            // Refused by what it cites: no part of any graph.
            return Ok(());
        }
        let mut after = before;
        if verdicts[1]
            && let Some(key) = event.key()
        {
            after.insert(key, event.num);
        }
        // Some we rejected before we were told that they are in the state. (The oracle of v1 knows
        // nothing of that, and without a join rule the oracles differ.)
        let can_differ = event.event_type != "m.room.join_rules"
            && self.world.rules().state_resolution != StateResolution::V1;
        event.rejected = !verdicts[1] || can_differ && self.chance(4);
        self.world.add(event);
        self.after.push(after);
        Ok(())
    }

    /// The state after several events, by both implementations, from several bases.
    fn merge(&mut self, prev: &[Num]) -> Result<State, Differs> {
        let base = self.pick(&self.after.clone());
        let forks: Vec<&State> = prev.iter().map(|num| &self.after[*num as usize]).collect();
        let ours = self.world.resolve(forks[0], &forks);
        if forks.iter().all(|fork| *fork == forks[0]) {
            return Ok(ours);
        }
        self.merges += 1;
        let mut reversed = forks.clone();
        reversed.reverse();
        let from_elsewhere = self.world.resolve(&base, &reversed);
        let theirs = match self.world.rules().state_resolution {
            StateResolution::V1 => naive_v1::resolve(&self.world, &forks),
            StateResolution::V2 | StateResolution::V2_1 => oracle::resolve(&self.world, &forks),
        };
        for (name, other) in [
            ("oracle", &theirs),
            ("ours from another base", &from_elsewhere),
        ] {
            if ours != *other {
                return Err(Differs(format!(
                    "after {prev:?}:\nours {:#?}\n{name} {:#?}\n{}",
                    self.world.names(&ours),
                    self.world.names(other),
                    self.world.tell()
                )));
            }
        }
        Ok(ours)
    }

    /// What somebody does next.
    fn deed(&mut self, state: &State) -> (&'static str, Option<String>, &'static str, Value) {
        let sender = self.pick(&USERS);
        let target = self.pick(&USERS);
        let member = |target: &str, content: Value| {
            ("m.room.member", Some(target.to_owned()), sender, content)
        };
        match self.below(20) {
            0..4 => member(sender, self.join()),
            4 => member(sender, json!({ "membership": "leave" })),
            5 | 6 => member(target, json!({ "membership": "invite" })),
            7 => member(target, json!({ "membership": "leave" })),
            8 | 9 => member(target, json!({ "membership": "ban" })),
            10 => member(sender, json!({ "membership": "knock" })),
            11..14 => (
                "m.room.power_levels",
                Some(String::new()),
                sender,
                self.levels(state),
            ),
            14 | 15 => {
                let rules = [
                    "public",
                    "invite",
                    "knock",
                    "restricted",
                    "knock_restricted",
                    "private",
                ];
                let rule = self.pick(&rules);
                (
                    "m.room.join_rules",
                    Some(String::new()),
                    sender,
                    json!({ "join_rule": rule }),
                )
            }
            16 => {
                let event_type = self.pick(&["m.room.aliases", "org.example.mine"]);
                let key = self.pick(&["one", "two", target]);
                (event_type, Some(key.to_owned()), sender, json!({}))
            }
            17 => {
                let redacts = self.pick(&self.world.events.clone()).event_id;
                (
                    "m.room.redaction",
                    None,
                    sender,
                    json!({ "redacts": redacts }),
                )
            }
            18 => ("m.room.message", None, sender, json!({ "body": "" })),
            _ => (
                "m.room.topic",
                Some(String::new()),
                sender,
                json!({ "topic": "" }),
            ),
        }
    }

    fn join(&mut self) -> Value {
        let mut content = json!({ "membership": "join" });
        if self.chance(30) {
            content["join_authorised_via_users_server"] = json!(self.pick(&USERS));
        }
        content
    }

    /// The present power levels with a few changes.
    fn levels(&mut self, state: &State) -> Value {
        let key = ("m.room.power_levels".to_owned(), String::new());
        let current = state
            .get(&key)
            .map(|num| self.world.event(*num).content.get());
        let mut levels: Value = current.map_or_else(
            || json!({}),
            |content| serde_json::from_str(content).unwrap(),
        );
        for _ in 0..self.pick(&[1, 1, 2, 3]) {
            let (map, key) = match self.below(8) {
                0..4 => ("users", self.pick(&USERS)),
                4 => (
                    "events",
                    self.pick(&["m.room.topic", "m.room.power_levels", "m.room.message"]),
                ),
                5 => ("notifications", "room"),
                _ => {
                    let fields = [
                        "users_default",
                        "events_default",
                        "state_default",
                        "ban",
                        "redact",
                        "kick",
                        "invite",
                    ];
                    let field = self.pick(&fields);
                    if self.chance(20) {
                        levels.as_object_mut().unwrap().remove(field);
                    } else {
                        levels[field] = self.level();
                    }
                    continue;
                }
            };
            if self.chance(15) {
                if let Some(map) = levels.get_mut(map).and_then(Value::as_object_mut) {
                    map.remove(key);
                }
            } else {
                levels[map][key] = self.level();
            }
        }
        levels
    }
}
