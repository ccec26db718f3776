//! The server on PostgreSQL, and what must not happen to it there.

use serde_json::{Value, json};

use crate::server::{Server, comity};

const URL: &str = "COMITY_TEST_POSTGRES_URL";

/// The URL of an empty schema of its own; `None`, and said so, without a database.
pub fn database(schema: &str) -> Option<String> {
    let Ok(url) = std::env::var(URL) else {
        let said = format!("SKIPPED: {URL} names no PostgreSQL to test on");
        assert!(std::env::var("CI").is_err(), "{said}");
        eprintln!("{said}");
        return None;
    };
    let reactor = tokio::runtime::Runtime::new().unwrap();
    reactor.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let fresh = format!("drop schema if exists {schema} cascade; create schema {schema}");
        client.batch_execute(&fresh).await.unwrap();
        driver.abort();
    });
    let joint = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{joint}options=-c%20search_path%3D{schema}"))
}

fn body_of(messages: &Value) -> Value {
    messages["chunk"][0]["content"]["body"].clone()
}

/// A life on PostgreSQL: sign up, talk, stop in order, come back, be killed, come back; everything is there.
#[test]
fn serving_on_postgresql() {
    let Some(url) = database("serving") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("STORAGE__ENGINE", "postgres"),
        ("STORAGE__URL", &url),
        ("STORAGE__LANES", "4"),
    ];
    let mut server = Server::start(folder.path(), &environment);
    let alice = server.register("alice", "a secret of alice");
    let token = alice["access_token"].as_str().unwrap();
    let room = server.json("POST", "createRoom", token, json!({})).ok();
    let room = room["room_id"].as_str().unwrap();
    let say = |server: &Server, n: u32| {
        let message = json!({"msgtype": "m.text", "body": n.to_string()});
        let sent = server.json(
            "PUT",
            &format!("rooms/{room}/send/m.room.message/{n}"),
            token,
            message,
        );
        sent.ok()["event_id"].clone()
    };
    let heard = |server: &Server| {
        let path = format!("rooms/{room}/messages?dir=b&limit=1");
        body_of(&server.json("GET", &path, token, json!({})).ok())
    };
    let first = say(&server, 1);
    assert!(server.stop().success(), "{}", server.log());

    let mut server = Server::start(folder.path(), &environment);
    assert_eq!(heard(&server), "1");
    assert_eq!(say(&server, 1), first, "a retry is the same event");
    say(&server, 2);
    server.kill();

    let server = Server::start(folder.path(), &environment);
    assert_eq!(heard(&server), "2");
    let sync = server.json("GET", "sync?timeout=0", token, json!({})).ok();
    assert!(sync["rooms"]["join"][room].is_object(), "{sync}");
}

/// Two servers can't have one store: the first ends with a status of its own as soon as it would write, and answers nothing of it
/// as done. The operator's command takes nothing from a server that runs elsewhere unless it is said that none does.
#[test]
fn a_store_on_postgresql_has_one_server() {
    let Some(url) = database("fenced") else {
        return;
    };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let environment = [("STORAGE__ENGINE", "postgres"), ("STORAGE__URL", &*url)];
    let mut first = Server::start(here.path(), &environment);
    first.register("alice", "a secret of alice");

    let user = |folder: &std::path::Path, arguments: &[&str]| {
        let mut command = comity(folder, &environment);
        command.arg("user").args(arguments).output().unwrap()
    };
    // From another machine, so to say: another folder, where no server listens.
    let refused = user(there.path(), &["list"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("--offline"),
        "{said}"
    );
    first.register("bob", "a secret of bob");
    // Where it runs it does the command itself.
    let listed = user(here.path(), &["list"]);
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        "@alice:localhost\n@bob:localhost\n"
    );

    let listed = user(there.path(), &["list", "--offline"]);
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "{said}");
    let body = json!({"username": "carol", "password": "x", "auth": {"type": "m.login.dummy"}});
    let stream = first.connect();
    let answer = crate::server::ask(
        stream,
        "POST",
        "/_matrix/client/v3/register",
        "",
        body.to_string(),
    );
    assert!(answer.map_or(true, |answer| answer.status == 503));
    assert_eq!(first.ended().code(), Some(3), "{}", first.log());
    assert!(first.log().contains("another process has taken the store"));

    let second = Server::start(here.path(), &environment);
    second.register("carol", "a secret of carol");
}
