//! The arrows of `docs/architecture.md`: who may depend on whom. A new arrow is an argument there first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Our crates, lowest first, with those each may use in what it ships.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("runtime", &[]),
    ("storage", &["runtime"]),
    ("accounts", &["protocol", "runtime", "storage"]),
    ("federation-client", &["protocol", "runtime", "storage"]),
    ("media", &["protocol", "runtime", "storage"]),
    ("encryption-policy", &[]),
    (
        "rooms",
        &["encryption-policy", "protocol", "runtime", "storage"],
    ),
    ("key-backup", &["accounts", "protocol", "storage"]),
    ("succession", &["accounts", "protocol", "rooms", "storage"]),
    ("keys", &["accounts", "protocol", "runtime", "storage"]),
    ("to-device", &["accounts", "protocol", "storage"]),
    (
        "sync",
        &[
            "accounts",
            "keys",
            "protocol",
            "rooms",
            "runtime",
            "storage",
            "to-device",
        ],
    ),
    (
        "web",
        &[
            "accounts",
            "key-backup",
            "keys",
            "media",
            "protocol",
            "rooms",
            "storage",
            "succession",
            "sync",
            "to-device",
        ],
    ),
    (
        "client-api",
        &[
            "accounts",
            "encryption-policy",
            "key-backup",
            "keys",
            "media",
            "protocol",
            "rooms",
            "runtime",
            "storage",
            "succession",
            "sync",
            "to-device",
            "web",
        ],
    ),
    (
        "federation-sender",
        &[
            "accounts",
            "federation-client",
            "keys",
            "protocol",
            "rooms",
            "runtime",
            "storage",
            "to-device",
        ],
    ),
    (
        "federation-receiver",
        &[
            "accounts",
            "federation-client",
            "keys",
            "protocol",
            "rooms",
            "runtime",
            "storage",
            "to-device",
        ],
    ),
    (
        "federation-membership",
        &[
            "federation-client",
            "federation-receiver",
            "protocol",
            "rooms",
            "runtime",
            "storage",
        ],
    ),
    (
        "federation-media",
        &[
            "federation-client",
            "media",
            "protocol",
            "runtime",
            "storage",
        ],
    ),
    (
        "federation-server",
        &[
            "accounts",
            "federation-client",
            "federation-receiver",
            "federation-sender",
            "keys",
            "media",
            "protocol",
            "rooms",
            "web",
        ],
    ),
    (
        "house",
        &[
            "accounts",
            "client-api",
            "federation-client",
            "federation-media",
            "federation-membership",
            "federation-receiver",
            "federation-sender",
            "federation-server",
            "key-backup",
            "keys",
            "media",
            "protocol",
            "rooms",
            "storage",
            "succession",
            "sync",
            "to-device",
            "web",
        ],
    ),
    (
        "server",
        &[
            "accounts",
            "client-api",
            "encryption-policy",
            "federation-client",
            "federation-server",
            "house",
            "media",
            "protocol",
            "rooms",
            "runtime",
            "storage",
            "web",
        ],
    ),
    // Beside the house, never in it.
    ("testkit", &["*"]),
    ("sim", &["*"]),
    ("fuzz", &["*"]),
    // Knows any homeserver by its API alone, and makes other servers' events by the rules.
    ("bench", &["protocol"]),
];

/// What hides behind the names of one crate. Tests may use it anywhere, as oracle or peer.
const BEHIND: &[(&str, &[&str])] = &[
    ("rocksdb", &["storage"]),
    ("tokio-postgres", &["storage"]),
    ("ruma-common", &["protocol"]),
    ("ruma-events", &["protocol"]),
    ("hyper", &["server", "federation-client"]),
    ("hickory-resolver", &["federation-client"]),
    ("figment", &["server"]),
    ("rand_chacha", &["runtime", "sim", "bench"]),
];

/// Crate → (what it ships with, what only its tests use), our own names without the prefix.
fn dependencies() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let short = |name: &serde_json::Value| {
        let name = name.as_str().unwrap();
        name.strip_prefix("comity-").unwrap_or(name).to_owned()
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let (mut shipped, mut tests) = (BTreeSet::new(), BTreeSet::new());
            for dependency in package["dependencies"].as_array().unwrap() {
                let set = if dependency["kind"] == "dev" {
                    &mut tests
                } else {
                    &mut shipped
                };
                set.insert(short(&dependency["name"]));
            }
            (short(&package["name"]), (shipped, tests))
        })
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let dependencies = dependencies();
    let mut wrong = Vec::new();
    for (name, (shipped, tests)) in &dependencies {
        let Some(allowed) = arrows.get(name.as_str()) else {
            wrong.push(format!("{name} has no place in the architecture"));
            continue;
        };
        for other in shipped
            .iter()
            .filter(|other| dependencies.contains_key(*other))
        {
            if !allowed.contains(&"*") && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{name} → {other}"));
            }
        }
        // Tests may reach for the testkit as well, still not upwards.
        for other in tests
            .iter()
            .filter(|other| dependencies.contains_key(*other))
        {
            if !allowed.contains(&"*")
                && !allowed.contains(&other.as_str())
                && other != "testkit"
                && other != name
            {
                wrong.push(format!("{name} → {other} (tests)"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that docs/architecture.md does not allow: {wrong:#?}"
    );
}

#[test]
fn libraries_stay_behind_their_crate() {
    let dependencies = dependencies();
    for (library, homes) in BEHIND {
        for (name, (shipped, _)) in &dependencies {
            let beside = ["testkit", "sim", "fuzz", "bench"].contains(&name.as_str());
            assert!(
                !shipped.contains(*library) || homes.contains(&name.as_str()) || beside,
                "{name} uses {library}, which stays behind {homes:?}"
            );
        }
    }
}
