//! The accepted dialect, `/v4/sync`.

use comity_testkit::{Server, User};
use serde_json::{Value, json};

use crate::{named, state, text};

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
