//! Bad input and the answer it must get, row by row: threats of events (A), of disclosure (E) and of limits and sign-in (G) as far
//! as a request can bring them. Each test is named after its row. What other servers can bring is tested with federation.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod disclosure;
mod events;
mod limits;
mod rooms;

use comity_testkit::{Server, User};
use serde_json::json;

const V3: &str = "/_matrix/client/v3";
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// A user alone in a room.
async fn alone() -> (Server, User, String) {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    (server, alice, room)
}
