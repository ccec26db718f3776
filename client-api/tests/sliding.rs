//! Sliding sync: windows, subscriptions, what is told of rooms, positions, extensions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// A client's connection, which goes on from answer to answer.
struct Connection<'a> {
    user: &'a User,
    pos: Option<String>,
}

impl<'a> Connection<'a> {
    fn of(user: &'a User) -> Self {
        Self { user, pos: None }
    }

    async fn ask(&mut self, body: Value) -> Value {
        self.wait(body, 0).await
    }

    async fn wait(&mut self, body: Value, timeout: u64) -> Value {
        let answer = slide(self.user, self.pos.as_deref(), body, timeout).await;
        self.pos = Some(text(&answer["pos"]));
        answer
    }
}

async fn slide(user: &User, pos: Option<&str>, body: Value, timeout: u64) -> Value {
    let mut request = user.post(SLIDING).query("timeout", &timeout.to_string());
    if let Some(pos) = pos {
        request = request.query("pos", pos);
    }
    request.json(body).send().await.ok()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A list of the first rooms, with this much of each.
fn list(last: usize, limit: usize, required: Value) -> Value {
    json!({ "ranges": [[0, last]], "timeline_limit": limit, "required_state": required })
}

fn lists(list: Value) -> Value {
    json!({ "lists": { "all": list } })
}

fn rooms(answer: &Value) -> Vec<String> {
    answer["rooms"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

fn bodies(room: &Value) -> Vec<String> {
    let events = room["timeline"].as_array().into_iter().flatten();
    let bodies = events.filter_map(|event| event["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

fn state(room: &Value) -> Vec<(String, String)> {
    let events = room["required_state"].as_array().into_iter().flatten();
    let mut state: Vec<_> = events
        .map(|event| (text(&event["type"]), text(&event["state_key"])))
        .collect();
    state.sort();
    state
}

async fn named(user: &User, name: &str) -> String {
    user.create_room(json!({ "preset": "public_chat", "name": name }))
        .await
}

/// MSC4186, Lists: the window has the rooms active last; one that becomes active comes in, and what was told is not told again.
#[tokio::test(start_paused = true)]
async fn a_window_has_the_rooms_active_last() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(named(&alice, &n.to_string()).await);
    }
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(1, 1, json!([])));
    let first = connection.ask(wanted.clone()).await;
    let mut newest = vec![made[3].clone(), made[4].clone()];
    newest.sort();
    assert_eq!(rooms(&first), newest);
    assert_eq!(first["lists"]["all"]["count"], 5);
    let room = &first["rooms"][&made[4]];
    assert_eq!(room["initial"], true);
    assert_eq!(room["name"], "4");
    assert_eq!(
        (&room["joined_count"], &room["invited_count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(room["num_live"], 0);
    assert_eq!(room["limited"], true);
    let nothing = connection.ask(wanted.clone()).await;
    assert!(rooms(&nothing).is_empty(), "{nothing}");
    assert_eq!(
        nothing["pos"], first["pos"],
        "what says nothing writes nothing"
    );
    alice.send(&made[0], "here").await;
    let moved = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&moved), [made[0].clone()]);
    assert_eq!(moved["rooms"][&made[0]]["num_live"], 1);
    // A wider window tells the rest alone.
    let wider = connection.ask(lists(list(9, 1, json!([])))).await;
    assert_eq!(rooms(&wider).len(), 2, "{wider}");
}

/// MSC4186, `bump_stamp`: messages move a room up, names don't; the later the greater, whatever lane a room is in.
#[tokio::test(start_paused = true)]
async fn bump_stamps_sort_rooms() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for n in 0..6 {
        made.push(named(&alice, &n.to_string()).await);
    }
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 1, json!([])));
    let all = connection.ask(wanted.clone()).await;
    let stamp = |answer: &Value, room: &String| answer["rooms"][room]["bump_stamp"].as_u64();
    let stamps: Vec<u64> = made.iter().map(|room| stamp(&all, room).unwrap()).collect();
    assert!(
        stamps.windows(2).all(|pair| pair[0] < pair[1]),
        "{stamps:?}"
    );
    alice
        .set_state(&made[1], "m.room.name", "", json!({ "name": "new" }))
        .await;
    let renamed = connection.ask(wanted.clone()).await;
    assert_eq!(renamed["rooms"][&made[1]]["name"], "new");
    assert_eq!(stamp(&renamed, &made[1]), None);
    alice.send(&made[1], "up").await;
    let moved = connection.ask(wanted).await;
    assert!(stamp(&moved, &made[1]) > stamps.last().copied());
}

/// MSC4186, `required_state` of the older dialect: names, `$ME`, `$LAZY`, stars; told when it changes and when it is first wanted.
#[tokio::test(start_paused = true)]
async fn state_is_told_as_it_is_wanted() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    for n in 0..3 {
        alice.send(&room, &n.to_string()).await;
    }
    let mut connection = Connection::of(&alice);
    let member = |user: &User| ("m.room.member".to_owned(), user.id.clone());
    let name = ("m.room.name".to_owned(), String::new());
    let wanted = json!([["m.room.name", ""], ["m.room.member", "$ME"]]);
    let first = connection.ask(lists(list(0, 1, wanted.clone()))).await;
    assert_eq!(
        state(&first["rooms"][&room]),
        [member(&alice), name.clone()]
    );
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "not wanted" }))
        .await;
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Bar" }))
        .await;
    let changed = connection.ask(lists(list(0, 1, wanted))).await;
    assert_eq!(state(&changed["rooms"][&room]), [name]);
    // Wanted for the first time, it is told at once.
    let lazy = json!([
        ["m.room.name", ""],
        ["m.room.topic", ""],
        ["m.room.member", "$LAZY"]
    ]);
    let wider = connection.ask(lists(list(0, 1, lazy.clone()))).await;
    assert_eq!(
        state(&wider["rooms"][&room]),
        [("m.room.topic".to_owned(), String::new())]
    );
    // Who speaks is told, once.
    bob.send(&room, "hello").await;
    let spoken = connection.ask(lists(list(0, 1, lazy.clone()))).await;
    assert_eq!(state(&spoken["rooms"][&room]), [member(&bob)]);
    bob.send(&room, "again").await;
    let again = connection.ask(lists(list(0, 1, lazy.clone()))).await;
    assert_eq!(state(&again["rooms"][&room]), []);
    assert_eq!(bodies(&again["rooms"][&room]), ["again"]);
    let everything = slide(&alice, None, lists(list(0, 1, json!([["*", "*"]]))), 0).await;
    let everything = state(&everything["rooms"][&room]);
    assert!(everything.contains(&member(&alice)) && everything.contains(&member(&bob)));
}

