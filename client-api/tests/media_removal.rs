//! Media that goes: by an administrator's hand, or with the account of who uploaded it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use comity_accounts::Standing;
use comity_testkit::{PICTURE, Server, Settings, User};
use serde_json::json;

const ADMIN: &str = "/_synapse/admin/v1";
const MEDIA: &str = "/_matrix/client/v1/media";

async fn admin(server: &Server) -> User {
    let root = server.register("root").await;
    let accounts = &server.api.accounts;
    let made = accounts.set_standing(&root.id, Standing::Admin(true)).await;
    made.unwrap();
    root
}

/// Uploads a file; `server/id` of its URI.
async fn upload(user: &User, file: &[u8]) -> String {
    let request = user.post("/_matrix/media/v3/upload");
    let answer = request.body(file.to_vec(), "image/png").send().await.ok();
    let uri = answer["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

/// The statuses by which the file and a thumbnail of it come.
async fn comes(user: &User, media: &str) -> [u16; 2] {
    let file = user.get(format!("{MEDIA}/download/{media}")).send().await;
    let small = format!("{MEDIA}/thumbnail/{media}?width=32&height=32");
    let small = user.get(small).send().await;
    [file.status.as_u16(), small.status.as_u16()]
}

/// What is quarantined nobody gets until it isn't any more; what is removed is gone, the same file of others is not. Nobody else may.
#[tokio::test(start_paused = true)]
async fn administrators_take_media_away() {
    let server = Server::start().await;
    let root = admin(&server).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let media = upload(&alice, PICTURE).await;
    let same = upload(&bob, PICTURE).await;
    let quarantine = format!("{ADMIN}/media/quarantine/{media}");
    let release = format!("{ADMIN}/media/unquarantine/{media}");
    let remove = format!("{ADMIN}/media/{media}");
    let of_alice = format!("{ADMIN}/users/{}/media", alice.id);
    for refused in [
        alice.post(&quarantine),
        alice.post(&release),
        alice.delete(&remove),
        alice.delete(&of_alice),
        alice.post(format!("{ADMIN}/media/quarantine/localhost/none")),
    ] {
        refused.send().await.error(403, "M_FORBIDDEN");
    }
    assert_eq!(comes(&bob, &media).await, [200, 200]);
    for _ in 0..2 {
        assert_eq!(root.post(&quarantine).send().await.ok(), json!({}));
        assert_eq!(comes(&bob, &media).await, [404, 404]);
        assert_eq!(comes(&alice, &media).await, [404, 404]);
    }
    assert_eq!(comes(&bob, &same).await, [200, 200]);
    let server = server.restarted().await;
    let (root, bob) = (server.login("root").await, server.login("bob").await);
    assert_eq!(comes(&bob, &media).await, [404, 404]);
    assert_eq!(root.post(&release).send().await.ok(), json!({}));
    assert_eq!(comes(&bob, &media).await, [200, 200]);

    // What waits for its upload doesn't get one then.
    let alice = server.login("alice").await;
    let waiting = alice.post("/_matrix/media/v1/create").send().await.ok();
    let waiting = waiting["content_uri"].as_str().unwrap();
    let waiting = waiting.strip_prefix("mxc://").unwrap();
    let judge = root.post(format!("{ADMIN}/media/quarantine/{waiting}"));
    judge.send().await.ok();
    let late = alice.put(format!("/_matrix/media/v3/upload/{waiting}"));
    let late = late.body(PICTURE, "image/png").send().await;
    late.error(404, "M_NOT_FOUND");
    assert_eq!(comes(&bob, waiting).await, [404, 404]);

    let id = media.split('/').next_back().unwrap();
    let removed = root.delete(&remove).send().await.ok();
    assert_eq!(removed, json!({"deleted_media": [id], "total": 1}));
    assert_eq!(comes(&bob, &media).await, [404, 404]);
    assert_eq!(comes(&bob, &same).await, [200, 200]);
    for gone in [root.delete(&remove), root.post(&quarantine)] {
        gone.send().await.error(404, "M_NOT_FOUND");
    }
    let foreign = root.delete(format!("{ADMIN}/media/elsewhere/x"));
    foreign.send().await.error(404, "M_NOT_FOUND");
    let foreign = root.delete(format!("{ADMIN}/users/@alice:elsewhere/media"));
    foreign.send().await.error(400, "M_INVALID_PARAM");
    assert_eq!(server.media_findings().await, Vec::<String>::new());
}

/// A user's files, some at a time; what is gone leaves room for others.
#[tokio::test(start_paused = true)]
async fn a_users_files_go() {
    let server = Server::with(Settings {
        max_user_bytes: Some(3),
        ..Settings::default()
    });
    let server = server.await;
    let root = admin(&server).await;
    let alice = server.register("alice").await;
    for _ in 0..3 {
        upload(&alice, b"x").await;
    }
    let full = alice
        .post("/_matrix/media/v3/upload")
        .body("x", "text/plain");
    full.send().await.error(403, "M_FORBIDDEN");
    for (limit, removed) in [(2, 2), (2, 1), (2, 0)] {
        let path = format!("{ADMIN}/users/{}/media?limit={limit}", alice.id);
        let answer = root.delete(path).send().await.ok();
        assert_eq!(answer["total"], removed);
    }
    upload(&alice, b"xxx").await;
    assert_eq!(server.media_findings().await, Vec::<String>::new());
}

/// `erase`: with the account go its files, and ids that wait for one; without, they stay.
#[tokio::test(start_paused = true)]
async fn an_erased_accounts_files_go() {
    let server = Server::start().await;
    let watcher = server.register("watcher").await;
    let mut media = Vec::new();
    for (name, erase) in [("alice", true), ("bob", false)] {
        let user = server.register(name).await;
        media.push(upload(&user, name.as_bytes()).await);
        let waiting = user.post("/_matrix/media/v1/create").send().await.ok();
        let waiting = waiting["content_uri"].as_str().unwrap();
        media.push(waiting.strip_prefix("mxc://").unwrap().to_owned());
        server.api.deactivate(&user.id, erase).await.unwrap();
    }
    let there = async |media: &str| {
        let path = format!("{MEDIA}/download/{media}?timeout_ms=0");
        watcher.get(path).send().await.status.as_u16()
    };
    assert_eq!((there(&media[0]).await, there(&media[1]).await), (404, 404));
    assert_eq!((there(&media[2]).await, there(&media[3]).await), (200, 504));
    assert_eq!(server.media_findings().await, Vec::<String>::new());
}
