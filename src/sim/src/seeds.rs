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

#[test]
fn what_was_acknowledged_survives_and_every_seed_is_one_story() {
    if let Some(seed) = number("COMITY_SIM_SEED") {
        let (story, outcome) = twice(seed);
        story.lines().iter().for_each(|line| println!("{line}"));
        outcome.unwrap();
        return;
    }
    let mut lines = 0;
    for seed in 0..number("COMITY_SIM_SEEDS").unwrap_or(SEEDS) {
        let (story, outcome) = twice(seed);
        lines += story.lines().len();
        if let Err(why) = outcome {
            let from = story.lines().len().saturating_sub(60);
            let lines = &story.lines()[from..];
            lines.iter().for_each(|line| eprintln!("{line}"));
            panic!("seed {seed}: {why}\nCOMITY_SIM_SEED={seed} replays it");
        }
    }
    println!("{lines} lines of story");
}
