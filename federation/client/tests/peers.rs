//! What is asked of other servers, when, and what is believed of their keys.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use comity_federation_client::{
    Keyring, Limits, OwnKeys, PeerError, Peers, Transport, TransportError, tables::BackOffs,
};
use comity_protocol::{
    event::{EventBuilder, Limits as EventLimits, Reference, WellFormed},
    id::{EventId, RoomId, ServerName, UserId},
    room_version::RoomVersion,
    sign::{
        Authorization, KeyRing, KeyValidity, MAX_KEY_VALIDITY_MS, OldKey, PublishedKey, Request,
        SigningKey,
    },
};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Range, Store, Tenant, TenantId, engine::Memory};
use http::{Response, header::AUTHORIZATION};
use parking_lot::Mutex;
use serde_json::{Value, json, value::RawValue};

const LANES: [u8; 2] = [1, 4];
/// Centuries away.
const FAR: u64 = 9_000_000_000_000_000;

type Answer = Result<(u16, Value), TransportError>;
type Answers = Arc<dyn Fn(&ServerName, &http::Request<Bytes>) -> Answer + Send + Sync>;

/// Other servers: what they answer, and what they were asked.
#[derive(Clone)]
struct Net {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// How long they take.
    delay: Arc<Mutex<Duration>>,
}

impl Net {
    fn new(
        answers: impl Fn(&ServerName, &http::Request<Bytes>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let answers: Answers = Arc::new(answers);
        Self {
            answers: Arc::new(Mutex::new(answers)),
            asked: Arc::default(),
            delay: Arc::new(Mutex::new(Duration::from_millis(10))),
        }
    }

    fn answer(
        &self,
        answers: impl Fn(&ServerName, &http::Request<Bytes>) -> Answer + Send + Sync + 'static,
    ) {
        *self.answers.lock() = Arc::new(answers);
    }

    /// The requests since it was asked last.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }
}

#[async_trait]
impl Transport for Net {
    async fn send(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        _: Limits,
    ) -> Result<Response<Bytes>, TransportError> {
        let line = format!("{to} {} {}", request.method(), request.uri());
        self.asked.lock().push(line);
        // Whoever else wants to ask gets the chance to.
        let delay = *self.delay.lock();
        tokio::time::sleep(delay).await;
        let answers = self.answers.lock().clone();
        let (status, body) = answers(to, &request)?;
        let answer = Response::builder().status(status);
        Ok(answer.body(body.to_string().into()).unwrap())
    }
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed("k", &[1; 32]).unwrap())
}

fn server(name: &str) -> &ServerName {
    name.try_into().unwrap()
}

async fn tenant(disk: &Memory, lanes: u8) -> Tenant {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let store = Store::new(Engine::Memory(disk.clone()), options, Runtime::simulated(1));
    store.tenant(TenantId(1)).await.unwrap()
}

fn peers(net: &Net, tenant: &Tenant) -> Peers {
    let us = "us".try_into().unwrap();
    Peers::new(Arc::new(net.clone()), tenant, us, key())
}

