//! What is told besides rooms.

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

use crate::{Connection, SLIDING, V3, bodies, extension, named, rooms, slide, text};

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

/// A public room of alice's in which bob is, and types or ceases to.
struct Typist {
    server: Server,
    alice: User,
    bob: User,
    room: String,
}

impl Typist {
    async fn new() -> Self {
        let server = Server::start().await;
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = named(&alice, "Pub").await;
        bob.join(&room).await;
        Self {
            server,
            alice,
            bob,
            room,
        }
    }

    async fn types(&self, typing: bool) {
        let (room, bob) = (encode(&self.room), encode(&self.bob.id));
        let path = format!("{V3}/rooms/{room}/typing/{bob}");
        let body = json!({ "typing": typing, "timeout": 60_000 });
        self.bob.put(path).json(body).send().await.ok();
    }

    /// Who is told to type, if anything is told of that.
    fn users(&self, answer: &Value) -> Value {
        let typing = &answer["extensions"]["typing"]["rooms"][&self.room];
        typing["content"]["user_ids"].clone()
    }
}

/// MSC4508: who types in the rooms in scope; a room that comes back into scope is told as it is.
#[tokio::test(start_paused = true)]
async fn typing_is_told_in_scope() {
    let typist = Typist::new().await;
    let users = |answer: &Value| typist.users(answer);
    let mut connection = Connection::of(&typist.alice);
    let wanted = extension("typing", json!({}));
    connection.ask(wanted.clone()).await;
    let told = connection.wait(wanted.clone(), 30_000);
    let (typed, ()) = tokio::join!(told, typist.types(true));
    assert_eq!(users(&typed), json!([typist.bob.id]));
    let nothing = connection.ask(wanted.clone()).await;
    assert_eq!(users(&nothing), json!(null));
    typist.types(false).await;
    let out = extension("typing", json!({ "lists": [] }));
    let out = connection.ask(out).await;
    assert_eq!(users(&out), json!(null));
    let back = connection.ask(wanted).await;
    assert_eq!(users(&back), json!([]));
}

/// That somebody types is told and not written, but for the first time in a run; what got lost on its way is told again.
#[tokio::test(start_paused = true)]
async fn typing_alone_is_not_kept() {
    let typist = Typist::new().await;
    let users = |answer: &Value| typist.users(answer);
    let typing = json!([typist.bob.id]);
    let mut connection = Connection::of(&typist.alice);
    let wanted = extension("typing", json!({}));
    connection.ask(wanted.clone()).await;
    typist.types(true).await;
    assert_eq!(users(&connection.ask(wanted.clone()).await), typing);
    typist.types(false).await;
    let pos = connection.pos.clone();
    let asked = async {
        let answer = slide(&typist.alice, pos.as_deref(), wanted.clone(), 0).await;
        // Nobody waits for what is written.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        answer
    };
    let (cost, lost) = typist.server.cost(asked).await;
    assert_eq!(users(&lost), json!([]));
    assert_eq!(cost.rows_written, 0);
    let again = connection.ask(wanted.clone()).await;
    assert_eq!(users(&again), json!([]));
    let nothing = connection.ask(wanted.clone()).await;
    assert_eq!(users(&nothing), json!(null));
    assert_eq!(nothing["pos"], again["pos"]);
    typist.types(true).await;
    assert_eq!(users(&connection.ask(wanted.clone()).await), typing);
    // What is told together with something else goes and gets lost with it.
    typist.types(false).await;
    typist.bob.send(&typist.room, "news").await;
    let pos = connection.pos.clone();
    for _ in 0..2 {
        let answer = slide(&typist.alice, pos.as_deref(), wanted.clone(), 0).await;
        assert_eq!(bodies(&answer["rooms"][&typist.room]), ["news"]);
        assert_eq!(users(&answer), json!([]));
        connection.pos = Some(text(&answer["pos"]));
    }
    let nothing = connection.ask(wanted).await;
    assert_eq!(users(&nothing), json!(null));
}

/// Whoever typed when the server ended is told to have ceased, once.
#[tokio::test(start_paused = true)]
async fn a_restart_ends_typing() {
    let typist = Typist::new().await;
    let mut connection = Connection::of(&typist.alice);
    let wanted = extension("typing", json!({}));
    connection.ask(wanted.clone()).await;
    typist.types(true).await;
    let told = connection.ask(wanted.clone()).await;
    assert_eq!(typist.users(&told), json!([typist.bob.id]));
    // What is written next in the same lane is on the disk after that answer's position.
    let me = encode(&typist.alice.id);
    let data = format!("{V3}/user/{me}/account_data/org.example");
    let data = typist.alice.put(data).json(json!({}));
    data.send().await.ok();
    let mut pos = text(&told["pos"]);
    let again = typist.server.restarted().await;
    let alice = again.with_token(&typist.alice.token);
    for expected in [json!([]), json!(null)] {
        let request = alice.post(SLIDING).query("pos", &pos);
        let answer = request.json(wanted.clone()).send().await.ok();
        let typing = &answer["extensions"]["typing"]["rooms"][&typist.room];
        assert_eq!(typing["content"]["user_ids"], expected);
        pos = text(&answer["pos"]);
    }
}
