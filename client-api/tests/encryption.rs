//! Encryption as a room mode (R20.1, R20.2).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_encryption_policy::Mode;
use comity_testkit::{Server, Settings, User, encode};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const MEGOLM: &str = "m.megolm.v1.aes-sha2";

async fn server(encryption: Mode) -> Server {
    Server::with(Settings {
        encryption,
        ..Settings::default()
    })
    .await
}

/// What a send comes to.
async fn sent(user: &User, room: &str, kind: &str, content: Value) -> u16 {
    let (room, kind) = (encode(room), encode(kind));
    let path = format!("{V3}/rooms/{room}/send/{kind}/{}", user.transaction());
    user.put(path)
        .json(content)
        .unchecked_events()
        .send()
        .await
        .status
        .as_u16()
}

async fn set(user: &User, room: &str, kind: &str, content: Value) -> u16 {
    let path = format!("{V3}/rooms/{}/state/{}/", encode(room), encode(kind));
    user.put(path)
        .json(content)
        .unchecked_events()
        .send()
        .await
        .status
        .as_u16()
}

async fn is_encrypted(user: &User, room: &str) -> bool {
    let path = format!("{V3}/rooms/{}/state/m.room.encryption/", encode(room));
    let answer = user.get(path).send().await;
    answer.status == 200 && answer.body["algorithm"] == MEGOLM
}

fn text() -> Value {
    json!({ "msgtype": "m.text", "body": "in the clear" })
}

fn ciphertext() -> Value {
    json!({ "algorithm": MEGOLM, "ciphertext": "AwgAEnACgAkLmt6q", "session_id": "s" })
}

/// R20.1: new rooms follow the mode; the capabilities say it.
#[tokio::test(start_paused = true)]
async fn new_rooms_follow_the_mode() {
    for (mode, private, public) in [
        (Mode::Forbidden, false, false),
        (Mode::Allowed, false, false),
        (Mode::Default, true, false),
        (Mode::Required, true, true),
    ] {
        let server = server(mode).await;
        let alice = server.register("alice").await;
        for (body, expected) in [
            (json!({}), private),
            (json!({ "preset": "trusted_private_chat" }), private),
            (json!({ "preset": "public_chat" }), public),
            (json!({ "visibility": "public" }), public),
            (json!({ "creation_content": { "type": "m.space" } }), false),
        ] {
            let room = alice.create_room(body.clone()).await;
            assert_eq!(
                is_encrypted(&alice, &room).await,
                expected,
                "{mode:?} {body}"
            );
        }
        let capabilities = alice.get(format!("{V3}/capabilities")).send().await.ok();
        let said = &capabilities["capabilities"]["org.comity.encryption"];
        assert_eq!(*said, json!({ "rooms": mode.as_str() }));
    }
}

/// R20.1: where encryption is required, messages of this server's users are ciphertext; state, reactions and redactions are what they
/// are; encryption isn't ended, by state, redaction or an upgrade. The summary says so.
#[tokio::test(start_paused = true)]
async fn r20_1_required_is_required() {
    let server = server(Mode::Required).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    assert_eq!(sent(&alice, &room, "m.room.message", text()).await, 403);
    assert_eq!(sent(&alice, &room, "m.sticker", text()).await, 403);
    assert_eq!(
        sent(&alice, &room, "m.room.encrypted", ciphertext()).await,
        200
    );
    let event = alice
        .send_event(&room, "m.room.encrypted", ciphertext())
        .await;
    let annotates =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "x" } });
    assert_eq!(sent(&alice, &room, "m.reaction", annotates).await, 200);
    let _: String = alice.redact(&room, &event).await;
    assert_eq!(
        set(&alice, &room, "m.room.topic", json!({ "topic": "t" })).await,
        200
    );
    for pretended in [
        json!({ "body": "in the clear" }),
        json!({ "algorithm": "org.example.none", "ciphertext": "in the clear" }),
    ] {
        assert_eq!(
            sent(&alice, &room, "m.room.encrypted", pretended).await,
            403
        );
    }
    let nothing = json!({ "initial_state": [
        { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "org.example.none" } },
    ] });
    let refused = alice.post(format!("{V3}/createRoom")).json(nothing);
    assert_eq!(refused.send().await.status, 400);
    for downgrade in [json!({}), json!({ "algorithm": "org.example.none" })] {
        assert_eq!(
            set(&alice, &room, "m.room.encryption", downgrade).await,
            403
        );
    }
    let state = alice
        .get(format!("{V3}/rooms/{}/state", encode(&room)))
        .send()
        .await
        .ok();
    let events = state.as_array().unwrap().iter();
    let encryption = events
        .clone()
        .find(|event| event["type"] == "m.room.encryption");
    let id = encode(encryption.unwrap()["event_id"].as_str().unwrap());
    let path = format!("{V3}/rooms/{}/redact/{id}/t", encode(&room));
    alice
        .put(path)
        .json(json!({}))
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    assert!(is_encrypted(&alice, &room).await);
    let upgrade = alice.post(format!("{V3}/rooms/{}/upgrade", encode(&room)));
    let upgraded = upgrade
        .json(json!({ "new_version": "11" }))
        .send()
        .await
        .ok();
    assert!(is_encrypted(&alice, upgraded["replacement_room"].as_str().unwrap()).await);
    let summary = alice.get(format!("/_matrix/client/v1/room_summary/{}", encode(&room)));
    let summary = summary.send().await.ok();
    assert_eq!(summary["encryption"], MEGOLM);
    assert_eq!(summary["org.comity.encryption_mode"], "required");
    assert_eq!(summary["org.comity.url_previews"], false);
    let space = json!({ "creation_content": { "type": "m.space" } });
    let space = alice.create_room(space).await;
    assert_eq!(sent(&alice, &space, "m.room.message", text()).await, 403);
}