async fn fresh(net: &Net, lanes: u8) -> (Peers, Tenant) {
    let tenant = tenant(&Memory::new(), lanes).await;
    (peers(net, &tenant), tenant)
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>
#[tokio::test(start_paused = true)]
async fn requests_are_signed_for_their_destination() {
    for lanes in LANES {
        let net = Net::new(|to, request| {
            let header = request.headers()[AUTHORIZATION].to_str().unwrap();
            let covered = Request {
                method: request.method().as_str(),
                uri: &request.uri().to_string(),
                body: request.body(),
            };
            let good = PublishedKey {
                key: key().verify_key(),
                validity: KeyValidity::Until(i64::MAX),
            };
            let read = Authorization::parse(header, to).unwrap();
            assert_eq!((read.origin(), read.key_id()), (server("us"), "ed25519:k"));
            read.check(to, covered, good, 0).unwrap();
            Ok((200, json!({ "auth_chain": [], "state": [], "pdus": [] })))
        });
        let (peers, _tenant) = fresh(&net, lanes).await;
        let room = RoomId::parse("!r/?:x").unwrap();
        let event = EventId::parse("$e:x").unwrap();
        let pdu = RawValue::from_string(r#"{ "b": 1.5, "a": "é" }"#.to_owned()).unwrap();
        let there = server("there:8448");
        peers
            .send_join(there, &room, &event, &pdu, true)
            .await
            .unwrap();
        peers
            .backfill(there, &room, std::slice::from_ref(&event), 5)
            .await
            .unwrap();
        assert_eq!(
            net.asked(),
            [
                "there:8448 PUT /_matrix/federation/v2/send_join/%21r%2F%3F%3Ax/%24e%3Ax?omit_members=true",
                "there:8448 GET /_matrix/federation/v1/backfill/%21r%2F%3F%3Ax?v=%24e%3Ax&limit=5",
            ]
        );
    }
}

/// Of one server no more than 32 things are asked at a time, and its keys all the same; what is asked
/// of others waits for none of it.
#[tokio::test(start_paused = true)]
async fn few_requests_to_a_server_at_a_time() {
    for lanes in LANES {
        let net = Net::new(|_, _| Ok((200, json!({ "pdus": [] }))));
        let (peers, _tenant) = fresh(&net, lanes).await;
        let room = RoomId::parse("!r:x").unwrap();
        let ask = |name: &'static str| peers.backfill(server(name), &room, &[], 1);
        let all = futures_util::future::join_all((0..100).map(|_| ask("busy")));
        let watch = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(net.asked().len(), 32);
            let _keys = peers.server_keys(server("busy")).await;
            ask("idle").await.unwrap();
            let asked = net.asked();
            assert!(asked.iter().any(|line| line.starts_with("idle ")));
            assert!(asked.iter().any(|line| line.contains("/_matrix/key/")));
        };
        let (answers, ()) = tokio::join!(all, watch);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(peers.backoff().until(server("busy")).await.unwrap(), None);
    }
}

/// A request's time begins when it goes out: a server that answers in time isn't left alone because others of ours went
/// before.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_takes_none_of_a_requests_time() {
    for lanes in LANES {
        let net = Net::new(|_, _| Ok((200, json!({ "pdus": [] }))));
        // Of a minute.
        *net.delay.lock() = Duration::from_secs(45);
        let (peers, _tenant) = fresh(&net, lanes).await;
        let room = RoomId::parse("!r:x").unwrap();
        let ask = |_| peers.backfill(server("busy"), &room, &[], 1);
        let answers = futures_util::future::join_all((0..33).map(ask)).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(peers.backoff().until(server("busy")).await.unwrap(), None);
    }
}

/// Servers that know only version 1 of an endpoint.
#[tokio::test(start_paused = true)]
async fn older_endpoints_are_tried_where_newer_ones_are_unknown() {
    for lanes in LANES {
        let net = Net::new(|_, request| {
            Ok(if request.uri().path().contains("/v2/") {
                (404, json!({ "errcode": "M_UNRECOGNIZED" }))
            } else {
                (200, json!([200, { "state": [], "auth_chain": [{}] }]))
            })
        });
        let (peers, _tenant) = fresh(&net, lanes).await;
        let (room, event) = (
            RoomId::parse("!r:x").unwrap(),
            EventId::parse("$e:x").unwrap(),
        );
        let pdu = RawValue::from_string("{}".to_owned()).unwrap();
        let old = server("old");
        let joined = peers
            .send_join(old, &room, &event, &pdu, false)
            .await
            .unwrap();
        assert_eq!(
            (joined.auth_chain.len(), joined.members_omitted),
            (1, false)
        );
        peers.send_leave(old, &room, &event, &pdu).await.unwrap();
        assert_eq!(net.asked().len(), 4);
        // A room that isn't there is no endpoint that isn't there.
        net.answer(|_, _| Ok((404, json!({ "errcode": "M_NOT_FOUND" }))));
        let refused = peers
            .send_leave(old, &room, &event, &pdu)
            .await
            .unwrap_err();
        assert_eq!(refused.refusal().unwrap().errcode, "M_NOT_FOUND");
        assert_eq!(net.asked().len(), 1);
    }
}

/// B7: we are no other server, and nobody has these names.
#[tokio::test(start_paused = true)]
async fn b7_names_that_are_not_asked() {
    for lanes in LANES {
        let net = Net::new(|_, _| panic!("asked"));
        let (peers, _tenant) = fresh(&net, lanes).await;
        for name in ["us", "there.", "a:0"] {
            let Ok(name) = <&ServerName>::try_from(name) else {
                continue;
            };
            assert!(
                matches!(peers.version(name).await, Err(PeerError::Name)),
                "{name}"
            );
        }
    }
}

/// B8: a server vouches for its own users only.
#[tokio::test(start_paused = true)]
async fn b8_openid_users_of_another_server() {
    for lanes in LANES {
        let net = Net::new(|_, _| Ok((200, json!({ "sub": "@u:there" }))));
        let (peers, _tenant) = fresh(&net, lanes).await;
        assert_eq!(
            peers.openid_user(server("there"), "t").await.unwrap(),
            "@u:there"
        );
        let lied = peers.openid_user(server("else"), "t").await;
        assert!(matches!(lied, Err(PeerError::Malformed)));
    }
}

