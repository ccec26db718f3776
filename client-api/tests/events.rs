//! Sending to a room, and reading what is there: who may see what, page by page.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_protocol::id::{RoomId, UserId};
use comity_rooms::{CreateRoom, Join, Preset, Profile};
use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3/rooms";
const V1: &str = "/_matrix/client/v1/rooms";

/// A room made and joined by the engine: these tests are about events.
async fn room(server: &Server, creator: &User, members: &[&User]) -> String {
    let rooms = &server.api.rooms;
    let request = CreateRoom {
        preset: Some(Preset::Public),
        ..CreateRoom::default()
    };
    let creator = UserId::parse(creator.id.as_str()).unwrap();
    let made = rooms
        .create_room(&creator, &Profile::default(), request)
        .await;
    let room = made.unwrap();
    for member in members {
        let member = UserId::parse(member.id.as_str()).unwrap();
        rooms.join(&member, &room, Join::default()).await.unwrap();
    }
    room.to_string()
}

fn bodies(chunk: &Value) -> Vec<&str> {
    let events = chunk.as_array().unwrap().iter();
    events
        .filter_map(|event| event["content"]["body"].as_str())
        .collect()
}

/// R12.1, transaction identifiers: a repeated send is the event it was, with its sequence number.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_done_once() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice, &[]).await;
    let send = |txn: &'static str, body: &'static str| {
        let path = format!("{V3}/{}/send/m.room.message/{txn}", encode(&room));
        let content = json!({ "msgtype": "m.text", "body": body });
        let request = alice.put(path).json(content);
        async { request.send().await.ok() }
    };
    let first = send("1", "one").await;
    assert_eq!(send("1", "again").await, first);
    let second = send("2", "two").await;
    let seq = |answer: &Value| answer["org.comity.seq"].as_i64().unwrap();
    assert_eq!(seq(&second), seq(&first) + 1);
    let path = format!("{V3}/{}/send/m.room.message/3", encode(&room));
    let refused = alice.put(path.clone()).json("text").send().await;
    refused.error(400, "M_BAD_JSON");
    let large = json!({ "body": "x".repeat(70_000) });
    alice
        .put(path.clone())
        .json(large)
        .send()
        .await
        .error(413, "M_TOO_LARGE");
    let bob = server.register("bob").await;
    let refused = bob.put(path).json(json!({})).send().await;
    refused.error(403, "M_FORBIDDEN");
}

/// `/messages`, both ways, to the end, from a sync's tokens too.
#[tokio::test(start_paused = true)]
async fn history_is_read_page_by_page() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice, &[]).await;
    alice.send(&room, "1").await;
    let since = alice.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    for body in ["2", "3", "4"] {
        alice.send(&room, body).await;
    }
    let messages = |dir: &'static str, from: Option<String>| {
        let request = alice.get(format!("{V3}/{}/messages", encode(&room)));
        let request = request.query("dir", dir).query("limit", "2");
        let request = match from {
            Some(from) => request.query("from", &from),
            None => request,
        };
        async { request.send().await.ok() }
    };
    let page = messages("f", Some(since)).await;
    assert_eq!(bodies(&page["chunk"]), ["2", "3"]);
    let end = page["end"].as_str().unwrap().to_owned();
    let page = messages("f", Some(end.clone())).await;
    assert_eq!(bodies(&page["chunk"]), ["4"]);
    assert!(page.get("end").is_none());
    // The same gap, seen from its other side.
    let page = messages("b", Some(end)).await;
    assert_eq!(bodies(&page["chunk"]), ["3", "2"]);
    let (mut from, mut seen) = (None, Vec::new());
    loop {
        let mut page = messages("b", from).await;
        seen.append(page["chunk"].as_array_mut().unwrap());
        match page["end"].as_str() {
            Some(end) => from = Some(end.to_owned()),
            None => break,
        }
    }
    assert_eq!(bodies(&Value::Array(seen.clone())), ["4", "3", "2", "1"]);
    assert_eq!(seen.last().unwrap()["type"], "m.room.create");
}

