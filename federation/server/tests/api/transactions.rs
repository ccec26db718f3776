//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use comity_testkit::{Federation, HostilePeer, Pdu};
use http::Method;
use serde_json::{Value, json};

const A: &str = "a.test";

fn send(transaction: &str) -> String {
    format!("/_matrix/federation/v1/send/{transaction}")
}

fn transaction(pdus: &[&Pdu]) -> Value {
    json!({
        "origin": "mallory.test",
        "origin_server_ts": 1,
        "pdus": pdus.iter().map(|pdu| &pdu.json).collect::<Vec<_>>(),
    })
}

/// What another server's user says is heard, in each room version; the same transaction again does nothing twice.
#[tokio::test]
async fn events_of_another_server_are_heard() {
    let federation = Federation::of([A]).await;
    let alice = federation[A].register("alice").await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let peer = mallory.to(&federation[A]);
    for version in ["1", "6", "11", "12"] {
        let room = alice
            .create_room(json!({"preset": "public_chat", "room_version": version}))
            .await;
        let joined = mallory.join(&federation[A], &room, "m").await;
        let since = alice.sync(None).await["next_batch"].clone();
        let content = json!({"msgtype": "m.text", "body": "from afar"});
        let said = mallory.event(&joined, "m", "m.room.message", None, content);
        let body = transaction(&[&said]);
        let path = send(version);
        let answer = peer.put(&path).json(&body).send().await.ok();
        assert_eq!(answer, json!({"pdus": {(&said.id): {}}}));
        assert_eq!(peer.put(&path).json(&body).send().await.ok(), answer);
        let heard = alice
            .sync_request(since.as_str())
            .query("timeout", "20000")
            .send()
            .await
            .ok();
        let timeline = &heard["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(timeline[0]["event_id"], said.id, "{heard}");
        assert_eq!(timeline[1], Value::Null);
    }
}

/// What is no transaction, and what is too much of one.
#[tokio::test]
async fn what_is_no_transaction_is_refused() {
    let federation = Federation::of([A]).await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let peer = mallory.to(&federation[A]);
    let put = |body: Value| peer.put(send("t")).json(body).send();
    put(json!({"pdus": "x"})).await.error(400, "M_BAD_JSON");
    let many = json!({"pdus": vec![json!({}); 51]});
    put(many).await.error(413, "M_TOO_LARGE");
    let edus = json!({"pdus": [], "edus": vec![json!({}); 101]});
    put(edus).await.error(413, "M_TOO_LARGE");
    // Nobody's transaction.
    let unsigned = federation[A].put(send("t")).json(transaction(&[]));
    unsigned.send().await.error(401, "M_UNAUTHORIZED");
    let header = mallory.authorisation(federation[A].name(), &Method::PUT, &send("other"), b"{}");
    let others = federation[A]
        .put(send("t"))
        .json(json!({}))
        .header(http::header::AUTHORIZATION, &header);
    others.send().await.error(401, "M_UNAUTHORIZED");
}
