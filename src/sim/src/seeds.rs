//! Seeds (docs/architecture.md, What proves it; laws 1, 3, 4 and 7; R12.1).
//!
//! `COMITY_SIM_SEED=n` replays one and prints its story; `COMITY_SIM_SEEDS=n` runs so many.

use crate::{life, story::Story, world::World};

/// A simulation: how many worlds CI affords, and how each runs.
pub(crate) struct Runs {
    pub seeds: u64,
    /// Every so manieth seed is run twice, and is one story.
    pub twice: u64,
    /// Runs a seed to its end. The story is told also when it ends badly.
    pub run: fn(u64) -> (Story, Result<(), String>),
}

/// One server: what a minute of CI affords.
const RUNS: Runs = Runs {
    seeds: 40,
    twice: 1,
    run,
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

fn run(seed: u64) -> (Story, Result<(), String>) {
    let mut world = World::new(seed);
    let outcome = life::all(&mut world);
    (world.story.take(), outcome)
}

impl Runs {
    fn check(&self, seed: u64, twice: bool) -> (Story, Result<(), String>) {
        let (story, mut outcome) = (self.run)(seed);
        if twice
            && outcome.is_ok()
            && let Some((at, one, two)) = story.parts_from(&(self.run)(seed).0)
        {
            outcome = Err(format!("two runs part at line {at}:\n{one}\n{two}"));
        }
        (story, outcome)
    }
}

/// Every fourth seed from this one on: four tests, so that all cores have their share.
pub(crate) fn quarter(runs: &Runs, first: u64) {
    if let Some(seed) = number("COMITY_SIM_SEED") {
        if seed % 4 == first {
            let (story, outcome) = runs.check(seed, true);
            story.lines().iter().for_each(|line| println!("{line}"));
            outcome.unwrap();
        }
        return;
    }
    let seeds = number("COMITY_SIM_SEEDS").unwrap_or(runs.seeds);
    let mut failed = Vec::new();
    for (count, seed) in (0..).zip((first..seeds).step_by(4)) {
        let (story, outcome) = runs.check(seed, count % runs.twice == 0);
        if let Err(why) = outcome {
            // The end of the first one's story says most; of the others, what was wrong.
            let from = story.lines().len().saturating_sub(80);
            let told = if failed.is_empty() { from } else { usize::MAX };
            let lines = story.lines().get(told..).unwrap_or_default();
            lines.iter().for_each(|line| eprintln!("{line}"));
            eprintln!("seed {seed}: {why}");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "seeds {failed:?}: COMITY_SIM_SEED=n replays one"
    );
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_1() {
    quarter(&RUNS, 0);
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_2() {
    quarter(&RUNS, 1);
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_3() {
    quarter(&RUNS, 2);
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_4() {
    quarter(&RUNS, 3);
}
