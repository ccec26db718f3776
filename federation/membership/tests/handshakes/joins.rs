//! Joining and knocking: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::time::Duration;

use comity_testkit::User;
use serde_json::{Value, json};

use crate::pair::{ONE, Pair, TWO, VERSIONS, join, knock, membership, synced};

async fn texts(user: &User, room: &str) -> Vec<Value> {
    let events = user.messages(room, 50).await;
    let texts = events
        .iter()
        .rev()
        .map(|event| event["content"]["body"].clone());
    texts.filter(Value::is_string).collect()
}

/// A user joins by another server: they see the room and what was said before, the room sees them.
#[tokio::test(start_paused = true)]
async fn a_room_of_another_server_is_joined() {
    for version in VERSIONS {
        let pair = Pair::new().await;
        let room = pair.room("public_chat", version).await;
        for text in ["one", "two"] {
            pair.alice.send(&room, text).await;
        }
        let (status, body) = join(&pair.bob, &room, &[ONE]).await;
        assert_eq!(
            (status, &body["room_id"]),
            (200, &json!(room)),
            "{version}: {body}"
        );
        assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "join");
        assert_eq!(membership(&pair.bob, &room, &pair.alice).await, "join");
        let name = pair.bob.state(&room, "m.room.name", "").await;
        assert_eq!(name["name"], "A room", "{version}");
        assert!(synced(&pair.bob, "join", &room).await.is_some());
        assert_eq!(texts(&pair.bob, &room).await, ["one", "two"], "{version}");
        let dave = pair.federation[TWO].register("dave").await;
        assert_eq!(join(&dave, &room, &[]).await.0, 200, "{version}");
        assert_eq!(membership(&dave, &room, &pair.alice).await, "join");
    }
}

/// The first server that lets it happen is taken; one that can't be reached stops nobody.
#[tokio::test(start_paused = true)]
async fn any_of_several_servers_will_do() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    let (status, body) = join(&pair.bob, &room, &["nobody.test", TWO, ONE]).await;
    assert_eq!(status, 200, "{body}");
    let other = pair.room("public_chat", "11").await;
    pair.federation.wire.cut(ONE, TWO);
    let (status, body) = join(&pair.bob, &other, &["nobody.test", ONE]).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    assert!(synced(&pair.bob, "join", &other).await.is_none());
}

/// Who may not join is told so; nothing of the room is seen.
#[tokio::test(start_paused = true)]
async fn who_may_not_join_is_told_so() {
    let pair = Pair::new().await;
    let closed = pair.room("private_chat", "11").await;
    let banned = pair.room("public_chat", "11").await;
    pair.alice.ban(&banned, &pair.bob.id).await;
    for room in [closed, banned] {
        let (status, body) = join(&pair.bob, &room, &[ONE]).await;
        assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
        assert!(synced(&pair.bob, "join", &room).await.is_none());
    }
}

/// <https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms>: the asked server signs for the
/// user of its own who authorises the join.
#[tokio::test(start_paused = true)]
async fn a_restricted_room_is_joined_by_its_condition() {
    for version in ["10", "11", "12"] {
        let pair = Pair::new().await;
        let club = pair.room("public_chat", version).await;
        let rules = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": club }],
        });
        let room = pair.room_with(version, rules).await;
        let (status, body) = join(&pair.bob, &room, &[ONE]).await;
        assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
        assert_eq!(join(&pair.bob, &club, &[ONE]).await.0, 200);
        let (status, body) = join(&pair.bob, &room, &[ONE]).await;
        assert_eq!(status, 200, "{version}: {body}");
        let member = pair.bob.state(&room, "m.room.member", &pair.bob.id).await;
        assert_eq!(member["join_authorised_via_users_server"], pair.alice.id);
        assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "join");
    }
}

