//! Two servers, a user on each, and what these ask for.

use comity_testkit::{Federation, User, encode};
use serde_json::{Value, json};

pub const ONE: &str = "one.test";
pub const TWO: &str = "two.test";
pub const VERSIONS: [&str; 4] = ["6", "10", "11", "12"];

pub struct Pair {
    pub federation: Federation,
    /// Of the first server.
    pub alice: User,
    /// Of the second.
    pub bob: User,
}

impl Pair {
    pub async fn new() -> Self {
        let federation = Federation::of([ONE, TWO]).await;
        let alice = federation[ONE].register("alice").await;
        let bob = federation[TWO].register("bob").await;
        Self {
            federation,
            alice,
            bob,
        }
    }

    /// A room of our first user.
    pub async fn room(&self, preset: &str, version: &str) -> String {
        let room = json!({ "preset": preset, "room_version": version, "name": "A room" });
        self.alice.create_room(room).await
    }

    /// A room of our first user with this join rule.
    pub async fn room_with(&self, version: &str, join_rules: Value) -> String {
        let rules = json!({ "type": "m.room.join_rules", "content": join_rules });
        let room = json!({
            "preset": "private_chat", "room_version": version, "initial_state": [rules],
        });
        self.alice.create_room(room).await
    }
}

/// The status of a user's attempt to join by way of these servers, and the answer.
pub async fn join(user: &User, room: &str, via: &[&str]) -> (u16, Value) {
    enter(user, "join", room, via).await
}

/// The same of a knock.
pub async fn knock(user: &User, room: &str, via: &[&str]) -> (u16, Value) {
    enter(user, "knock", room, via).await
}

async fn enter(user: &User, how: &str, room: &str, via: &[&str]) -> (u16, Value) {
    let mut request = user.post(format!("/_matrix/client/v3/{how}/{}", encode(room)));
    for server in via {
        request = request.query("via", server);
    }
    let answer = request.json(json!({})).send().await;
    (answer.status.as_u16(), answer.body)
}

/// A user's membership in a room, as another user sees it.
pub async fn membership(seer: &User, room: &str, user: &User) -> String {
    let content = seer.state(room, "m.room.member", &user.id).await;
    content["membership"].as_str().unwrap().to_owned()
}

/// What a sync from nothing says of a room under `kind` (`join`, `invite`, `knock`, `leave`).
pub async fn synced(user: &User, kind: &str, room: &str) -> Option<Value> {
    let answer = user.sync(None).await;
    answer["rooms"][kind].get(room).cloned()
}
