//! What sliding sync makes of what peers do to a room's state.

use comity_testkit::User;
use serde_json::{Value, json};

use crate::world::World;

/// A client that wants the last event of each room, and this state.
struct Client<'a> {
    user: &'a User,
    pos: Value,
}

impl<'a> Client<'a> {
    fn of(user: &'a User) -> Self {
        let pos = Value::Null;
        Self { user, pos }
    }

    async fn ask(&mut self, element: Value) -> Value {
        let required = json!({ "include": [element] });
        let all = json!({ "timeline_limit": 1, "required_state": required });
        let body = json!({ "pos": self.pos, "lists": { "all": all } });
        let request = self.user.post("/_matrix/client/v4/sync").json(body);
        let answer = request.send().await.ok();
        self.pos = answer["pos"].clone();
        answer
    }
}

/// MSC4186, `StateStub`: a piece of state that a ban on another fork took away is told by its type and key alone, where it is wanted.
#[tokio::test(start_paused = true)]
async fn state_that_is_no_more_is_a_stub() {
    let levels = json!({
        "users": { "@alice:here.test": 100, "@mallory:evil.test": 50 },
        "events": { "m.room.topic": 0 },
    });
    let mut world = World::with("11", levels).await;
    let room = world.room.id.clone();
    world.room = world.peer.join(world.here(), &room, "eve").await;
    let (peer, before) = (&world.peer, &world.room);
    let topic = json!({ "topic": "soon gone" });
    let topic = peer.event(before, "eve", "m.room.topic", Some(""), topic);
    let eve = peer.user("eve").to_string();
    let ban = json!({ "membership": "ban" });
    let ban = peer.event(before, "mallory", "m.room.member", Some(&eve), ban);
    let alice = world.here().login("alice").await;
    let mut client = Client::of(&alice);
    let wanted = json!({ "type": "m.room.topic" });
    let state = |answer: Value| answer["rooms"][&room]["required_state"].clone();
    assert_eq!(state(client.ask(wanted.clone()).await), Value::Null);
    world.send(&[&topic]).await;
    world.sees(&topic.id).await;
    let told = state(client.ask(wanted.clone()).await);
    assert_eq!(told[0]["content"]["topic"], "soon gone");
    world.send(&[&ban]).await;
    world.sees(&ban.id).await;
    let told = state(client.ask(wanted.clone()).await);
    let stub = json!([{ "type": "m.room.topic", "state_key": "" }]);
    assert_eq!(told, stub);
    assert_eq!(state(client.ask(wanted).await), Value::Null);
}

/// E4: who is put out where forks meet, and by no event, learns of it, once and by either sync; and no more of the room.
#[tokio::test(start_paused = true)]
async fn e4_who_is_put_out_by_a_resolution_is_told() {
    let levels = json!({ "users": { "@alice:here.test": 100, "@mallory:evil.test": 50 } });
    let mut world = World::with("11", levels).await;
    let room = world.room.id.clone();
    let closed = json!({ "join_rule": "invite" });
    let peer = &world.peer;
    let closing = peer.event(
        &world.room,
        "mallory",
        "m.room.join_rules",
        Some(""),
        closed,
    );
    let dave = world.here().register("dave").await;
    dave.join(&room).await;
    let mut client = Client::of(&dave);
    let told = client.ask(json!({})).await;
    assert_eq!(told["rooms"][&room]["membership"], "join");
    let before = dave.sync(None).await;
    world.send(&[&closing]).await;
    world.sees(&closing.id).await;
    let told = client.ask(json!({})).await;
    let left = &told["rooms"][&room];
    assert_eq!(
        (&left["membership"], &left["initial"]),
        (&json!("leave"), &json!(true))
    );
    for hidden in ["timeline", "required_state", "name", "joined_count"] {
        assert!(left.get(hidden).is_none(), "{hidden}: {left}");
    }
    let told = client.ask(json!({})).await;
    assert_eq!(told["rooms"], Value::Null);
    assert_eq!(told["lists"]["all"]["count"], 0);
    let since = before["next_batch"].as_str();
    let synced = dave.sync(since).await;
    assert!(synced["rooms"]["leave"][&room].is_object(), "{synced}");
}