/// <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>: the one who knocks knows what the
/// room says of itself, is seen to knock, and may take it back.
#[tokio::test(start_paused = true)]
async fn one_knocks_on_a_room_of_another_server() {
    for version in ["10", "11", "12"] {
        let pair = Pair::new().await;
        let room = pair
            .room_with(version, json!({ "join_rule": "knock" }))
            .await;
        let (status, body) = knock(&pair.bob, &room, &[ONE]).await;
        assert_eq!(status, 200, "{version}: {body}");
        assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "knock");
        let knocked = synced(&pair.bob, "knock", &room).await.unwrap();
        let state = knocked["knock_state"]["events"].as_array().unwrap();
        let create = |event: &&Value| event["type"] == "m.room.create";
        assert!(state.iter().any(|event| create(&event)), "{version}");
        pair.bob.leave(&room).await;
        assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "leave");
        assert!(synced(&pair.bob, "knock", &room).await.is_none());
    }
}

/// Whoever wants no invites is told all the same that their knock was refused.
#[tokio::test(start_paused = true)]
async fn a_knock_that_is_refused_is_over() {
    let pair = Pair::new().await;
    let room = pair.room_with("11", json!({ "join_rule": "knock" })).await;
    let path = format!(
        "/_matrix/client/v3/user/{}/account_data/m.invite_permission_config",
        pair.bob.id
    );
    let none = json!({ "default_action": "block" });
    let _ = pair.bob.put(path).json(none).send().await.ok();
    assert_eq!(knock(&pair.bob, &room, &[ONE]).await.0, 200);
    let knocked = pair.bob.sync(None).await;
    assert!(knocked["rooms"]["knock"][&room].is_object(), "{knocked}");
    pair.alice.kick(&room, &pair.bob.id).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let over = pair.bob.sync(knocked["next_batch"].as_str()).await;
    assert!(over["rooms"]["leave"][&room].is_object(), "{over}");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias>: `via` says whom to
/// ask; the server that a room's id names, and those that were in the room with us, are asked where nobody
/// was named.
#[tokio::test(start_paused = true)]
async fn who_is_named_is_asked() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    let (status, body) = join(&pair.bob, &room, &["nobody.test"]).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, body) = join(&pair.bob, &room, &[]).await;
    assert_eq!(status, 200, "{body}");
    pair.bob.leave(&room).await;
    assert_eq!(join(&pair.bob, &room, &["nobody.test"]).await.0, 404);
    assert_eq!(join(&pair.bob, &room, &[]).await.0, 200);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>: as long as other
/// servers have more of the history a page has an `end`; to the room's first event and no further.
#[tokio::test(start_paused = true)]
async fn history_is_fetched_page_by_page_to_its_start() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    for at in 0..230 {
        pair.alice.send(&room, &format!("{at}")).await;
    }
    assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 200);
    let path = format!(
        "/_matrix/client/v3/rooms/{}/messages",
        comity_testkit::encode(&room)
    );
    let (mut from, mut texts, mut pages, mut first) = (None::<String>, Vec::new(), 0, Value::Null);
    loop {
        let mut request = pair.bob.get(path.clone()).query("dir", "b");
        request = request.query("limit", "150");
        if let Some(from) = &from {
            request = request.query("from", from);
        }
        let page = request.send().await.ok();
        for event in page["chunk"].as_array().unwrap() {
            texts.extend(event["content"]["body"].as_str().map(str::to_owned));
            first = event["type"].clone();
        }
        pages += 1;
        match page["end"].as_str() {
            Some(end) => from = Some(end.to_owned()),
            None => break,
        }
    }
    let all: Vec<String> = (0..230).rev().map(|at| at.to_string()).collect();
    assert_eq!(texts, all);
    assert_eq!(first, "m.room.create");
    assert!(pages < 6, "{pages}");
    // What can't be had ends the pages too.
    let other = pair.room("public_chat", "11").await;
    assert_eq!(join(&pair.bob, &other, &[ONE]).await.0, 200);
    pair.federation.wire.cut(ONE, TWO);
    let path = path.replace(
        &comity_testkit::encode(&room),
        &comity_testkit::encode(&other),
    );
    let page = pair
        .bob
        .get(path.clone())
        .query("dir", "b")
        .send()
        .await
        .ok();
    let end = page["end"].as_str().unwrap();
    let request = pair.bob.get(path).query("dir", "b").query("from", end);
    let page = request.send().await.ok();
    assert_eq!((&page["chunk"], page.get("end")), (&json!([]), None));
}
