//! `GET /_matrix/client/versions`: which versions of the specification clients may rely on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions>

use serde_json::{Value, json};

use crate::Json;

const VERSIONS: [&str; 20] = [
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

pub(super) async fn get() -> Json<Value> {
    // Drafts that clients look for here: sliding sync in the dialect of before it was accepted, messages to devices and keys in both;
    // account data that can be deleted, events chosen by how they relate to others, invites by who sends them.
    let unstable = json!({
        "org.matrix.simplified_msc3575": true,
        "org.matrix.msc4538": true,
        "org.matrix.msc4543": true,
        "org.matrix.msc3391": true,
        "org.matrix.msc3874": true,
        "org.matrix.msc4155": true,
    });
    Json(json!({ "versions": VERSIONS, "unstable_features": unstable }))
}