/// MSC4186, Changes to `timeline_limit`: a subscription that wants more of a room gets it at once, and is told so.
#[tokio::test(start_paused = true)]
async fn a_greater_limit_reaches_back() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = named(&alice, "Pub").await;
    for n in 0..4 {
        alice.send(&room, &n.to_string()).await;
    }
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(0, 1, json!([])));
    let first = connection.ask(wanted.clone()).await;
    assert_eq!(bodies(&first["rooms"][&room]), ["3"]);
    let mut subscribed = wanted.clone();
    subscribed["room_subscriptions"][&room] = json!({ "timeline_limit": 3, "required_state": [] });
    let more = connection.ask(subscribed.clone()).await;
    assert_eq!(bodies(&more["rooms"][&room]), ["1", "2", "3"]);
    assert_eq!(more["rooms"][&room]["unstable_expanded_timeline"], true);
    assert_eq!(more["rooms"][&room]["num_live"], 0);
    alice.send(&room, "4").await;
    let next = connection.ask(wanted).await;
    assert_eq!(bodies(&next["rooms"][&room]), ["4"]);
    let nothing = connection.ask(subscribed).await;
    assert!(rooms(&nothing).is_empty(), "it has had those: {nothing}");
}

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

/// MSC4186, `SlidingRoomFilter`: each filter by itself.
#[tokio::test(start_paused = true)]
async fn lists_are_filtered() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let plain = named(&alice, "Plain").await;
    let space = alice
        .create_room(json!({ "name": "Space", "creation_content": { "type": "m.space" } }))
        .await;
    let encrypted = alice
        .create_room(json!({ "name": "Encrypted", "initial_state": [
            { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
        ] }))
        .await;
    let invited = bob.create_room(json!({ "name": "Invited" })).await;
    bob.invite(&invited, &alice.id).await;
    let child = json!({ "via": ["localhost"] });
    alice
        .set_state(&space, "m.space.child", &plain, child)
        .await;
    let me = encode(&alice.id);
    let direct = json!({ &bob.id: [encrypted] });
    let data = alice.put(format!("{V3}/user/{me}/account_data/m.direct"));
    data.json(direct).send().await.ok();
    let tag = format!("{V3}/user/{me}/rooms/{}/tags/m.favourite", encode(&plain));
    alice.put(tag).json(json!({})).send().await.ok();
    for (filters, mut expected) in [
        (json!({}), vec![&plain, &space, &encrypted, &invited]),
        (json!({ "is_dm": true }), vec![&encrypted]),
        (json!({ "is_dm": false }), vec![&plain, &space, &invited]),
        (json!({ "is_encrypted": true }), vec![&encrypted]),
        (json!({ "is_invite": true }), vec![&invited]),
        (
            json!({ "is_invite": false }),
            vec![&plain, &space, &encrypted],
        ),
        (json!({ "room_types": ["m.space"] }), vec![&space]),
        (
            json!({ "room_types": [null, "m.space"], "not_room_types": ["m.space"] }),
            vec![&plain, &encrypted, &invited],
        ),
        (json!({ "spaces": [space] }), vec![&plain]),
        (json!({ "tags": ["m.favourite"] }), vec![&plain]),
        (
            json!({ "not_tags": ["m.favourite"] }),
            vec![&space, &encrypted, &invited],
        ),
    ] {
        let mut wanted = list(9, 1, json!([]));
        wanted["filters"] = filters.clone();
        let answer = slide(&alice, None, lists(wanted), 0).await;
        expected.sort();
        assert_eq!(
            rooms(&answer).iter().collect::<Vec<_>>(),
            expected,
            "{filters}"
        );
        assert_eq!(answer["lists"]["all"]["count"], expected.len(), "{filters}");
        for room in expected {
            let is_dm = answer["rooms"][room]["is_dm"] == json!(true);
            assert_eq!(is_dm, *room == encrypted, "{filters}");
        }
    }
}

