//! Policy servers: what our users say is signed by the room's before anybody hears of it.
//! <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use std::time::Duration;

use comity_testkit::{HostilePeer, PolicyKey, Reply, User, encode};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::pair::{ONE, Pair, TWO, VERSIONS, join, membership};

const POLICY: &str = "policy.test";
const SIGN: &str = "/_matrix/policy/v1/sign";

/// A room of our first user, and its policy server, which says nothing yet.
async fn protected(pair: &Pair, version: &str) -> (String, HostilePeer, PolicyKey) {
    let room = pair.room("public_chat", version).await;
    let policy = HostilePeer::on(&pair.federation.wire, POLICY);
    let taken = |_: &_| json!({ "pdus": {} });
    policy.answer(Method::PUT, "/_matrix/federation/v1/send/", taken);
    policy.join(&pair.federation[ONE], &room, "warden").await;
    let key = policy.policy_key(1);
    let set = pair
        .alice
        .set_state(&room, "m.room.policy", "", key.designation());
    set.await;
    (room, policy, key)
}

fn answer<R: Into<Reply>>(
    policy: &HostilePeer,
    answer: impl Fn(&Value) -> R + Send + Sync + 'static,
) {
    policy.answer(Method::POST, SIGN, move |asked| answer(&asked.body));
}

fn asked(policy: &HostilePeer) -> Vec<Value> {
    let heard = policy.heard().into_iter();
    let asked = heard.filter(|asked| asked.target == SIGN);
    asked.map(|asked| asked.body).collect()
}

/// An attempt to say something: the status and the answer.
async fn say(user: &User, room: &str, txn: &str) -> (u16, Value) {
    let path = format!(
        "/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}",
        encode(room)
    );
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    let answer = user.put(path).json(content).send().await;
    (answer.status.as_u16(), answer.body)
}

async fn last(user: &User, room: &str) -> Value {
    user.messages(room, 1).await[0].clone()
}

/// An event as the policy server has it that our server sent it.
async fn sent(policy: &HostilePeer, event_type: &str) -> Option<Value> {
    for _ in 0..20 {
        for asked in policy.heard() {
            let pdus = asked.body["pdus"].as_array().cloned().unwrap_or_default();
            if let Some(pdu) = pdus.into_iter().find(|pdu| pdu["type"] == event_type) {
                return Some(pdu);
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    None
}

/// All servers must ask before they send: the signature stands beside ours in what goes out, a transaction makes one event, and
/// joins of others through us are asked about too.
#[tokio::test(start_paused = true)]
async fn what_our_users_say_is_signed_by_the_policy_server() {
    for version in VERSIONS {
        let pair = Pair::new().await;
        let (room, policy, key) = protected(&pair, version).await;
        drop(policy.heard());
        let (signing, of) = (key.clone(), version.to_owned());
        answer(&policy, move |event| signing.sign(&of, event));
        let (status, body) = say(&pair.alice, &room, "one").await;
        assert_eq!(status, 200, "{body}");
        let pdu = sent(&policy, "m.room.message").await.unwrap();
        let (ours, theirs) = (&pdu["signatures"][ONE], &pdu["signatures"][POLICY]);
        assert_eq!(ours.as_object().unwrap().len(), 1, "{version}");
        assert!(theirs["ed25519:policy_server"].is_string(), "{version}");
        let (again, same) = say(&pair.alice, &room, "one").await;
        assert_eq!((again, &same["event_id"]), (200, &body["event_id"]));
        assert!(asked(&policy).is_empty(), "{version}");
        let event = last(&pair.alice, &room).await;
        assert_eq!(event["event_id"], body["event_id"]);
        assert_eq!(event["unsigned"]["transaction_id"], "one", "{version}");

        assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 200);
        let joined = asked(&policy);
        assert_eq!(joined.len(), 1, "{version}");
        assert_eq!(joined[0]["state_key"], pair.bob.id.as_str());
        let (status, body) = say(&pair.bob, &room, "two").await;
        assert_eq!(status, 200, "{body}");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            last(&pair.alice, &room).await["sender"],
            pair.bob.id.as_str()
        );
        // Both servers found it signed.
        assert_eq!(asked(&policy).len(), 1, "{version}");
        let carol = pair.federation[TWO].register("carol").await;
        pair.alice.invite(&room, &carol.id).await;
        assert_eq!(asked(&policy).len(), 1, "{version}");
    }
}

/// What the server doesn't recommend is nowhere afterwards, and the client hears its reason: not its error code, which
/// might end the session. What it answers besides is no signature.
#[tokio::test(start_paused = true)]
async fn what_the_policy_server_refuses_is_not_said() {
    let pair = Pair::new().await;
    let (room, policy, _) = protected(&pair, "11").await;
    let before = last(&pair.alice, &room).await["event_id"].clone();
    let refusals: [(u16, Value, u16, &str); 5] = [
        (
            400,
            json!({ "errcode": "M_FORBIDDEN", "error": "spam" }),
            403,
            "M_FORBIDDEN",
        ),
        (
            401,
            json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "x" }),
            403,
            "M_FORBIDDEN",
        ),
        (
            404,
            json!({ "errcode": "M_UNRECOGNIZED", "error": "x" }),
            403,
            "M_FORBIDDEN",
        ),
        (
            200,
            json!({ POLICY: { "ed25519:policy_server": "AAAA" } }),
            403,
            "M_FORBIDDEN",
        ),
        (200, json!({}), 403, "M_FORBIDDEN"),
    ];
    for (status, body, expected, errcode) in refusals {
        answer(&policy, move |_| (status, body.clone()));
        let (status, told) = say(&pair.alice, &room, "refused").await;
        assert_eq!((status, &told["errcode"]), (expected, &json!(errcode)));
    }
    let (other, of) = (policy.policy_key(2), "11");
    answer(&policy, move |event| other.sign(of, event));
    assert_eq!(say(&pair.alice, &room, "refused").await.0, 403);
    answer(&policy, |_| {
        (400, json!({ "errcode": "M_FORBIDDEN", "error": "canary" }))
    });
    let (_, told) = say(&pair.alice, &room, "refused").await;
    assert!(told["error"].as_str().unwrap().contains("canary"));
    // Not by coming in, nor by whoever else tries to.
    assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 403);
    let topic = format!(
        "/_matrix/client/v3/rooms/{}/state/m.room.topic",
        encode(&room)
    );
    let topic = pair
        .alice
        .put(topic)
        .json(json!({ "topic": "t" }))
        .send()
        .await;
    topic.error(403, "M_FORBIDDEN");
    assert_eq!(last(&pair.alice, &room).await["event_id"], before);
    answer(&policy, |_| {
        (
            429,
            json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "x", "retry_after_ms": 5_000 }),
        )
    });
    let (status, told) = say(&pair.alice, &room, "refused").await;
    assert_eq!((status, &told["retry_after_ms"]), (429, &json!(5_000)));
}

