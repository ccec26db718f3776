//! What users look up on other servers.

use comity_testkit::encode;
use serde_json::json;

use crate::pair::{ONE, Pair, TWO};

/// <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>: an alias of another
/// server leads to its room, and by it one joins.
#[tokio::test(start_paused = true)]
async fn an_alias_of_another_server_leads_to_its_room() {
    let pair = Pair::new().await;
    let room = json!({ "preset": "public_chat", "room_alias_name": "club" });
    let room = pair.alice.create_room(room).await;
    let alias = format!("#club:{ONE}");
    let path = format!("/_matrix/client/v3/directory/room/{}", encode(&alias));
    let found = pair.bob.get(path.clone()).send().await.ok();
    assert_eq!(
        (&found["room_id"], &found["servers"]),
        (&json!(room), &json!([ONE]))
    );
    let unknown = format!(
        "/_matrix/client/v3/directory/room/{}",
        encode(&format!("#x:{ONE}"))
    );
    pair.bob.get(unknown).send().await.error(404, "M_NOT_FOUND");
    assert_eq!(pair.bob.join(&alias).await, room);
    pair.federation.wire.cut(ONE, TWO);
    pair.bob.get(path).send().await.error(404, "M_NOT_FOUND");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>: `via`, of rooms that only the
/// other server has; one that the user could not enter is as one that isn't there (threat E5).
#[tokio::test(start_paused = true)]
async fn a_room_of_another_server_is_looked_at_before_joining() {
    let pair = Pair::new().await;
    let room = json!({ "preset": "public_chat", "name": "Open", "room_alias_name": "open" });
    let room = pair.alice.create_room(room).await;
    let shut = pair.room("private_chat", "12").await;
    let summary = |room: &str| {
        let path = format!("/_matrix/client/v1/room_summary/{}", encode(room));
        pair.bob.get(path).query("via", ONE)
    };
    for name in [room.as_str(), "#open:one.test"] {
        let seen = summary(name).send().await.ok();
        assert_eq!(
            [&seen["room_id"], &seen["name"], &seen["membership"]],
            [&json!(room), &json!("Open"), &json!("leave")]
        );
    }
    let hidden = summary(&shut).send().await.error(404, "M_NOT_FOUND");
    let nowhere = summary("!nowhere:one.test").send().await;
    assert_eq!(hidden, nowhere.error(404, "M_NOT_FOUND"));
    pair.federation.wire.cut(ONE, TWO);
    summary(&room).send().await.error(404, "M_NOT_FOUND");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>: `server`.
#[tokio::test(start_paused = true)]
async fn the_directory_of_another_server_is_read() {
    let pair = Pair::new().await;
    let room = json!({ "preset": "public_chat", "visibility": "public", "name": "Found" });
    let room = pair.alice.create_room(room).await;
    let request = pair.bob.get("/_matrix/client/v3/publicRooms");
    let page = request.query("server", ONE).send().await.ok();
    assert_eq!(page["chunk"].as_array().unwrap().len(), 1);
    assert_eq!(page["chunk"][0]["room_id"], json!(room));
    assert_eq!(page["chunk"][0]["name"], "Found");
    let request = pair.bob.post("/_matrix/client/v3/publicRooms");
    let body = json!({ "filter": { "generic_search_term": "nothing" } });
    let page = request.query("server", ONE).json(body).send().await.ok();
    assert_eq!(page["chunk"], json!([]));
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname>: users of other
/// servers are asked for there.
#[tokio::test(start_paused = true)]
async fn profiles_of_other_servers_are_read() {
    let pair = Pair::new().await;
    let of = |path: &str| {
        format!(
            "/_matrix/client/v3/profile/{}{path}",
            encode(&pair.alice.id)
        )
    };
    let name = json!({ "displayname": "Alice of One" });
    let set = pair.alice.put(of("/displayname")).json(name.clone());
    set.send().await.ok();
    assert_eq!(pair.bob.get(of("/displayname")).send().await.ok(), name);
    assert_eq!(pair.bob.get(of("")).send().await.ok(), name);
    let none = pair.bob.get(of("/avatar_url")).send().await;
    none.error(404, "M_NOT_FOUND");
    let nobody = format!(
        "/_matrix/client/v3/profile/{}",
        encode(&format!("@nobody:{ONE}"))
    );
    let nobody = pair.bob.get(nobody).send().await;
    nobody.error(404, "M_NOT_FOUND");
    pair.federation.wire.cut(ONE, TWO);
    let cut = pair.bob.get(of("")).send().await;
    cut.error(404, "M_NOT_FOUND");
}