/// A server that doesn't answer is asked ever less often, also after a restart; one that answers is
/// asked at once.
#[tokio::test(start_paused = true)]
async fn back_off_doubles_survives_and_ends() {
    for lanes in LANES {
        let disk = Memory::new();
        let net = Net::new(|_, _| Err(TransportError::Timeout));
        let there = server("there");
        let before = tenant(&disk, lanes).await;
        let first = peers(&net, &before);
        let mut tried = 0;
        // Most of an hour of one try a second.
        for _ in 0..3000 {
            let said = first.version(there).await;
            tried += usize::from(!matches!(said, Err(PeerError::BackingOff)));
            after(1).await;
        }
        assert!((8..=14).contains(&tried), "{tried}");
        assert_eq!(net.asked().len(), tried);
        // In the midst of a wait.
        while first.backoff().until(there).await.unwrap().is_none() {
            drop(first.version(there).await);
        }
        let until = first.backoff().until(there).await.unwrap();
        let row = first.backoff().failing_since(there).await.unwrap();
        // The row is durable with the next commit of its lane.
        drop(first.version(server("else")).await);
        after(1).await;

        let again = tenant(&disk.crash(), lanes).await;
        let second = peers(&net, &again);
        assert_eq!(second.backoff().until(there).await.unwrap(), until);
        assert_eq!(second.backoff().failing_since(there).await.unwrap(), row);
        net.answer(|_, _| Ok((200, json!({}))));
        assert!(matches!(
            second.version(there).await,
            Err(PeerError::BackingOff)
        ));
        // It spoke to us.
        assert!(second.backoff().answered(there).await.unwrap());
        second.version(there).await.unwrap();
        assert_eq!(second.backoff().failing_since(there).await.unwrap(), None);
        assert!(!second.backoff().answered(there).await.unwrap());
    }
}

/// Law 11: of a name that nobody has wanted to ask for a month nothing is kept; who is asked whenever its wait is over stays.
#[tokio::test(start_paused = true)]
async fn who_is_not_wanted_is_forgotten() {
    for lanes in LANES {
        let net = Net::new(|_, _| Err(TransportError::Timeout));
        let (peers, tenant) = fresh(&net, lanes).await;
        let rows = async || {
            let reader = tenant.reader();
            let rows = reader.scan::<BackOffs>(Range::everywhere(|_| {}));
            rows.await.unwrap().len()
        };
        let since = async |name| peers.backoff().failing_since(server(name)).await.unwrap();
        for n in 0..20 {
            drop(peers.version(server(&format!("x{n}"))).await);
        }
        for _ in 0..31 {
            drop(peers.version(server("x0")).await);
            after(24 * 60 * 60).await;
        }
        assert_eq!(rows().await, 20);
        peers.backoff().tend().await.unwrap();
        assert_eq!(rows().await, 1);
        assert!(since("x0").await.is_some());
        assert_eq!(since("x1").await, None);
    }
}

/// A server whose answer is too long answers: the next, and whatever else is asked of it, isn't held up by that.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_is_one() {
    for lanes in LANES {
        let net = Net::new(|_, _| Err(TransportError::TooLarge));
        let (peers, _tenant) = fresh(&net, lanes).await;
        let there = server("there");
        assert!(peers.version(there).await.is_err());
        let wait = Duration::from_secs(20);
        assert!(peers.media(there, "film", wait, 1_000).await.is_err());
        assert!(
            peers
                .media_of_old(there, "film", wait, 1_000)
                .await
                .is_err()
        );
        assert_eq!(peers.backoff().until(there).await.unwrap(), None);
        net.answer(|_, _| Err(TransportError::Timeout));
        assert!(peers.media(there, "film", wait, 1_000).await.is_err());
        assert!(peers.backoff().until(there).await.unwrap().is_some());
    }
}

/// Who waits for an answer tries once within a wait, which that failure doesn't prolong.
#[tokio::test(start_paused = true)]
async fn urgent_requests_try_once_within_a_wait() {
    for lanes in LANES {
        let net = Net::new(|_, _| Ok((502, json!({}))));
        let (peers, _tenant) = fresh(&net, lanes).await;
        let there = server("there");
        for status in [502, 429] {
            net.answer(move |_, _| Ok((status, json!({}))));
            after(10_000).await;
            assert!(peers.version(there).await.is_err());
            let until = peers.backoff().until(there).await.unwrap();
            assert!(until.is_some());
            net.asked();
            for _ in 0..3 {
                assert!(peers.urgent().version(there).await.is_err());
            }
            assert_eq!(net.asked().len(), 1);
            assert_eq!(peers.backoff().until(there).await.unwrap(), until);
        }
        // A refusal is an answer.
        after(10_000).await;
        net.answer(|_, _| Ok((403, json!({}))));
        for _ in 0..3 {
            let refused = peers.version(there).await.unwrap_err();
            assert!(refused.refusal().is_some());
        }
    }
}

