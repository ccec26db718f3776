//! Sliding sync, in both dialects: windows into the user's rooms, what is told of each, connections and their positions, extensions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod connections;
mod extensions;
mod room;
mod threads;
mod v4;
mod windows;

use comity_testkit::User;
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// A client's connection, which goes on from answer to answer.
struct Connection<'a> {
    user: &'a User,
    pos: Option<String>,
}

impl<'a> Connection<'a> {
    fn of(user: &'a User) -> Self {
        Self { user, pos: None }
    }

    async fn ask(&mut self, body: Value) -> Value {
        self.wait(body, 0).await
    }

    async fn wait(&mut self, body: Value, timeout: u64) -> Value {
        let answer = slide(self.user, self.pos.as_deref(), body, timeout).await;
        self.pos = Some(text(&answer["pos"]));
        answer
    }
}

async fn slide(user: &User, pos: Option<&str>, body: Value, timeout: u64) -> Value {
    let mut request = user.post(SLIDING).query("timeout", &timeout.to_string());
    if let Some(pos) = pos {
        request = request.query("pos", pos);
    }
    request.json(body).send().await.ok()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A list of the first rooms, with this much of each.
fn list(last: usize, limit: usize, required: Value) -> Value {
    json!({ "ranges": [[0, last]], "timeline_limit": limit, "required_state": required })
}

fn lists(list: Value) -> Value {
    json!({ "lists": { "all": list } })
}

fn rooms(answer: &Value) -> Vec<String> {
    answer["rooms"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

fn bodies(room: &Value) -> Vec<String> {
    let events = room["timeline"].as_array().into_iter().flatten();
    let bodies = events.filter_map(|event| event["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

fn state(room: &Value) -> Vec<(String, String)> {
    let events = room["required_state"].as_array().into_iter().flatten();
    let mut state: Vec<_> = events
        .map(|event| (text(&event["type"]), text(&event["state_key"])))
        .collect();
    state.sort();
    state
}

async fn named(user: &User, name: &str) -> String {
    user.create_room(json!({ "preset": "public_chat", "name": name }))
        .await
}

fn extension(name: &str, mut config: Value) -> Value {
    config["enabled"] = json!(true);
    let mut wanted = lists(list(9, 1, json!([])));
    wanted["extensions"][name] = config;
    wanted
}