/// Threat E3: who left sees the room as it was then; who was never there, nothing.
#[tokio::test(start_paused = true)]
async fn who_left_sees_what_was() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let eve = server.register("eve").await;
    let room = room(&server, &alice, &[&bob]).await;
    let name = json!({ "name": "then" });
    alice
        .set_state(&room, "m.room.name", "", name.clone())
        .await;
    let (bob_id, room_id) = (
        UserId::parse(bob.id.as_str()).unwrap(),
        RoomId::parse(&room).unwrap(),
    );
    server
        .api
        .rooms
        .leave(&bob_id, &room_id, None)
        .await
        .unwrap();
    let now = json!({ "name": "now" });
    alice.set_state(&room, "m.room.name", "", now.clone()).await;
    let later = alice.send(&room, "later").await;
    let path = |rest: &str| format!("{V3}/{}/{rest}", encode(&room));
    for slash in ["state/m.room.name", "state/m.room.name/"] {
        assert_eq!(bob.get(path(slash)).send().await.ok(), name);
        assert_eq!(alice.get(path(slash)).send().await.ok(), now);
    }
    let members: Value = bob.get(path("members")).send().await.ok();
    assert_eq!(members["chunk"].as_array().unwrap().len(), 2);
    assert!(bodies(&Value::Array(bob.messages(&room, 50).await)).is_empty());
    let event = path(&format!("event/{}", encode(&later)));
    bob.get(event.clone())
        .send()
        .await
        .error(404, "M_NOT_FOUND");
    eve.get(event).send().await.error(404, "M_NOT_FOUND");
    for rest in [
        "state",
        "members",
        "joined_members",
        "messages?dir=b",
        "initialSync",
    ] {
        let answer = eve.get(path(rest)).send().await;
        answer.error(403, "M_FORBIDDEN");
    }
}

