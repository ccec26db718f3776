//! Every target over its corpus and over alterations of it by seed, so that none rots; libFuzzer digs deeper
//! (issue of every decoder: threats.md G, docs/architecture.md, What proves it).
//!
//! `COMITY_FUZZ_ROUNDS=n` alters more often.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{collections::BTreeSet, fs, path::Path};

use comity_fuzz::{RECORDS, TARGETS, parts, reads, tables};
use comity_storage::Registered;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// Alterations a target: a few seconds of CI for all of them.
const ROUNDS: usize = 3_000;

/// What decoders stumble over.
const MORSELS: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x7f",
    b"\x80",
    b"\xc3\x28",
    b"\\u0000",
    b"\\ud800",
    b"9007199254740992",
    b"-0",
    b"1e400",
    b"[[[[[[[[[[[[[[[[",
    b"{\"\":",
    b"*?*?*?*?",
    b":",
    b"\n",
];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder().join(target))
        .unwrap_or_else(|why| panic!("{target} has no corpus: {why}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A few cuts, flips, repeats and foreign pieces.
fn altered(rng: &mut ChaCha8Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus.choose(rng).unwrap().clone();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(0..9)).min(bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..end, MORSELS.choose(rng).unwrap().iter().copied())),
            4 => {
                let piece = bytes[at..end].repeat(rng.random_range(1..40));
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = corpus.choose(rng).unwrap();
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

#[test]
fn every_decoder_keeps_its_promise() {
    let rounds = std::env::var("COMITY_FUZZ_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        corpus.iter().for_each(|bytes| target(bytes));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for round in 0..rounds {
            let bytes = altered(&mut rng, &corpus);
            let kept = std::panic::catch_unwind(|| target(&bytes));
            assert!(
                kept.is_ok(),
                "{name}, round {round}: \"{}\"",
                bytes.escape_ascii()
            );
        }
    }
}

/// No table is left out: each has a row in the corpus that it reads, so that what alters rows reaches its decoder.
#[test]
fn every_table_has_a_row() {
    let rows = corpus("row");
    let reads = |table: &Registered| {
        rows.iter().any(|row| {
            let (tag, key, value) = parts(row).unwrap();
            tag == table.tag && (table.slot)(key).is_ok() && (table.pos)(value).is_ok()
        })
    };
    let tables = tables();
    let without: Vec<String> = tables
        .iter()
        .filter(|table| !reads(table))
        .map(|table| format!("{} ({})", table.name, table.tag.escape_ascii()))
        .collect();
    assert!(
        without.is_empty(),
        "tables without a row in corpus/row that they read (its form: `comity_fuzz::parts`): {without:#?}"
    );
}

/// Nor is a record with a body.
#[test]
fn every_record_has_a_row() {
    let rows = corpus("record");
    for (kind, _) in RECORDS {
        let of_it = |row: &&Vec<u8>| row.starts_with(&kind.to_be_bytes());
        let mut of_it = rows.iter().filter(of_it).peekable();
        assert!(
            of_it.peek().is_some(),
            "no record of kind {kind:04x} in corpus/record"
        );
        assert!(
            of_it.all(|row| reads(row)),
            "{kind:04x} in corpus/record can't be read"
        );
    }
}

/// libFuzzer has a binary a target, and no corpus belongs to none.
#[test]
fn every_target_is_everywhere() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = fs::read_to_string(folder().with_file_name("libfuzzer/Cargo.toml")).unwrap();
    let binaries = manifest.split("[[bin]]\nname = \"").skip(1);
    let binaries: BTreeSet<_> = binaries
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(binaries, targets);
    let corpora = fs::read_dir(folder()).unwrap();
    let corpora: BTreeSet<_> = corpora
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(corpora, targets);
}
