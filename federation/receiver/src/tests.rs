//! What becomes of events while there is too much to do to check them.

use std::{sync::Arc, time::Duration};

use comity_federation_client::{Keyring, OwnKeys, Peers};
use comity_protocol::sign::SigningKey;
use comity_runtime::Pool;
use comity_testkit::{Federation, HostilePeer, Pdu, PeerRoom, User};
use http::Method;
use serde_json::{Value, json, value::RawValue};
use tokio::time::{sleep, timeout};

use crate::{Checks, Entering, Fetcher, Receiver, Transaction, TransactionError};

const HERE: &str = "here.test";
const MISSING: &str = "/_matrix/federation/v1/get_missing_events/";

/// A receiver that checks one lot of events at a time, and lets none wait for that.
pub(crate) struct World {
    _federation: Federation,
    alice: User,
    pub peer: HostilePeer,
    room: PeerRoom,
    pub receiver: Receiver,
    checks: Pool,
}

impl World {
    pub async fn new() -> Self {
        let federation = Federation::of([HERE]).await;
        let here = &federation[HERE];
        let alice = here.register("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let peer = HostilePeer::on(&federation.wire, "evil.test");
        let room = peer.join(here, &room, "mallory").await;
        let (rooms, tenant) = (here.api.rooms.clone(), here.api.rooms.tenant());
        let own = OwnKeys {
            key: Arc::new(SigningKey::from_seed("k", &[1; 32]).unwrap()),
            old: Vec::new(),
        };
        let (end, name) = (federation.wire.end(here.name()), here.name().to_owned());
        let peers = Peers::new(end, tenant, name, own.key.clone());
        let checks = tenant.runtime().pool("few checks", 1, 0);
        let fetcher = Fetcher {
            checks: Checks {
                keyring: Keyring::new(peers.clone(), tenant.clone(), &own, Vec::new()),
                pool: checks.clone(),
                at_once: 1,
            },
            peers,
            entering: Entering::default(),
        };
        let (accounts, keys) = (here.api.accounts.clone(), here.api.keys.clone());
        let to_device = here.api.to_device.clone();
        let receiver = Receiver::new(rooms, accounts, keys, to_device, fetcher);
        Self {
            _federation: federation,
            alice,
            peer,
            room,
            receiver,
            checks,
        }
    }

    fn say(&mut self, body: &str) -> Pdu {
        let content = json!({ "msgtype": "m.text", "body": body });
        let event = (self.peer).event(&self.room, "mallory", "m.room.message", None, content);
        self.room.went_on(&event);
        event
    }

    async fn send(&self, event: &Pdu) -> Result<String, TransactionError> {
        self.send_json(&event.json).await
    }

    pub async fn send_json(&self, event: &Value) -> Result<String, TransactionError> {
        let body = Transaction {
            pdus: vec![RawValue::from_string(event.to_string()).unwrap()],
            edus: Vec::new(),
        };
        let peer = &self.peer.name;
        self.receiver
            .transaction(peer, "always the same", body)
            .await
    }

    async fn sees(&self, body: &str) -> bool {
        let events = self.alice.messages(&self.room.id, 20).await;
        events.iter().any(|event| event["content"]["body"] == body)
    }
}

/// Law 11: a transaction whose events can't be looked at isn't answered, so that it comes again.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_is_sent_again() {
    let mut world = World::new().await;
    let event = world.say("news");
    let mut other_work = Box::pin(world.checks.run(|| ()));
    assert!(timeout(Duration::ZERO, &mut other_work).await.is_err());
    let answer = world.send(&event).await;
    assert!(matches!(answer, Err(TransactionError::Busy)), "{answer:?}");
    drop(other_work);
    let answer = world.send(&event).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["pdus"][&event.id], json!({}));
    sleep(Duration::from_secs(1)).await;
    assert!(world.sees("news").await);
}

/// An event that was acknowledged and waits is tried again as often as there was too much to do to look at it.
#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_looked_at_later() {
    let mut world = World::new().await;
    let missing = world.say("missing");
    let news = world.say("news");
    world.send(&news).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let pdu = missing.json.clone();
    let peer = &world.peer;
    peer.answer(Method::POST, MISSING, move |_| json!({ "events": [pdu] }));
    let mut other_work = Box::pin(world.checks.run(|| ()));
    assert!(timeout(Duration::ZERO, &mut other_work).await.is_err());
    sleep(Duration::from_secs(60 * 60)).await;
    assert!(!world.sees("news").await);
    drop(other_work);
    sleep(Duration::from_secs(3 * 60 * 60)).await;
    assert!(world.sees("news").await);
}