/// Relations, threads, context, the event next to a time.
#[tokio::test(start_paused = true)]
async fn events_are_found_from_others() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice, &[]).await;
    let root = alice.send(&room, "root").await;
    let reply = json!({
        "msgtype": "m.text", "body": "reply",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    let reply = alice.send_event(&room, "m.room.message", reply).await;
    let like = json!({
        "m.relates_to": { "rel_type": "m.annotation", "event_id": reply, "key": "+" },
    });
    let like_id = alice.send_event(&room, "m.reaction", like.clone()).await;
    let path = format!("{V3}/{}/send/m.reaction/again", encode(&room));
    alice
        .put(path)
        .json(like)
        .send()
        .await
        .error(400, "M_DUPLICATE_ANNOTATION");
    let at = format!("{V1}/{}/relations/{}", encode(&room), encode(&root));
    let ids = |answer: &Value| -> Vec<String> {
        let chunk = answer["chunk"].as_array().unwrap().iter();
        chunk
            .map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let direct: Value = alice.get(format!("{at}/m.thread")).send().await.ok();
    assert_eq!(ids(&direct), std::slice::from_ref(&reply));
    let all: Value = alice.get(at).query("recurse", "true").send().await.ok();
    assert_eq!(ids(&all), [like_id, reply.clone()]);
    let threads: Value = alice
        .get(format!("{V1}/{}/threads", encode(&room)))
        .send()
        .await
        .ok();
    assert_eq!(ids(&threads), std::slice::from_ref(&root));
    let context = format!("{V3}/{}/context/{}", encode(&room), encode(&reply));
    let context: Value = alice.get(context).query("limit", "2").send().await.ok();
    assert_eq!(context["events_before"][0]["event_id"], root);
    assert_eq!(context["events_after"][0]["type"], "m.reaction");
    let near = format!("{V1}/{}/timestamp_to_event", encode(&room));
    let near: Value = alice
        .get(near)
        .query("ts", "0")
        .query("dir", "f")
        .send()
        .await
        .ok();
    assert!(near["event_id"].is_string());
}

/// `/relations`: every page in its turn, in both directions, of one type and of any, each relation once
/// and in order, those of relations too.
#[tokio::test(start_paused = true)]
async fn relations_are_read_page_by_page() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice, &[]).await;
    let root = alice.send(&room, "root").await;
    let relate = async |rel_type: &str, to: &str, key: String| {
        let content = json!({ "msgtype": "m.text", "body": "reply",
                "m.relates_to": { "rel_type": rel_type, "event_id": to, "key": key } });
        let kind = if rel_type == "m.annotation" {
            "m.reaction"
        } else {
            "m.room.message"
        };
        alice.send_event(&room, kind, content).await
    };
    let (mut direct, mut replies, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..45 {
        if n % 15 == 0 {
            replies.push(relate("m.thread", &root, String::new()).await);
            direct.push(replies.last().unwrap().clone());
            all.push(replies.last().unwrap().clone());
            let below = relate("m.annotation", replies.last().unwrap(), "+".into()).await;
            all.push(below.clone());
            all.push(relate("m.reference", &below, String::new()).await);
        }
        direct.push(relate("m.annotation", &root, n.to_string()).await);
        all.push(direct.last().unwrap().clone());
    }
    let read = async |rest: &str, dir: &str, recurse: bool| {
        let at = format!("{V1}/{}/relations/{}{rest}", encode(&room), encode(&root));
        let (mut ids, mut from) = (Vec::new(), None::<String>);
        loop {
            let mut request = alice.get(at.clone()).query("dir", dir).query("limit", "7");
            if recurse {
                request = request.query("recurse", "true");
            }
            if let Some(from) = &from {
                request = request.query("from", from);
            }
            let page = request.send().await.ok();
            let chunk = page["chunk"].as_array().unwrap();
            ids.extend(
                chunk
                    .iter()
                    .map(|event| event["event_id"].as_str().unwrap().to_owned()),
            );
            match page["next_batch"].as_str() {
                Some(next) => from = Some(next.to_owned()),
                None => break,
            }
        }
        if dir == "b" {
            ids.reverse();
        }
        ids
    };
    for dir in ["b", "f"] {
        assert_eq!(read("", dir, false).await, direct, "{dir}");
        assert_eq!(read("/m.thread", dir, false).await, replies, "{dir}");
        assert_eq!(read("", dir, true).await, all, "{dir}");
        let reactions = read("/m.annotation/m.reaction", dir, true).await;
        assert_eq!(reactions.len(), 48, "{dir}");
    }
    alice.redact(&room, &replies[1]).await;
    replies.remove(1);
    assert_eq!(read("/m.thread", "b", false).await, replies);
}

/// MSC3440: only events that others relate to as the filter says, in `/messages`, `/context` and `/sync`.
#[tokio::test(start_paused = true)]
async fn events_are_wanted_by_what_relates_to_them() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = room(&server, &alice, &[&bob]).await;
    let thread = alice.send(&room, "thread").await;
    let liked = alice.send(&room, "liked").await;
    alice.send(&room, "lonely").await;
    let relate = |rel_type: &str, to: &str| {
        json!({ "msgtype": "m.text", "body": "reply",
        "m.relates_to": { "rel_type": rel_type, "event_id": to, "key": "+" } })
    };
    alice
        .send_event(&room, "m.room.message", relate("m.thread", &thread))
        .await;
    bob.send_event(&room, "m.reaction", relate("m.annotation", &liked))
        .await;
    for (filter, wanted) in [
        (
            json!({ "related_by_rel_types": ["m.thread"] }),
            vec!["thread"],
        ),
        (json!({ "related_by_senders": [bob.id] }), vec!["liked"]),
        (
            json!({ "related_by_rel_types": ["m.thread", "m.annotation"] }),
            vec!["liked", "thread"],
        ),
        (
            json!({ "related_by_rel_types": ["m.thread"], "related_by_senders": [bob.id] }),
            vec![],
        ),
    ] {
        let messages = alice.get(format!("{V3}/{}/messages", encode(&room)));
        let messages = messages
            .query("dir", "b")
            .query("filter", &filter.to_string());
        let messages = messages.send().await.ok();
        assert_eq!(bodies(&messages["chunk"]), wanted, "{filter}");
        let whole = json!({ "room": { "timeline": filter } });
        let sync = alice.sync_request(None).query("filter", &whole.to_string());
        let sync = sync.send().await.ok();
        let mut timeline = sync["rooms"]["join"][&room]["timeline"]["events"].clone();
        timeline.as_array_mut().unwrap().reverse();
        assert_eq!(bodies(&timeline), wanted, "{filter}");
    }
    let context = format!("{V3}/{}/context/{}", encode(&room), encode(&liked));
    let filter = json!({ "related_by_rel_types": ["m.thread"] }).to_string();
    let context = alice
        .get(context)
        .query("filter", &filter)
        .send()
        .await
        .ok();
    assert_eq!(bodies(&context["events_before"]), ["thread"]);
    assert!(bodies(&context["events_after"]).is_empty());
}