/// What a server answers about its keys: one, `ed25519:t`.
fn keys_of(name: &str, seed: u8, valid_until_ts: u64) -> Value {
    let key = SigningKey::from_seed("t", &[seed; 32]).unwrap();
    let text = key.publish_keys(server(name), &[], valid_until_ts).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn own() -> OwnKeys {
    let old = OldKey {
        key_id: "ed25519:old".to_owned(),
        key: SigningKey::from_seed("old", &[8; 32]).unwrap().verify_key(),
        expired_ts: 5,
    };
    OwnKeys {
        key: key(),
        old: vec![old],
    }
}

/// Asked once however many wait, kept across restarts, asked again when they are not good any more
/// (B4: after seven days at the latest).
#[tokio::test(start_paused = true)]
async fn keys_are_asked_for_once_and_kept() {
    for lanes in LANES {
        let disk = Memory::new();
        let net = Net::new(|_, _| Ok((200, keys_of("there", 2, FAR))));
        let there = server("there");
        let before = tenant(&disk, lanes).await;
        let ring = Keyring::new(peers(&net, &before), before.clone(), &own(), vec![]);
        let now = before.runtime().clock().now_ms();
        let ask = || async { ring.key(there, "ed25519:t").await.unwrap() };
        let all: [_; 5] = tokio::join!(ask(), ask(), ask(), ask(), ask()).into();
        for key in all {
            let key = key.unwrap();
            assert!(key.is_current(now + MAX_KEY_VALIDITY_MS - 1000));
            assert!(!key.is_current(now + MAX_KEY_VALIDITY_MS + 1000));
        }
        assert_eq!(net.asked(), ["there GET /_matrix/key/v2/server"]);
        // Unknown ones are asked for, at most every half minute.
        for _ in 0..10 {
            assert!(ring.key(there, "ed25519:no").await.unwrap().is_none());
            after(6).await;
        }
        assert_eq!(net.asked().len(), 1);
        // Our own never.
        for (id, is_current) in [("ed25519:k", true), ("ed25519:old", false)] {
            let own = ring.key(server("us"), id).await.unwrap().unwrap();
            assert_eq!(own.is_current(now), is_current, "{id}");
        }

        let again = tenant(&disk.crash(), lanes).await;
        let ring = Keyring::new(peers(&net, &again), again, &own(), vec![]);
        assert!(ring.key(there, "ed25519:t").await.unwrap().is_some());
        assert!(net.asked().is_empty());
        let shown = ring.answer_of(there, now).await.unwrap().unwrap();
        assert_eq!(shown.server(), there);
        after(8 * 24 * 3600).await;
        assert!(ring.key(there, "ed25519:t").await.unwrap().is_some());
        assert_eq!(net.asked().len(), 1);
    }
}

/// B5: a notary's word is only as good as the signature in it.
#[tokio::test(start_paused = true)]
async fn b5_notaries_hand_over_what_servers_signed() {
    for lanes in LANES {
        let net = Net::new(|to, _| {
            if to != "notary" {
                return Err(TransportError::Timeout);
            }
            let mut forged = keys_of("dead", 2, FAR);
            forged["signatures"] = json!({ "notary": { "ed25519:n": "AAAA" } });
            let other = keys_of("other", 2, FAR);
            Ok((200, json!({ "server_keys": [forged, other] })))
        });
        let (peers, tenant) = fresh(&net, lanes).await;
        let notaries = vec!["notary".try_into().unwrap()];
        let ring = Keyring::new(peers, tenant, &own(), notaries);
        let dead = server("dead");
        assert!(ring.key(dead, "ed25519:t").await.unwrap().is_none());
        assert_eq!(net.asked().len(), 2);
        net.answer(|to, _| {
            if to != "notary" {
                return Err(TransportError::Timeout);
            }
            Ok((200, json!({ "server_keys": [keys_of("dead", 2, FAR)] })))
        });
        after(60).await;
        assert!(ring.key(dead, "ed25519:t").await.unwrap().is_some());
    }
}

/// An event of a server, signed by the key `ed25519:{key}`.
fn event_by(of: &str, key: &str, seed: u8, ts: i64) -> WellFormed {
    let builder = EventBuilder {
        version: RoomVersion::V10,
        room_id: Some(RoomId::parse("!r:a").unwrap()),
        sender: UserId::parse(format!("@u:{of}")).unwrap(),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: RawValue::from_string("{}".to_owned()).unwrap(),
        redacts: None,
        prev_events: vec![Reference::by_id(EventId::parse("$p").unwrap())],
        auth_events: vec![],
        depth: 2,
        origin_server_ts: ts,
        opaque_id: String::new(),
    };
    let key = SigningKey::from_seed(key, &[seed; 32]).unwrap();
    let signed = key
        .sign_event(server(of), builder.build().unwrap())
        .unwrap();
    let json = signed.event().json().as_bytes().to_vec();
    WellFormed::parse(RoomVersion::V10, &json, EventLimits::New).unwrap()
}

/// D5: a notary that has a server's old keys says nothing of whether the server itself would tell newer ones.
#[tokio::test(start_paused = true)]
async fn d5_a_notary_hides_no_silence() {
    for lanes in LANES {
        let net = Net::new(|to, _| match to.as_str() {
            "notary" => Ok((200, json!({ "server_keys": [keys_of("away", 2, FAR)] }))),
            _ => Err(TransportError::Timeout),
        });
        let (peers, tenant) = fresh(&net, lanes).await;
        let now = i64::try_from(tenant.runtime().clock().now_ms()).unwrap();
        let notaries = vec!["notary".try_into().unwrap()];
        let ring = Keyring::new(peers, tenant, &own(), notaries);
        let (old, new) = (
            event_by("away", "t", 2, now),
            event_by("away", "new", 5, now),
        );
        let silent = async |event: &WellFormed| {
            let keys = ring.keys_for(std::slice::from_ref(event)).await.unwrap();
            let is_verified = event.clone().verify(&keys).is_ok();
            (is_verified, keys.silent("away").is_some())
        };
        // The second time nobody is asked.
        assert_eq!(silent(&new).await, (false, true));
        assert_eq!(silent(&new).await, (false, true));
        assert_eq!(silent(&old).await, (true, false));
        after(60).await;
        net.answer(|_, _| Ok((200, keys_of("away", 2, FAR))));
        assert_eq!(silent(&new).await, (false, false));
    }
}

/// The ring for a lot of events: their servers are asked side by side, each once; an old key stays
/// good for old events though its server doesn't publish it any more.
#[tokio::test(start_paused = true)]
async fn keys_for_events() {
    for lanes in LANES {
        let event = |of: &str, seed: u8, ts: i64| event_by(of, "t", seed, ts);
        let net = Net::new(|to, _| match to.as_str() {
            "a" => Ok((200, keys_of("a", 2, FAR))),
            "b" => Ok((200, keys_of("b", 3, FAR))),
            _ => Err(TransportError::Timeout),
        });
        let (peers, tenant) = fresh(&net, lanes).await;
        let now = i64::try_from(tenant.runtime().clock().now_ms()).unwrap();
        let ring = Keyring::new(peers, tenant, &own(), vec![]);
        let events = [
            event("a", 2, now),
            event("a", 2, 5),
            event("b", 3, now),
            event("c", 4, now),
        ];
        let keys = ring.keys_for(&events).await.unwrap();
        let verified = events
            .iter()
            .map(|event| event.clone().verify(&keys).is_ok());
        assert_eq!(verified.collect::<Vec<_>>(), [true, true, true, false]);
        let mut asked = net.asked();
        asked.sort();
        let expected = ["a", "b", "c"].map(|name| format!("{name} GET /_matrix/key/v2/server"));
        assert_eq!(asked, expected);

        // B4: made after the key was good.
        let late = now + i64::try_from(MAX_KEY_VALIDITY_MS).unwrap() + 60_000;
        let late = event("a", 2, late);
        let keys = ring.keys_for(std::slice::from_ref(&late)).await.unwrap();
        assert!(late.verify(&keys).is_err());
        assert!(keys.key(server("a"), "ed25519:t").is_some());

        net.answer(|_, _| {
            let key = SigningKey::from_seed("u", &[5; 32]).unwrap();
            let text = key.publish_keys(server("a"), &[], FAR).unwrap();
            Ok((200, serde_json::from_str(&text).unwrap()))
        });
        after(60).await;
        assert!(ring.key(server("a"), "ed25519:u").await.unwrap().is_some());
        let old = event("a", 2, 5);
        let keys = ring.keys_for(std::slice::from_ref(&old)).await.unwrap();
        assert!(old.verify(&keys).is_ok());
    }
}
