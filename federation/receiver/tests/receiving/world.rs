//! A server with a user in a room, and a peer that has joined it.

use comity_testkit::{Federation, HostilePeer, Pdu, PeerRoom, Server, User, encode};
use serde_json::{Value, json};

pub const HERE: &str = "here.test";
pub const PEER: &str = "evil.test";

pub struct World {
    pub federation: Federation,
    pub peer: HostilePeer,
    pub alice: User,
    pub room: PeerRoom,
    serial: u32,
}

impl World {
    /// A public room of this version, which `@mallory` of the peer has joined.
    pub async fn new(version: &str) -> Self {
        Self::with(version, json!({})).await
    }

    /// The same, with power levels that differ so from the usual ones.
    pub async fn with(version: &str, levels: Value) -> Self {
        let federation = Federation::of([HERE]).await;
        let alice = federation[HERE].register("alice").await;
        let room = json!({
            "preset": "public_chat", "room_version": version,
            "power_level_content_override": levels,
        });
        let room = alice.create_room(room).await;
        Self::around(federation, alice, &room).await
    }

    /// The same with a room of that user's.
    pub async fn around(federation: Federation, alice: User, room: &str) -> Self {
        let peer = HostilePeer::on(&federation.wire, PEER);
        let room = peer.join(&federation[HERE], room, "mallory").await;
        Self {
            federation,
            peer,
            alice,
            room,
            serial: 0,
        }
    }

    pub fn here(&self) -> &Server {
        &self.federation[HERE]
    }

    /// A message of `@mallory` that follows the room's last event.
    pub fn message(&self, body: &str) -> Pdu {
        let content = json!({ "msgtype": "m.text", "body": body });
        self.peer
            .event(&self.room, "mallory", "m.room.message", None, content)
    }

    /// The next message of `@mallory`, which isn't sent.
    pub fn say(&mut self, body: &str) -> Pdu {
        let event = self.message(body);
        self.room.went_on(&event);
        event
    }

    /// A chain of messages that nobody was sent.
    pub fn unsent(&mut self, count: usize) -> Vec<Pdu> {
        (0..count)
            .map(|at| self.say(&format!("unsent {at}")))
            .collect()
    }

    /// Sends a transaction; what is told of its events.
    pub async fn send(&mut self, pdus: &[&Pdu]) -> Value {
        let pdus: Vec<&Value> = pdus.iter().map(|pdu| &pdu.json).collect();
        self.transaction(&pdus, &[]).await
    }

    /// Sends a transaction of what may be no events at all, byte by byte; what is told of them.
    pub async fn send_texts(&mut self, pdus: &[&str]) -> Value {
        self.serial += 1;
        let path = format!("/_matrix/federation/v1/send/txn{}", self.serial);
        let pdus = pdus.join(",");
        let body = format!(r#"{{"origin":"{PEER}","origin_server_ts":1,"pdus":[{pdus}]}}"#);
        let request = self.peer.to(self.here()).put(path);
        let answer = request.body(body, "application/json").send().await;
        answer.ok()["pdus"].clone()
    }

    pub async fn edus(&mut self, edus: &[Value]) {
        self.transaction(&[], edus).await;
    }

    pub async fn transaction(&mut self, pdus: &[&Value], edus: &[Value]) -> Value {
        self.serial += 1;
        let txn = format!("txn{}", self.serial);
        self.transaction_as(&txn, pdus, edus).await
    }

    pub async fn transaction_as(&self, txn: &str, pdus: &[&Value], edus: &[Value]) -> Value {
        let body = json!({
            "origin": PEER, "origin_server_ts": 1, "pdus": pdus, "edus": edus,
        });
        let path = format!("/_matrix/federation/v1/send/{txn}");
        let answer = self.peer.to(self.here()).put(path).json(body).send().await;
        answer.ok()["pdus"].clone()
    }

    /// Sends a message and waits until our user sees it; what came before it has been judged then.
    pub async fn settle(&mut self) {
        let event = self.say("settled");
        assert_eq!(self.send(&[&event]).await[&event.id], json!({}));
        self.sees(&event.id).await;
    }

    /// Waits until our user sees an event.
    pub async fn sees(&self, event_id: &str) {
        let mut since: Option<String> = None;
        for _ in 0..100 {
            let request = self.alice.sync_request(since.as_deref());
            let answer = request.query("timeout", "30000").send().await.ok();
            let timeline = &answer["rooms"]["join"][&self.room.id]["timeline"]["events"];
            let mut events = timeline.as_array().into_iter().flatten();
            if events.any(|event| event["event_id"] == event_id) {
                return;
            }
            since = answer["next_batch"].as_str().map(str::to_owned);
        }
        panic!("{event_id} is not seen");
    }

    /// The texts that our user sees, in their order.
    pub async fn texts(&self) -> Vec<String> {
        let events = self.alice.messages(&self.room.id, 100).await;
        let texts = events.iter().rev().filter_map(|event| {
            let text = event["content"]["body"].as_str()?;
            Some(text.to_owned())
        });
        texts.collect()
    }

    /// Whether our user can look at an event.
    pub async fn shows(&self, event_id: &str) -> bool {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/event/{}",
            encode(&self.room.id),
            encode(event_id)
        );
        self.alice.get(path).send().await.status == 200
    }
}