/// An invite has stripped state alone; accepted it is a room, told from the beginning; declined it is gone.
#[tokio::test(start_paused = true)]
async fn invites_are_stripped() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({ "name": "Secret" })).await;
    alice.send(&room, "before").await;
    alice.invite(&room, &bob.id).await;
    let mut connection = Connection::of(&bob);
    let wanted = lists(list(9, 5, json!([["*", "*"]])));
    let answer = connection.ask(wanted.clone()).await;
    let invite = &answer["rooms"][&room];
    assert_eq!(invite["initial"], true);
    assert!(!invite["invite_state"].as_array().unwrap().is_empty());
    for hidden in [
        "timeline",
        "required_state",
        "name",
        "joined_count",
        "prev_batch",
    ] {
        assert!(invite.get(hidden).is_none(), "{hidden}: {invite}");
    }
    bob.join(&room).await;
    let answer = connection.ask(wanted.clone()).await;
    assert_eq!(answer["rooms"][&room]["initial"], true);
    assert_eq!(answer["rooms"][&room]["name"], "Secret");
    assert!(answer["rooms"][&room].get("invite_state").is_none());
    let other = alice.create_room(json!({ "invite": [bob.id] })).await;
    let answer = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&answer), std::slice::from_ref(&other));
    bob.leave(&other).await;
    let answer = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&answer), [other]);
    let answer = connection.ask(wanted).await;
    assert!(rooms(&answer).is_empty());
    assert_eq!(answer["lists"]["all"]["count"], 1);
}