/// MSC3874: pages of what relates to others in given ways, or doesn't; what was redacted relates to nothing.
#[tokio::test(start_paused = true)]
async fn events_are_wanted_by_how_they_relate() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice, &[]).await;
    let root = alice.send(&room, "root").await;
    for (body, rel_type) in [
        ("thread", "m.thread"),
        ("reference", "m.reference"),
        ("gone", "m.thread"),
    ] {
        let relates_to = json!({"rel_type": rel_type, "event_id": root});
        let content = json!({"msgtype": "m.text", "body": body, "m.relates_to": relates_to});
        let event = alice.send_event(&room, "m.room.message", content).await;
        if body == "gone" {
            alice.redact(&room, &event).await;
        }
    }
    let messages = async |filter: Value| {
        let mut filter = filter;
        filter["types"] = json!(["m.room.message"]);
        let page = alice
            .get(format!("{V3}/{}/messages", encode(&room)))
            .query("dir", "f")
            .query("filter", &filter.to_string());
        let page = page.send().await.ok();
        let events = page["chunk"].as_array().unwrap().iter();
        let body = |event: &Value| event["content"]["body"].as_str().map(str::to_owned);
        let bodies = events.map(|event| body(event).unwrap_or_else(|| "redacted".into()));
        bodies.collect::<Vec<_>>()
    };
    let (only, not) = (
        "org.matrix.msc3874.rel_types",
        "org.matrix.msc3874.not_rel_types",
    );
    for (filter, expected) in [
        (json!({only: ["m.thread"]}), vec!["thread"]),
        (json!({only: ["m.reference"]}), vec!["reference"]),
        (
            json!({only: ["m.thread", "m.reference"]}),
            vec!["thread", "reference"],
        ),
        (
            json!({only: ["m.thread", "m.reference"], not: ["m.thread"]}),
            vec!["reference"],
        ),
        (json!({only: []}), vec![]),
        (
            json!({not: ["m.thread"]}),
            vec!["root", "reference", "redacted"],
        ),
        (
            json!({not: ["m.thread", "m.reference"]}),
            vec!["root", "redacted"],
        ),
    ] {
        assert_eq!(messages(filter.clone()).await, expected, "{filter}");
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>: what nobody
/// may ever send is a malformed request (400), not a lack of permission (403): a second create event, and from
/// version 12 on power levels that list a creator (threat D2). Who isn't in the room is told of neither.
#[tokio::test(start_paused = true)]
async fn state_that_nobody_may_send_is_malformed() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let request = json!({
        "preset": "trusted_private_chat", "room_version": "12", "invite": [bob.id],
        "creation_content": { "additional_creators": ["@carol:localhost"] },
    });
    let room = alice.create_room(request).await;
    let put = |user: &User, kind: &str, content: Value| {
        user.put(format!("{V3}/{}/state/{kind}/", encode(&room)))
            .json(content)
    };
    for creator in [&*alice.id, &*bob.id, "@carol:localhost"] {
        let levels = json!({ "users": { creator: 100 } });
        let put = put(&alice, "m.room.power_levels", levels);
        put.send().await.error(400, "M_BAD_JSON");
    }
    let create = json!({ "room_version": "12", "n": 1 });
    let second = put(&alice, "m.room.create", create.clone());
    second.send().await.error(400, "M_BAD_JSON");
    let stranger = put(&server.register("dave").await, "m.room.create", create);
    stranger.send().await.error(403, "M_FORBIDDEN");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>: who may redact
/// everything may redact what has not come here yet; of others that can't be said.
#[tokio::test(start_paused = true)]
async fn what_has_not_come_is_redacted_by_who_may_redact_all() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = room(&server, &alice, &[&bob]).await;
    let target = format!("${}", "x".repeat(43));
    let redact = |user: &User| {
        let path = format!("{V3}/{}/redact/{}/t1", encode(&room), encode(&target));
        user.put(path).json(json!({}))
    };
    redact(&bob).send().await.error(404, "M_NOT_FOUND");
    let redaction = redact(&alice).send().await.ok();
    let last = alice.messages(&room, 1).await.remove(0);
    assert_eq!(last["event_id"], redaction["event_id"]);
    assert_eq!(last["redacts"], target);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>, `at`: the members as they were when the
/// token was given out, for who left no later than at their leave; E3: nothing of a time that one could not see.
#[tokio::test(start_paused = true)]
async fn members_are_told_as_of_a_token() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let next = async |user: &User| {
        let synced = user.sync(None).await;
        synced["next_batch"].as_str().unwrap().to_owned()
    };
    let ask = |user: &User, room: &str, at: &str| {
        let path = format!("{V3}/{}/members", encode(room));
        user.get(path).query("at", at).send()
    };
    let members = async |user: &User, room: &str, at: &str| -> Vec<String> {
        let answer = ask(user, room, at).await.ok();
        let chunk = answer["chunk"].as_array().unwrap().iter();
        let mut members: Vec<String> = chunk
            .map(|event| {
                let localpart = event["state_key"].as_str().unwrap().split(':').next();
                format!(
                    "{} {}",
                    localpart.unwrap(),
                    event["content"]["membership"].as_str().unwrap()
                )
            })
            .collect();
        members.sort();
        members
    };
    for setting in ["shared", "joined"] {
        let (before_room, not_in_it) = (next(&alice).await, next(&bob).await);
        let state = json!([{
            "type": "m.room.history_visibility", "state_key": "",
            "content": {"history_visibility": setting},
        }]);
        let room = alice
            .create_room(json!({"preset": "public_chat", "initial_state": state}))
            .await;
        alice.send(&room, "alone").await;
        let synced = alice.sync(None).await;
        let alone = [
            &synced["next_batch"],
            &synced["rooms"]["join"][&room]["timeline"]["prev_batch"],
        ];
        let alone = alone.map(|token| token.as_str().unwrap().to_owned());
        bob.join(&room).await;
        let both = next(&bob).await;
        bob.leave(&room).await;
        carol.join(&room).await;
        let now = next(&alice).await;

        for at in &alone {
            assert_eq!(members(&alice, &room, at).await, ["@alice join"]);
        }
        let (two, left) = (["@alice join", "@bob join"], ["@alice join", "@bob leave"]);
        let three = ["@alice join", "@bob leave", "@carol join"];
        assert_eq!(members(&alice, &room, &both).await, two);
        assert_eq!(members(&alice, &room, &now).await, three);
        assert_eq!(members(&bob, &room, &both).await, two);
        assert_eq!(members(&bob, &room, &now).await, left);
        let refused = ask(&alice, &room, &before_room).await;
        refused.error(400, "M_INVALID_PARAM");
        let refused = ask(&bob, &room, &not_in_it).await;
        refused.error(400, "M_INVALID_PARAM");
        let refused = ask(&alice, &room, "nonsense").await;
        refused.error(400, "M_INVALID_PARAM");
        // A time before bob's.
        match setting {
            "shared" => assert_eq!(members(&bob, &room, &alone[0]).await, ["@alice join"]),
            _ => drop(ask(&bob, &room, &alone[0]).await.error(403, "M_FORBIDDEN")),
        }
        let stranger = server.register(&format!("stranger.{setting}")).await;
        let refused = ask(&stranger, &room, &both).await;
        refused.error(403, "M_FORBIDDEN");
    }
}
