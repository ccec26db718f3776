//! What a user is answered doesn't depend on what keeps the rows.

use serde_json::json;

use crate::{postgres::database, server::Server};

/// Threat A4: NUL, lone surrogates, duplicate keys and what else engines might take differently: the same answer, the same bytes read
/// back, never a 500.
#[test]
fn a4_odd_text_is_the_same_on_every_engine() {
    let mut engines = vec![("memory", None), ("rocksdb", None)];
    if let Some(url) = database("odd_text") {
        engines.push(("postgres", Some(url)));
    }
    let mut seen = Vec::new();
    for (engine, url) in &engines {
        let folder = tempfile::tempdir().unwrap();
        let environment = [
            ("STORAGE__ENGINE", *engine),
            (
                "STORAGE__URL",
                url.as_deref().unwrap_or("postgresql://none"),
            ),
            ("LIMITS__ENABLED", "false"),
        ];
        seen.push(answers(&Server::start(folder.path(), &environment)));
    }
    for (answers, (engine, _)) in seen.iter().zip(&engines) {
        assert!(
            answers.iter().all(|(_, status, _)| *status < 500),
            "{engine}: {answers:?}"
        );
        assert_eq!(answers, &seen[0], "{engine}");
    }
    assert!(
        seen[0].iter().any(|(_, _, text)| text.contains("\\u0000")),
        "{:?}",
        seen[0]
    );
}

/// What is written and read back, with each status and what was read.
fn answers(server: &Server) -> Vec<(String, u16, String)> {
    let alice = server.register("alice", "pass\u{0}word");
    let token = alice["access_token"].as_str().unwrap();
    let bearer = format!("authorization: Bearer {token}\r\n");
    let room = server.json("POST", "createRoom", token, json!({})).ok();
    let room = room["room_id"].as_str().unwrap();
    let paths = [
        format!("rooms/{room}/state/org.example/key"),
        format!("rooms/{room}/state/org.example%00/%00key%00"),
        "user/@alice:localhost/account_data/org.example%00".to_owned(),
        format!("user/@alice:localhost/rooms/{room}/account_data/%00"),
        "profile/@alice:localhost/displayname".to_owned(),
    ];
    let contents = [
        r#"{"displayname":"a\u0000b"}"#,
        r#"{"\u0000":{"\u0000":"\u0000"},"displayname":"\u0000"}"#,
        r#"{"displayname":"\ud800"}"#,
        r#"{"displayname":"\udc00\ud800","x":1}"#,
        r#"{"displayname":"x","displayname":"y","a":{"b":1,"b":2}}"#,
        r#"{"displayname":"\ud83d\ude00 \u202e \ufffe \u001b"}"#,
    ];
    let mut answers = Vec::new();
    for path in &paths {
        for content in contents {
            let path = format!("/_matrix/client/v3/{path}");
            let put = server.request("PUT", &path, &bearer, content);
            let get = server.request("GET", &path, &bearer, "");
            let what = format!("{} {content}", path.replace(room, "ROOM"));
            answers.push((what.clone(), put.status, String::new()));
            answers.push((what, get.status, get.text));
        }
    }
    let login = json!({
        "type": "m.login.password", "password": "pass\u{0}word",
        "identifier": {"type": "m.id.user", "user": "alice"},
    });
    let login = server.json("POST", "login", "", login).status;
    answers.push(("login".to_owned(), login, String::new()));
    answers
}