/// Unread counts come with what makes them, and go when they are read, though nothing else happens.
#[tokio::test(start_paused = true)]
async fn unread_counts_are_told_when_they_change() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 5, json!([])));
    connection.ask(wanted.clone()).await;
    let event = bob.send(&room, "unread").await;
    let unread = connection.ask(wanted.clone()).await;
    assert_eq!(unread["rooms"][&room]["notification_count"], 1);
    let receipt = format!(
        "{V3}/rooms/{}/receipt/m.read/{}",
        encode(&room),
        encode(&event)
    );
    alice.post(receipt).json(json!({})).send().await.ok();
    let read = connection.ask(wanted).await;
    assert_eq!(read["rooms"][&room]["notification_count"], 0);
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

fn extension(name: &str, mut config: Value) -> Value {
    config["enabled"] = json!(true);
    let mut wanted = lists(list(9, 1, json!([])));
    wanted["extensions"][name] = config;
    wanted
}

/// MSC4538: messages to the device have a token of their own, and stay until it is given back.
#[tokio::test(start_paused = true)]
async fn messages_to_the_device_have_their_own_token() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let say = async |n: u32| {
        let to = json!({ "messages": { &alice.id: { "*": { "n": n } } } });
        let path = format!("{V3}/sendToDevice/org.example.note/{n}");
        bob.put(path).json(to).send().await.ok();
    };
    let told = |answer: &Value| -> Vec<u64> {
        let events = answer["extensions"]["to_device"]["events"]
            .as_array()
            .unwrap();
        events
            .iter()
            .map(|event| event["content"]["n"].as_u64().unwrap())
            .collect()
    };
    say(1).await;
    say(2).await;
    let mut connection = Connection::of(&alice);
    let one = connection
        .ask(extension("to_device", json!({ "limit": 1 })))
        .await;
    assert_eq!(told(&one), [1]);
    let all = connection.ask(extension("to_device", json!({}))).await;
    assert_eq!(told(&all), [1, 2], "nothing was acknowledged");
    let since = text(&one["extensions"]["to_device"]["next_batch"]);
    let rest = connection
        .ask(extension("to_device", json!({ "since": since })))
        .await;
    assert_eq!(told(&rest), [2]);
    let since = text(&rest["extensions"]["to_device"]["next_batch"]);
    // A connection that begins anew goes on where the token says.
    let mut anew = Connection::of(&alice);
    let none = anew
        .ask(extension("to_device", json!({ "since": since })))
        .await;
    assert!(told(&none).is_empty());
    say(3).await;
    let next = anew
        .wait(extension("to_device", json!({ "since": since })), 30_000)
        .await;
    assert_eq!(told(&next), [3]);
    for bad in [
        json!({ "since": "x" }),
        json!({ "limit": 0 }),
        json!({ "limit": -1 }),
    ] {
        let asked = alice
            .post(SLIDING)
            .json(extension("to_device", bad))
            .send()
            .await;
        asked.error(400, "M_INVALID_PARAM");
    }
}

/// MSC4543: device lists since the position, none where there is none; key counts always.
#[tokio::test(start_paused = true)]
async fn device_lists_are_told_since_the_position() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    let mut connection = Connection::of(&alice);
    let wanted = extension("e2ee", json!({}));
    let first = connection.ask(wanted.clone()).await;
    let e2ee = &first["extensions"]["e2ee"];
    assert!(e2ee.get("device_lists").is_none() && e2ee["device_one_time_keys_count"].is_object());
    bob.join(&room).await;
    let came = connection.ask(wanted.clone()).await;
    assert_eq!(
        came["extensions"]["e2ee"]["device_lists"]["changed"],
        json!([bob.id])
    );
    bob.leave(&room).await;
    let went = connection.ask(wanted).await;
    assert_eq!(
        went["extensions"]["e2ee"]["device_lists"]["left"],
        json!([bob.id])
    );
}

