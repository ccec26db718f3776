//! Rules and resolution against their oracles over random rooms, 10,000 seeds.
//!
//! `COMITY_SEED=n` plays one seed and tells its room; a difference names its seed.

use comity_protocol::room_version::RoomVersion;

use crate::story::{Differs, Story};

/// Seeds in all, spread over the tests below so that they share the cores.
const SEEDS: u64 = 10_000;
const TESTS: u64 = 4;

/// Every third room is of version 1, a third resolves by v2, a third by v2.1.
fn version(seed: u64) -> RoomVersion {
    use RoomVersion::*;
    const BY_V2: [RoomVersion; 10] = [V2, V3, V4, V5, V6, V7, V8, V9, V10, V11];
    match seed % 3 {
        0 => V1,
        1 => V12,
        _ => BY_V2[usize::try_from(seed / 3).unwrap() % BY_V2.len()],
    }
}

fn play(part: u64) {
    if let Ok(seed) = std::env::var("COMITY_SEED") {
        let seed: u64 = seed.parse().expect("COMITY_SEED is a number");
        if seed % TESTS == part {
            match Story::play(seed, version(seed)) {
                Ok(story) => println!("{}", story.world.tell()),
                Err(Differs(story)) => panic!("seed {seed}: {story}"),
            }
        }
        return;
    }
    let (mut merges, mut allowed, mut refused) = (0, 0, 0);
    for seed in (part..SEEDS).step_by(usize::try_from(TESTS).unwrap()) {
        match Story::play(seed, version(seed)) {
            Ok(story) => {
                merges += story.merges;
                allowed += story.allowed;
                refused += story.refused;
            }
            Err(Differs(story)) => panic!("replay with COMITY_SEED={seed}\n{story}"),
        }
    }
    println!("{merges} merges, {allowed} events allowed, {refused} refused");
    let rooms = usize::try_from(SEEDS / TESTS).unwrap();
    assert!(
        merges > 3 * rooms && allowed > 3 * rooms && refused > 3 * rooms,
        "the stories are dull"
    );
}

/// Threats D1, D4: part of the seeds.
#[test]
fn random_rooms_resolve_as_the_oracle_has_it_1() {
    play(0);
}

/// As the first.
#[test]
fn random_rooms_resolve_as_the_oracle_has_it_2() {
    play(1);
}

/// As the first.
#[test]
fn random_rooms_resolve_as_the_oracle_has_it_3() {
    play(2);
}

/// As the first.
#[test]
fn random_rooms_resolve_as_the_oracle_has_it_4() {
    play(3);
}