/// R20.1: where it is forbidden, nobody turns it on.
#[tokio::test(start_paused = true)]
async fn r20_1_forbidden_is_forbidden() {
    let server = server(Mode::Forbidden).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let encryption = json!({ "algorithm": MEGOLM });
    assert_eq!(
        set(&alice, &room, "m.room.encryption", encryption.clone()).await,
        403
    );
    assert_eq!(
        sent(&alice, &room, "m.room.encrypted", ciphertext()).await,
        403
    );
    assert_eq!(sent(&alice, &room, "m.room.message", text()).await, 200);
    let initial = json!({ "initial_state": [
        { "type": "m.room.encryption", "state_key": "", "content": encryption },
    ] });
    let refused = alice
        .post(format!("{V3}/createRoom"))
        .json(initial)
        .send()
        .await;
    assert_eq!(refused.status, 400);
}

/// R20.1: a room requires by its own state what its tenant allows, for good: so does the room that replaces it.
#[tokio::test(start_paused = true)]
async fn r20_1_a_room_has_a_mode_of_its_own() {
    const MODE: &str = "org.comity.room.encryption_mode";
    let server = server(Mode::Allowed).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let encryption = json!({ "algorithm": MEGOLM });
    let room = json!({
        "preset": "public_chat", "room_version": "11",
        "power_level_content_override": { "users": { &alice.id: 100, &bob.id: 50 } },
    });
    let room = alice.create_room(room).await;
    bob.join(&room).await;
    assert_eq!(
        set(&alice, &room, MODE, json!({ "mode": "required" })).await,
        403,
        "not encrypted yet"
    );
    assert_eq!(
        set(&alice, &room, "m.room.encryption", encryption).await,
        200
    );
    assert_eq!(sent(&bob, &room, "m.room.message", text()).await, 200);
    for (user, expected) in [(&bob, 403), (&alice, 200)] {
        let mode = json!({ "mode": "required" });
        assert_eq!(set(user, &room, MODE, mode).await, expected, "{}", user.id);
    }
    assert_eq!(sent(&bob, &room, "m.room.message", text()).await, 403);
    assert_eq!(
        sent(&bob, &room, "m.room.encrypted", ciphertext()).await,
        200
    );
    for mode in ["allowed", "forbidden"] {
        assert_eq!(set(&alice, &room, MODE, json!({ "mode": mode })).await, 403);
    }
    assert_eq!(
        set(&alice, &room, "m.room.encryption", json!({})).await,
        403
    );
    let upgrade = alice.post(format!("{V3}/rooms/{}/upgrade", encode(&room)));
    let upgraded = upgrade
        .json(json!({ "new_version": "12" }))
        .send()
        .await
        .ok();
    let upgraded = upgraded["replacement_room"].as_str().unwrap();
    assert!(is_encrypted(&alice, upgraded).await);
    assert_eq!(sent(&alice, upgraded, "m.room.message", text()).await, 403);
    let other = alice.create_room(json!({})).await;
    assert_eq!(
        set(&alice, &other, MODE, json!({ "mode": "forbidden" })).await,
        200
    );
    assert_eq!(
        set(
            &alice,
            &other,
            "m.room.encryption",
            json!({ "algorithm": MEGOLM })
        )
        .await,
        403
    );
    assert_eq!(
        set(&alice, &other, MODE, json!({ "mode": "allowed" })).await,
        200
    );
    assert_eq!(
        set(
            &alice,
            &other,
            "m.room.encryption",
            json!({ "algorithm": MEGOLM })
        )
        .await,
        200
    );
}

/// R20.2: no page is previewed where all that is written is encrypted, and clients learn where they are not to ask.
#[tokio::test(start_paused = true)]
async fn r20_2_encrypted_rooms_have_no_previews() {
    for (mode, previews) in [(Mode::Default, true), (Mode::Required, false)] {
        let server = server(mode).await;
        let alice = server.register("alice").await;
        let capabilities = alice.get(format!("{V3}/capabilities")).send().await.ok();
        let said = &capabilities["capabilities"]["org.comity.url_previews"];
        assert_eq!(*said, json!({ "enabled": previews }));
        let preview = alice.get("/_matrix/client/v1/media/preview_url");
        let preview = preview.query("url", "no address").send().await;
        match previews {
            true => preview.error(400, "M_INVALID_PARAM"),
            false => preview.error(404, "M_UNRECOGNIZED"),
        };
        for (room, encrypted) in [
            (json!({}), true),
            (json!({ "preset": "public_chat" }), !previews),
        ] {
            let room = alice.create_room(room).await;
            let path = format!("/_matrix/client/v1/room_summary/{}", encode(&room));
            let summary = alice.get(path).send().await.ok();
            assert_eq!(summary["org.comity.url_previews"], !encrypted);
        }
    }
}
