//! Server notices.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_accounts::Standing;
use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const SEND: &str = "/_synapse/admin/v1/send_server_notice";

/// <https://spec.matrix.org/v1.19/client-server-api/#server-notices>: one room a user, whose invite can't be declined and which can
/// be left; a repeated transaction sends nothing anew.
#[tokio::test(start_paused = true)]
async fn notices() {
    let server = Server::start().await;
    let (admin, alice) = (
        server.register("admin").await,
        server.register("alice").await,
    );
    alice.post(SEND).send().await.error(403, "M_FORBIDDEN");
    let admin_id = admin.id.as_str();
    server
        .api
        .accounts
        .set_standing(admin_id, Standing::Admin(true))
        .await
        .unwrap();
    let notice = json!({"user_id": alice.id, "content": {"msgtype": "m.text", "body": "hello"}});
    admin.post(SEND).json(&notice).send().await.ok();
    let room = room_of(&server, &alice).await;
    let leave = format!("/_matrix/client/v3/rooms/{}/leave", encode(&room));
    let refused = alice.post(&leave).send().await;
    refused.error(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    alice.join(&room).await;
    alice.post(&leave).send().await.ok();
    let first = admin
        .put(format!("{SEND}/1"))
        .json(&notice)
        .send()
        .await
        .ok();
    assert_eq!(room_of(&server, &alice).await, room);
    let again: Value = admin
        .put(format!("{SEND}/1"))
        .json(&notice)
        .send()
        .await
        .ok();
    assert_eq!(first, again);
    let nobody = json!({"user_id": "@nobody:localhost", "content": {}});
    admin
        .post(SEND)
        .json(&nobody)
        .send()
        .await
        .error(404, "M_NOT_FOUND");
}

/// The one room that the user is invited to.
async fn room_of(server: &Server, user: &User) -> String {
    let reader = server.api.rooms.tenant().reader();
    let user = user.id.as_str().try_into().unwrap();
    let rooms = server.api.rooms.memberships(&reader, user).await.unwrap();
    assert_eq!(rooms.len(), 1);
    assert_eq!(rooms[0].1.value.membership, "invite");
    rooms[0].1.value.room_id.clone()
}
