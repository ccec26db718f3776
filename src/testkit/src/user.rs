//! A registered user with a device, and the few requests that nearly every test makes, one line each.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::client::{Answer, Client, Request, encode};

const V3: &str = "/_matrix/client/v3";

/// A user on one device.
pub struct User {
    client: Client,
    /// The user's full id.
    pub id: String,
    /// The device's id.
    pub device: String,
    /// The device's access token.
    pub token: String,
    transactions: AtomicU32,
}

impl std::ops::Deref for User {
    type Target = Client;

    /// Requests with the user's token.
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Client {
    /// Registers a user, with the password `"secret of <name>"`.
    pub async fn register(&self, name: &str) -> User {
        let answer = self.post(format!("{V3}/register")).json(json!({
            "username": name,
            "password": password(name),
            "auth": {"type": "m.login.dummy"},
        }));
        self.user_of(answer.send().await)
    }

    /// Logs a user of [`register`](Self::register) in on another device.
    pub async fn login(&self, name: &str) -> User {
        let answer = self.post(format!("{V3}/login")).json(json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password(name),
        }));
        self.user_of(answer.send().await)
    }

    fn user_of(&self, answer: Answer) -> User {
        let body = answer.ok();
        let token = text(&body, "access_token");
        User {
            client: self.with_token(&token),
            id: text(&body, "user_id"),
            device: text(&body, "device_id"),
            token,
            transactions: AtomicU32::new(0),
        }
    }
}

/// The password of a user made by [`Client::register`].
#[must_use]
pub fn password(name: &str) -> String {
    format!("secret of {name}")
}

impl User {
    /// A transaction id this user hasn't used.
    pub fn transaction(&self) -> String {
        format!("t{}", self.transactions.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates a room from the body of `/createRoom`; its id.
    pub async fn create_room(&self, body: Value) -> String {
        let request = self.post(format!("{V3}/createRoom")).json(body);
        text(&request.send().await.ok(), "room_id")
    }

    /// Sends a text message; the event's id.
    pub async fn send(&self, room: &str, body: &str) -> String {
        let content = json!({"msgtype": "m.text", "body": body});
        self.send_event(room, "m.room.message", content).await
    }

    /// Sends an event; its id.
    pub async fn send_event(&self, room: &str, kind: &str, content: Value) -> String {
        let path = format!(
            "{}/send/{}/{}",
            room_path(room),
            encode(kind),
            self.transaction()
        );
        text(&self.put(path).json(content).send().await.ok(), "event_id")
    }

    /// Sets a piece of state; the event's id.
    pub async fn set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> String {
        let path = format!("{}/state/{}/{}", room_path(room), encode(kind), encode(key));
        text(&self.put(path).json(content).send().await.ok(), "event_id")
    }

    /// The content of a piece of state.
    pub async fn state(&self, room: &str, kind: &str, key: &str) -> Value {
        let path = format!("{}/state/{}/{}", room_path(room), encode(kind), encode(key));
        self.get(path).send().await.ok()
    }

    /// Redacts an event; the redaction's id.
    pub async fn redact(&self, room: &str, event: &str) -> String {
        let path = format!(
            "{}/redact/{}/{}",
            room_path(room),
            encode(event),
            self.transaction()
        );
        text(
            &self.put(path).json(json!({})).send().await.ok(),
            "event_id",
        )
    }

    /// Joins a room by id or alias; the room's id.
    pub async fn join(&self, room: &str) -> String {
        let request = self
            .post(format!("{V3}/join/{}", encode(room)))
            .json(json!({}));
        text(&request.send().await.ok(), "room_id")
    }

    /// Leaves a room, or rejects an invitation.
    pub async fn leave(&self, room: &str) {
        self.change_membership(room, "leave", json!({})).await;
    }

    /// Invites another user.
    pub async fn invite(&self, room: &str, user: &str) {
        self.change_membership(room, "invite", json!({"user_id": user}))
            .await;
    }

    /// Removes another user from a room.
    pub async fn kick(&self, room: &str, user: &str) {
        self.change_membership(room, "kick", json!({"user_id": user}))
            .await;
    }

    /// Bans another user from a room.
    pub async fn ban(&self, room: &str, user: &str) {
        self.change_membership(room, "ban", json!({"user_id": user}))
            .await;
    }

    async fn change_membership(&self, room: &str, change: &str, body: Value) {
        let path = format!("{}/{change}", room_path(room));
        let _: Value = self.post(path).json(body).send().await.ok();
    }

    /// The answer of `/sync` at once, from `since` or from nothing.
    pub async fn sync(&self, since: Option<&str>) -> Value {
        self.sync_request(since)
            .query("timeout", "0")
            .send()
            .await
            .ok()
    }

    /// A `/sync` to be completed, for a filter or a timeout.
    pub fn sync_request(&self, since: Option<&str>) -> Request {
        let request = self.get(format!("{V3}/sync"));
        match since {
            Some(since) => request.query("since", since),
            None => request,
        }
    }

    /// The events of `/messages` backwards from the newest, at most `limit`.
    pub async fn messages(&self, room: &str, limit: u32) -> Vec<Value> {
        let request = self.get(format!("{}/messages", room_path(room)));
        let request = request.query("dir", "b").query("limit", &limit.to_string());
        let mut body = request.send().await.ok();
        serde_json::from_value(body["chunk"].take()).expect("a chunk is an array")
    }
}

fn room_path(room: &str) -> String {
    format!("{V3}/rooms/{}", encode(room))
}

fn text(body: &Value, key: &str) -> String {
    let text = body[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {body}"))
        .to_owned()
}