/// MSC3959: account data, the user's own and of rooms in scope, once; of a room that comes into the window all of it.
#[tokio::test(start_paused = true)]
async fn account_data_is_told_once() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = named(&alice, "Pub").await;
    let me = encode(&alice.id);
    let set = async |path: String, n: u32| {
        let path = format!("{V3}/user/{me}/{path}/account_data/org.example.n");
        alice.put(path).json(json!({ "n": n })).send().await.ok();
    };
    let of_room = format!("rooms/{}", encode(&room));
    set(of_room.clone(), 1).await;
    let mut connection = Connection::of(&alice);
    let wanted = extension("account_data", json!({}));
    let first = connection.ask(wanted.clone()).await;
    let data = &first["extensions"]["account_data"];
    assert_eq!(data["rooms"][&room][0]["content"]["n"], 1);
    assert_eq!(data["global"][0]["type"], "m.push_rules");
    let nothing = connection.ask(wanted.clone()).await;
    let data = &nothing["extensions"]["account_data"];
    assert_eq!(data, &json!({ "global": [], "rooms": {} }));
    set(of_room, 2).await;
    let path = format!("{V3}/user/{me}/account_data/org.example.own");
    alice.put(path).json(json!({})).send().await.ok();
    let none = connection
        .ask(extension("account_data", json!({ "lists": [] })))
        .await;
    let data = &none["extensions"]["account_data"];
    assert_eq!(
        (&data["rooms"], &data["global"][0]["type"]),
        (&json!({}), &json!("org.example.own"))
    );
    let both = connection.ask(wanted).await;
    let data = &both["extensions"]["account_data"];
    assert_eq!(data["rooms"][&room][0]["content"]["n"], 2);
    assert_eq!(data["global"], json!([]));
}

/// MSC3960: receipts on what is shown and the user's own at first, then those that move; private ones to their owner alone.
#[tokio::test(start_paused = true)]
async fn receipts_are_told_as_they_move() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let read = async |user: &User, kind: &str, event: &str| {
        let path = format!(
            "{V3}/rooms/{}/receipt/{kind}/{}",
            encode(&room),
            encode(event)
        );
        user.post(path).json(json!({})).send().await.ok();
    };
    let old = alice.send(&room, "old").await;
    read(&bob, "m.read", &old).await;
    let new = alice.send(&room, "new").await;
    let mut connection = Connection::of(&alice);
    let wanted = extension("receipts", json!({}));
    let first = connection.ask(wanted.clone()).await;
    let told = &first["extensions"]["receipts"]["rooms"][&room]["content"];
    assert!(
        told.get(&old).is_none(),
        "bob's is on an event that isn't shown: {told}"
    );
    read(&bob, "m.read", &new).await;
    let moved = connection.wait(wanted.clone(), 30_000).await;
    let told = &moved["extensions"]["receipts"]["rooms"][&room]["content"];
    assert!(told[&new]["m.read"][&bob.id].is_object(), "{moved}");
    assert!(rooms(&moved).is_empty());
    read(&bob, "m.read.private", &new).await;
    let nothing = connection.ask(wanted).await;
    assert_eq!(nothing["extensions"]["receipts"]["rooms"], json!({}));
}

/// MSC4508: who types in the rooms in scope; a room that comes back into scope is told as it is.
#[tokio::test(start_paused = true)]
async fn typing_is_told_in_scope() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let type_on = async |typing: bool| {
        let path = format!("{V3}/rooms/{}/typing/{}", encode(&room), encode(&bob.id));
        let body = json!({ "typing": typing, "timeout": 60_000 });
        bob.put(path).json(body).send().await.ok();
    };
    let users = |answer: &Value| {
        let typing = &answer["extensions"]["typing"]["rooms"][&room];
        typing["content"]["user_ids"].clone()
    };
    let mut connection = Connection::of(&alice);
    let wanted = extension("typing", json!({}));
    connection.ask(wanted.clone()).await;
    let (typed, ()) = tokio::join!(connection.wait(wanted.clone(), 30_000), type_on(true));
    assert_eq!(users(&typed), json!([bob.id]));
    let nothing = connection.ask(wanted.clone()).await;
    assert_eq!(users(&nothing), json!(null));
    type_on(false).await;
    let out = connection
        .ask(extension("typing", json!({ "lists": [] })))
        .await;
    assert_eq!(users(&out), json!(null));
    let back = connection.ask(wanted).await;
    assert_eq!(users(&back), json!([]));
}

const V4: &str = "/_matrix/client/v4/sync";

