//! `/sync` and the ways of before: what is asked for in the query, and what ends a poll.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_protocol::id::{OwnedUserId, UserId};
use comity_rooms::{CreateRoom, Preset, Profile};
use comity_testkit::{Server, User, encode};
use serde_json::json;

async fn room(server: &Server, creator: &User) -> String {
    let request = CreateRoom {
        preset: Some(Preset::Public),
        ..CreateRoom::default()
    };
    let creator: OwnedUserId = UserId::parse(creator.id.as_str()).unwrap();
    let rooms = &server.api.rooms;
    let made = rooms
        .create_room(&creator, &Profile::default(), request)
        .await;
    made.unwrap().to_string()
}

/// Filters are stored, named and given inline; malformed ones are refused.
#[tokio::test(start_paused = true)]
async fn a_filter_is_named_or_inline() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    alice.send(&room, "hello").await;
    let filters = format!("/_matrix/client/v3/user/{}/filter", encode(&alice.id));
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let stored = alice.post(filters.clone()).json(&filter).send().await.ok();
    let id = stored["filter_id"].as_str().unwrap();
    let again = alice.get(format!("{filters}/{id}")).send().await.ok();
    assert_eq!(again, filter);
    for filter in [id, &filter.to_string()] {
        let answer = alice.sync_request(None).query("filter", filter);
        let answer = answer.send().await.ok();
        let timeline = &answer["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(timeline.as_array().unwrap().len(), 1);
    }
    let bad = json!({ "room": { "timeline": "text" } });
    let refused = alice.post(filters).json(bad).send().await;
    refused.error(400, "M_BAD_JSON");
    let refused = alice.sync_request(Some("nonsense")).send().await;
    refused.error(400, "M_INVALID_PARAM");
}

/// Threat B3: a poll ends with its session.
#[tokio::test(start_paused = true)]
async fn a_poll_ends_with_its_session() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let phone = server.login("alice").await;
    let since = phone.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let poll = phone.sync_request(Some(&since)).query("timeout", "60000");
    let logout = alice.post("/_matrix/client/v3/logout/all").json(json!({}));
    let (polled, _) = tokio::join!(poll.send(), logout.send());
    polled.error(401, "M_UNKNOWN_TOKEN");
}

/// The ways of before `/sync` tell the same.
#[tokio::test(start_paused = true)]
async fn the_old_ways_still_lead_there() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let all = alice
        .get("/_matrix/client/v3/initialSync")
        .send()
        .await
        .ok();
    assert_eq!(all["rooms"][0]["membership"], "join");
    let from = all["end"].as_str().unwrap();
    let sent = alice.send(&room, "news").await;
    let events = alice.get("/_matrix/client/v3/events").query("from", from);
    let events = events.send().await.ok();
    assert_eq!(events["chunk"][0]["event_id"], sent);
    let one = format!("/_matrix/client/v3/events/{}", encode(&sent));
    let one = alice.get(one).send().await.ok();
    assert_eq!(one["room_id"], room);
}

/// Filtering, `event_fields`: of the events of rooms only what is wanted of their content, and no `unsigned`.
#[tokio::test(start_paused = true)]
async fn events_have_the_fields_wanted() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    let id = alice.send_event(&room, "org.example.note", content).await;
    let filter = json!({
        "event_fields": ["content.body", "content.membership"],
        "room": { "timeline": { "limit": 1 }, "state": { "types": ["m.room.member"] } },
    });
    let sync = alice
        .sync_request(None)
        .query("filter", &filter.to_string());
    let sync = sync.send().await.ok();
    let joined = &sync["rooms"]["join"][&room];
    let message = &joined["timeline"]["events"][0];
    assert_eq!(message["content"], json!({ "body": "hello" }));
    assert!(message.get("unsigned").is_none());
    assert_eq!(message["event_id"], id.as_str());
    let state = joined["state"]["events"].as_array().unwrap();
    let own = state.iter().find(|event| event["type"] == "m.room.member");
    assert_eq!(own.unwrap()["content"], json!({ "membership": "join" }));
}
