//! What users write of themselves and of rooms, by whichever way.

use comity_testkit::encode;
use http::Method;
use serde_json::{Value, json};

use crate::{V3, alone};

/// R3.9: who takes no invites gets none, by whichever way one is written.
#[tokio::test(start_paused = true)]
async fn invites_are_blocked_by_every_way() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    let path = format!(
        "{V3}/user/{}/account_data/m.invite_permission_config",
        bob.id
    );
    let _ = bob
        .put(path)
        .json(json!({"default_action": "block"}))
        .send()
        .await
        .ok();
    let invite = json!({"membership": "invite"});
    let by_state = format!(
        "{V3}/rooms/{}/state/m.room.member/{}",
        encode(&room),
        bob.id
    );
    let first = json!({"type": "m.room.member", "state_key": bob.id, "content": invite});
    let ways = [
        (
            Method::POST,
            format!("{V3}/rooms/{}/invite", encode(&room)),
            json!({"user_id": bob.id}),
        ),
        (Method::PUT, by_state, invite.clone()),
        (
            Method::POST,
            format!("{V3}/createRoom"),
            json!({"invite": [bob.id]}),
        ),
        (
            Method::POST,
            format!("{V3}/createRoom"),
            json!({"initial_state": [first]}),
        ),
    ];
    for (method, path, body) in ways {
        let answer = alice.request(method, path).json(body).send().await;
        answer.error(403, "M_INVITE_BLOCKED");
    }
    assert_eq!(bob.sync(None).await["rooms"]["invite"], Value::Null);
    for (key, errcode) in [
        ("nobody", "M_INVALID_PARAM"),
        ("@bob:elsewhere", "M_INVALID_ROOM_STATE"),
    ] {
        let first = json!({"type": "m.room.member", "state_key": key, "content": invite});
        let create = alice.post(format!("{V3}/createRoom"));
        create
            .json(json!({"initial_state": [first]}))
            .send()
            .await
            .error(400, errcode);
    }
}

/// A new room calls itself by no name that leads elsewhere, or nowhere.
#[tokio::test(start_paused = true)]
async fn a_new_room_takes_no_foreign_alias_for_its_own() {
    let (_server, alice, _) = alone().await;
    let named = json!({"room_alias_name": "taken"});
    alice.create_room(named).await;
    let create = |alias: Value, own: Option<&str>| {
        let state = json!({"type": "m.room.canonical_alias", "content": alias});
        let mut asked = json!({"initial_state": [state]});
        if let Some(own) = own {
            asked["room_alias_name"] = own.into();
        }
        alice.post(format!("{V3}/createRoom")).json(asked).send()
    };
    for alias in [
        json!({"alias": "#taken:localhost"}),
        json!({"alias": "#free:localhost"}),
        json!({"alt_aliases": ["#taken:localhost"]}),
        json!({"alias": "#mine:localhost", "alt_aliases": ["#taken:localhost"]}),
    ] {
        create(alias, Some("mine")).await.error(400, "M_BAD_ALIAS");
    }
    create(json!({"alias": "none"}), None)
        .await
        .error(400, "M_INVALID_PARAM");
    create(json!({"alias": "#mine:localhost"}), Some("mine"))
        .await
        .ok();
    create(json!({}), None).await.ok();
}

/// R3.4, law 1: a new name and the note that rooms are to be told of it are one commit: a server that dies in between tells them
/// when it is back.
#[tokio::test(start_paused = true)]
async fn a_new_name_reaches_rooms_though_the_server_dies() {
    let (server, alice, room) = alone().await;
    let path = format!("{V3}/profile/{}/displayname", alice.id);
    // Named, and nothing shown yet.
    let mut put = Box::pin(alice.put(&path).json(json!({"displayname": "Al"})).send());
    let mut named = false;
    while !named && futures_util::poll!(&mut put).is_pending() {
        tokio::task::yield_now().await;
        named = server.api.accounts.profile(&alice.id).await.unwrap()["displayname"] == "Al";
    }
    assert!(named);
    drop(put);
    let server = server.restarted().await;
    assert_eq!(server.get(&path).send().await.ok()["displayname"], "Al");
    server.api.rooms.resume_profiles().await.unwrap();
    let alice = server.login("alice").await;
    let member = alice.state(&room, "m.room.member", &alice.id).await;
    assert_eq!(member["displayname"], "Al");
}