async fn v4(user: &User, pos: Option<&str>, mut body: Value) -> Value {
    if let Some(pos) = pos {
        body["pos"] = json!(pos);
    }
    user.post(V4).json(body).send().await.ok()
}

/// MSC4186 as it was accepted: what it says otherwise than the older dialect, in the request and in the answer.
#[tokio::test(start_paused = true)]
async fn the_accepted_dialect_is_the_same_engine() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    let invited = bob.create_room(json!({ "invite": [alice.id] })).await;
    bob.join(&room).await;
    bob.send(&room, "hello").await;
    let required = json!({
        "include": [{}, { "type": "m.room.member", "state_key": alice.id }],
        "exclude": [{ "type": "m.room.create" }],
        "lazy_members": true,
    });
    let list = json!({ "range": [0, 9], "timeline_limit": 1, "required_state": required });
    let body = json!({ "lists": { "all": list, "also": list } });
    let first = v4(&alice, None, body.clone()).await;
    let told = &first["rooms"][&room];
    assert_eq!(told["membership"], "join");
    assert_eq!(told["lists"], json!(["all", "also"]));
    assert!(told.get("notification_count").is_none());
    let state = state(told);
    let has = |kind: &str, key: &str| state.contains(&(kind.to_owned(), key.to_owned()));
    assert!(
        has("m.room.name", "") && has("m.room.member", &alice.id) && has("m.room.member", &bob.id)
    );
    assert!(!has("m.room.create", ""), "{state:?}");
    let invite = &first["rooms"][&invited];
    assert_eq!(invite["membership"], "invite");
    assert!(invite["stripped_state"].is_array() && invite.get("name").is_none());
    let pos = text(&first["pos"]);
    // A position is of the connection, whichever way it is spoken of.
    let nothing = v4(&alice, Some(&pos), body.clone()).await;
    assert!(nothing.get("rooms").is_none(), "{nothing}");
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "" }))
        .await;
    let mut more = body.clone();
    more["room_subscriptions"][&room] = json!({ "timeline_limit": 3, "required_state": {} });
    let more = v4(&alice, Some(&pos), more).await;
    let told = &more["rooms"][&room];
    assert_eq!(
        (&told["name"], &told["expanded_timeline"]),
        (&json!(null), &json!(true))
    );
    assert!(told.as_object().unwrap().contains_key("name"));
    alice.kick(&room, &bob.id).await;
    let unknown = v4_error(&alice, "nonsense").await;
    unknown.error(400, "M_UNKNOWN_POS");
    let mut wrong = body;
    wrong["set_presence"] = json!("asleep");
    alice
        .post(V4)
        .json(wrong)
        .send()
        .await
        .error(400, "M_INVALID_PARAM");
}

async fn v4_error(user: &User, pos: &str) -> comity_testkit::Answer {
    user.post(V4).json(json!({ "pos": pos })).send().await
}

/// MSC4538, MSC4543, MSC4508: extensions by the names that are set down for the meantime; unknown ones are passed over.
#[tokio::test(start_paused = true)]
async fn extensions_have_their_names() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    named(&alice, "Pub").await;
    let names = [
        "org.matrix.msc4538.to_device",
        "org.matrix.msc4543.e2ee",
        "org.matrix.msc3959.account_data",
        "org.matrix.msc3960.receipts",
        "typing",
    ];
    let mut body = json!({ "extensions": { "org.example.unknown": { "enabled": true } } });
    for name in names {
        body["extensions"][name] = json!({ "enabled": true });
    }
    let answer = v4(&alice, None, body).await;
    let mut told: Vec<&String> = answer["extensions"].as_object().unwrap().keys().collect();
    let mut names = names.to_vec();
    told.sort();
    names.sort_unstable();
    assert_eq!(told, names);
    let versions = alice.get("/_matrix/client/versions").send().await.ok();
    let unstable = &versions["unstable_features"];
    for feature in [
        "org.matrix.simplified_msc3575",
        "org.matrix.msc4538",
        "org.matrix.msc4543",
    ] {
        assert_eq!(unstable[feature], true, "{feature}");
    }
}