/// A server that can't be reached silences the room but for the event that does away with it; nobody waits for long, and the
/// room isn't held meanwhile.
#[tokio::test(start_paused = true)]
async fn a_room_can_do_without_a_policy_server_that_is_away() {
    let pair = Pair::new().await;
    let (room, _policy, _) = protected(&pair, "11").await;
    pair.federation.wire.cut(ONE, POLICY);
    let (status, told) = say(&pair.alice, &room, "one").await;
    assert_eq!(status, 403, "{told}");
    pair.alice
        .set_state(&room, "m.room.policy", "", json!({}))
        .await;
    assert_eq!(say(&pair.alice, &room, "one").await.0, 200);
}

/// Whoever was away is asked as soon as there is something to ask, however long that was.
#[tokio::test(start_paused = true)]
async fn a_policy_server_that_is_back_is_asked() {
    let pair = Pair::new().await;
    let (room, policy, key) = protected(&pair, "11").await;
    answer(&policy, move |event| key.sign("11", event));
    pair.federation.wire.cut(ONE, POLICY);
    for txn in 0..8 {
        let (status, told) = say(&pair.alice, &room, &txn.to_string()).await;
        assert_eq!(status, 403, "{told}");
        sleep(Duration::from_secs(10 * 60)).await;
    }
    assert_eq!(say(&pair.alice, &room, "still").await.0, 403);
    pair.federation.wire.heal();
    assert_eq!(say(&pair.alice, &room, "back").await.0, 200);
}

/// What a policy server refuses, or doesn't answer, holds up its own room alone. A user's new name is shown in the others, and a
/// deactivated account leaves them.
#[tokio::test(start_paused = true)]
async fn a_policy_server_holds_up_no_other_room() {
    for (status, errcode) in [
        (400_u16, "M_FORBIDDEN"),
        (429, "M_LIMIT_EXCEEDED"),
        (500, "M_UNKNOWN"),
    ] {
        let pair = Pair::new().await;
        let (_room, policy, _) = protected(&pair, "11").await;
        let carol = pair.federation[ONE].register("carol").await;
        let mut others = Vec::new();
        // Some of them come after that one.
        for _ in 0..4 {
            let other = pair.room("public_chat", "11").await;
            carol.join(&other).await;
            others.push(other);
        }
        let refusal = json!({ "errcode": errcode, "error": "no" });
        answer(&policy, move |_| (status, refusal.clone()));
        let name = format!(
            "/_matrix/client/v3/profile/{}/displayname",
            encode(&pair.alice.id)
        );
        let name = pair.alice.put(name).json(json!({ "displayname": "new" }));
        name.send().await.ok();
        sleep(Duration::from_secs(60)).await;
        for other in &others {
            let member = carol.state(other, "m.room.member", &pair.alice.id).await;
            assert_eq!(member["displayname"], "new", "{errcode}");
        }
        let api = &pair.federation[ONE].api;
        api.deactivate(&pair.alice.id, true).await.unwrap();
        for other in &others {
            let left = membership(&carol, other, &pair.alice).await;
            assert_eq!(left, "leave", "{errcode}");
        }
    }
}
