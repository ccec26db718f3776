//! Positions: whose they are, what they outlive, what they serve for; and waiting for news.

use std::{collections::BTreeMap, time::Duration};

use comity_sync::sliding::{Extensions, SlidingError, SlidingRequest};
use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

use crate::{Connection, SLIDING, V3, bodies, list, lists, named, rooms, slide, text};

/// MSC4186, Connections: the same position gives the same again, whatever was lost; one that was superseded, another device's and
/// another connection's are unknown.
#[tokio::test(start_paused = true)]
async fn positions_are_the_connections_own() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let phone = server.login("alice").await;
    let room = named(&alice, "Pub").await;
    let wanted = lists(list(9, 5, json!([["m.room.member", "$LAZY"]])));
    let first = slide(&alice, None, wanted.clone(), 0).await;
    let pos = text(&first["pos"]);
    alice.send(&room, "news").await;
    let lost = slide(&alice, Some(&pos), wanted.clone(), 0).await;
    let again = slide(&alice, Some(&pos), wanted.clone(), 0).await;
    let told = |answer: &Value| answer["rooms"][&room]["timeline"][0]["event_id"].clone();
    assert!(told(&lost).is_string());
    assert_eq!(told(&lost), told(&again));
    let unknown = async |user: &User, pos: &str, body: Value| {
        let asked = user.post(SLIDING).query("pos", pos).json(body).send().await;
        asked.error(400, "M_UNKNOWN_POS");
    };
    unknown(&alice, &text(&lost["pos"]), wanted.clone()).await;
    let next = text(&again["pos"]);
    unknown(&phone, &next, wanted.clone()).await;
    let mut other = wanted.clone();
    other["conn_id"] = json!("other");
    unknown(&alice, &next, other).await;
    unknown(&alice, "nonsense", wanted.clone()).await;
    let went_on = slide(&alice, Some(&next), wanted.clone(), 0).await;
    assert!(rooms(&went_on).is_empty(), "{went_on}");
    alice.send(&room, "more").await;
    let more = slide(&alice, Some(&next), wanted.clone(), 0).await;
    assert_eq!(bodies(&more["rooms"][&room]), ["more"]);
    slide(&alice, Some(&text(&more["pos"])), wanted.clone(), 0).await;
    // Whoever begins anew ends what was.
    let anew = slide(&alice, None, wanted.clone(), 0).await;
    assert_eq!(anew["rooms"][&room]["initial"], true);
    unknown(&alice, &text(&more["pos"]), wanted).await;
}

/// A request whose device is removed while it is served begins no connection, for nobody would end it.
#[tokio::test(start_paused = true)]
async fn no_connection_outlives_its_device() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let request = |device: &str| SlidingRequest {
        user: alice.id.as_str().try_into().unwrap(),
        device: device.to_owned(),
        connection: String::new(),
        pos: None,
        timeout: Duration::ZERO,
        lists: BTreeMap::new(),
        subscriptions: BTreeMap::new(),
        extensions: Extensions::default(),
    };
    let sync = &server.api.sync;
    assert!(sync.slide(&request(&alice.device)).await.is_ok());
    let refused = sync.slide(&request("GONE")).await;
    assert!(matches!(refused, Err(SlidingError::UnknownPos)));
}

/// MSC4186, Connections: a client that gave a request up and asked anew isn't robbed of its answer by the one it gave up.
#[tokio::test(start_paused = true)]
async fn a_request_given_up_takes_no_position() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let wanted = lists(list(9, 5, json!([])));
    let first = slide(&alice, None, wanted.clone(), 0).await;
    let pos = text(&first["pos"]);
    let given_up = slide(&alice, Some(&pos), wanted.clone(), 60_000);
    let mut more = wanted.clone();
    more["room_subscriptions"] = json!({
        &room: { "timeline_limit": 5, "required_state": [["m.room.create", ""]] }
    });
    let anew = async {
        // The clock stands while anybody has something to do: when it moves, the first waits.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let told = slide(&alice, Some(&pos), more.clone(), 0).await;
        assert_eq!(rooms(&told), std::slice::from_ref(&room));
        let next = text(&told["pos"]);
        let (news, _) = tokio::join!(
            slide(&alice, Some(&next), more.clone(), 60_000),
            bob.send(&room, "news")
        );
        assert_eq!(bodies(&news["rooms"][&room]), ["news"]);
        news
    };
    let (given_up, _) = tokio::join!(given_up, anew);
    assert_eq!(given_up["pos"], pos);
    assert!(rooms(&given_up).is_empty(), "{given_up}");
}

