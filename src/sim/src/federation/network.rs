//! What becomes of requests between servers: each pair has its distance, some worlds lose more than others.

use std::{collections::BTreeMap, time::Duration};

use comity_testkit::{Fate, Passing, encode};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::world::{Shared, Teller};
use crate::story::digest;

/// In good weather.
const NEAR: Duration = Duration::from_millis(5);

pub(crate) struct Network {
    rng: ChaCha8Rng,
    /// How long a request takes from one server to another, in milliseconds.
    distance: BTreeMap<(String, String), u64>,
    /// Of a thousand: requests that are lost, those whose answer is, those that take their time.
    lost: u32,
    unanswered: u32,
    late: u32,
    stormy: bool,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut some = || *[0, 0, 10, 50, 150].choose(&mut rng).unwrap();
        let (lost, unanswered, late) = (some(), some(), some());
        Self {
            rng,
            distance: BTreeMap::new(),
            lost,
            unanswered,
            late,
            stormy: false,
        }
    }

    /// The weather changes.
    pub fn set_stormy(&mut self, stormy: bool) {
        self.stormy = stormy;
    }

    pub fn fate(&mut self, passing: &Passing<'_>, teller: &Teller) -> Fate {
        let fate = self.decide(passing);
        let (request, body) = (passing.request, passing.request.body());
        let what = format!("{} {} {}", request.method(), request.uri(), digest(body));
        teller.tell(format!(
            "{} → {}: {what}: {fate:?}",
            passing.from, passing.to
        ));
        fate
    }

    fn decide(&mut self, passing: &Passing<'_>) -> Fate {
        if !self.stormy {
            return Fate::After(NEAR);
        }
        let pair = (passing.from.to_string(), passing.to.to_string());
        let Self { rng, distance, .. } = self;
        let distance = *distance
            .entry(pair)
            .or_insert_with(|| *[1, 5, 20, 80, 300].choose(rng).unwrap());
        let dice = self.rng.random_range(0..1_000);
        if dice < self.lost {
            Fate::Lost
        } else if dice < self.lost + self.unanswered {
            Fate::AnswerLost
        } else if dice < self.lost + self.unanswered + self.late {
            Fate::After(Duration::from_millis(self.rng.random_range(500..15_000)))
        } else {
            Fate::After(Duration::from_millis(distance))
        }
    }
}

/// Partitions come and go, while users do a few things each.
pub(crate) async fn partitions(world: &Shared, pace: Duration) {
    loop {
        let wait = pace * world.borrow_mut().rng.random_range(1..6);
        tokio::time::sleep(wait).await;
        let mut world = world.borrow_mut();
        let names: Vec<String> = world.servers.iter().map(|one| one.name.clone()).collect();
        let dice = world.rng.random_range(0..10);
        let mut two = names.sample(&mut world.rng, 2);
        let (one, other) = (two.next().unwrap(), two.next().unwrap());
        match dice {
            0..3 => {
                world.wire.heal();
                world.teller.tell("the network is whole");
            }
            3 | 4 => {
                world.wire.cut_one_way(one, other);
                world.teller.tell(format!("cut: {one} → {other}"));
            }
            5 | 6 => {
                world.wire.cut(one, other);
                world.teller.tell(format!("cut: {one} ↔ {other}"));
            }
            7 => {
                for other in names.iter().filter(|other| *other != one) {
                    world.wire.cut(one, other);
                }
                world.teller.tell(format!("cut: {one} from all"));
            }
            _ => {
                let side: u64 = world.rng.random();
                let (here, there): (Vec<_>, Vec<_>) =
                    (0..).zip(&names).partition(|(at, _)| side >> at & 1 == 0);
                for (_, here) in &here {
                    there
                        .iter()
                        .for_each(|(_, there)| world.wire.cut(here, there));
                }
                let here: Vec<_> = here.iter().map(|(_, name)| name).collect();
                world.teller.tell(format!("cut: {here:?} from the others"));
            }
        }
    }
}

/// A path below a room's.
pub(crate) fn room_path(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}/{rest}", encode(room))
}
