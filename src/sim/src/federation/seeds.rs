//! Worlds by seed (docs/architecture.md, What proves it; laws 6 and 7; R5, E3).

use super::storm;
use crate::seeds::{Runs, quarter};

/// Memberships stay as they were: what CI affords of it.
const SETTLED: Runs = Runs {
    seeds: 40,
    twice: 20,
    run: storm::settled,
};

/// Memberships change too.
const MOVING: Runs = Runs {
    seeds: 40,
    run: storm::moving,
    ..SETTLED
};

#[test]
fn what_was_apart_comes_together_1() {
    quarter(&SETTLED, 0);
}

#[test]
fn what_was_apart_comes_together_2() {
    quarter(&SETTLED, 1);
}

#[test]
fn what_was_apart_comes_together_3() {
    quarter(&SETTLED, 2);
}

#[test]
fn what_was_apart_comes_together_4() {
    quarter(&SETTLED, 3);
}

#[test]
fn whoever_comes_and_goes_1() {
    quarter(&MOVING, 0);
}

#[test]
fn whoever_comes_and_goes_2() {
    quarter(&MOVING, 1);
}

#[test]
fn whoever_comes_and_goes_3() {
    quarter(&MOVING, 2);
}

#[test]
fn whoever_comes_and_goes_4() {
    quarter(&MOVING, 3);
}
