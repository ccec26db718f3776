//! Seeds, each run twice (docs/architecture.md, What proves it; laws 1, 3, 4 and 7; R12.1).
//!
//! `COMITY_SIM_SEED=n` replays one and prints its story; `COMITY_SIM_SEEDS=n` runs so many.

use crate::{life, story::Story, world::World};

/// What a minute of CI affords.
const SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

/// Runs a seed to its end. The story is told also when it ends badly.
fn run(seed: u64) -> (Story, Result<(), String>) {
    let mut world = World::new(seed);
    let outcome = life::all(&mut world);
    (world.story.take(), outcome)
}

fn twice(seed: u64) -> (Story, Result<(), String>) {
    let (story, outcome) = run(seed);
    let outcome = outcome.and_then(|()| match story.parts_from(&run(seed).0) {
        Some((at, one, two)) => Err(format!("two runs part at line {at}:\n{one}\n{two}")),
        None => Ok(()),
    });
    (story, outcome)
}

/// Every fourth seed from this one on: four tests, so that all cores have their share.
fn quarter(first: u64) {
    if let Some(seed) = number("COMITY_SIM_SEED") {
        if seed % 4 == first {
            let (story, outcome) = twice(seed);
            story.lines().iter().for_each(|line| println!("{line}"));
            outcome.unwrap();
        }
        return;
    }
    let seeds = number("COMITY_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in (first..seeds).step_by(4) {
        let (story, outcome) = twice(seed);
        if let Err(why) = outcome {
            let from = story.lines().len().saturating_sub(60);
            let lines = &story.lines()[from..];
            lines.iter().for_each(|line| eprintln!("{line}"));
            panic!("seed {seed}: {why}\nCOMITY_SIM_SEED={seed} replays it");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_1() {
    quarter(0);
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_2() {
    quarter(1);
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_3() {
    quarter(2);
}

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story_4() {
    quarter(3);
}