/// What a connection knows is stored: a start later it goes on.
#[tokio::test(start_paused = true)]
async fn a_connection_outlives_a_restart() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = named(&alice, "Pub").await;
    let quiet = named(&alice, "Quiet").await;
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 5, json!([["m.room.name", ""]])));
    let first = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&first).len(), 2);
    alice.send(&room, "one").await;
    let told = connection.ask(wanted.clone()).await;
    // Nobody waits for a position to be on the disk; what comes after it in the same lane is there after it.
    let data = alice.put(format!(
        "{V3}/user/{}/account_data/org.example",
        encode(&alice.id)
    ));
    data.json(json!({})).send().await.ok();
    let again = server.restarted().await;
    let slide = async |pos: &Value| {
        let request = again.with_token(&alice.token).post(SLIDING);
        let request = request.query("pos", pos.as_str().unwrap());
        request.json(wanted.clone()).send().await.ok()
    };
    let nothing = slide(&told["pos"]).await;
    assert!(rooms(&nothing).is_empty(), "{nothing}");
    let send = format!("{V3}/rooms/{}/send/m.room.message/1", encode(&quiet));
    let send = again.with_token(&alice.token).put(send);
    send.json(json!({ "msgtype": "m.text", "body": "two" }))
        .send()
        .await
        .ok();
    let news = slide(&nothing["pos"]).await;
    assert_eq!(rooms(&news), std::slice::from_ref(&quiet));
    assert_eq!(bodies(&news["rooms"][&quiet]), ["two"]);
}

/// Long polling: nothing to say waits, news ends it, and so does the time.
#[tokio::test(start_paused = true)]
async fn a_poll_waits_for_news() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 1, json!([])));
    let first = connection.wait(wanted.clone(), 60_000).await;
    assert_eq!(rooms(&first).len(), 1, "the first answer comes at once");
    let began = tokio::time::Instant::now();
    let nothing = connection.wait(wanted.clone(), 10_000).await;
    assert!(rooms(&nothing).is_empty());
    assert_eq!(began.elapsed().as_secs(), 10);
    let began = tokio::time::Instant::now();
    let (answer, _) = tokio::join!(connection.wait(wanted, 60_000), bob.send(&room, "news"));
    assert_eq!(bodies(&answer["rooms"][&room]), ["news"]);
    assert!(began.elapsed().as_secs() < 10);
}

/// MSC4186: a position serves wherever one of `/sync` does.
#[tokio::test(start_paused = true)]
async fn a_position_serves_as_a_token() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = named(&alice, "Pub").await;
    let root = alice.send(&room, "before").await;
    let answer = slide(&alice, None, lists(list(0, 1, json!([]))), 0).await;
    let pos = text(&answer["pos"]);
    alice.send(&room, "after").await;
    let id = encode(&room);
    for path in [
        format!("{V3}/rooms/{id}/messages?dir=b&from={pos}"),
        format!(
            "/_matrix/client/v1/rooms/{id}/relations/{}?from={pos}",
            encode(&root)
        ),
        format!("{V3}/keys/changes?from={pos}&to={pos}"),
    ] {
        let page = alice.get(&path).send().await.ok();
        assert!(!page.to_string().contains("after"), "{path}: {page}");
    }
    let prev = text(&answer["rooms"][&room]["prev_batch"]);
    let page = alice.get(format!("{V3}/rooms/{id}/messages?dir=b&from={prev}"));
    let page = page.send().await.ok();
    assert_eq!(page["chunk"][0]["type"], "m.room.name");
}
