//! What must be in no log, no error and no file: E10, G14.

use serde_json::{Value, json};

use crate::server::{Server, files};

const CANARY: &str = "CANARY5e1f";

/// E10: tokens, passwords and what users write are in no line of the log at its most talkative, and in no error; no byte of a
/// request starts a terminal's escape sequence there.
#[test]
fn e10_neither_secrets_nor_escapes_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("STORAGE__ENGINE", "memory"),
        ("LOG__LEVEL", "trace"),
        ("LIMITS__ENABLED", "false"),
        ("REGISTRATION__SHARED_SECRET", CANARY),
    ];
    let mut server = Server::start(folder.path(), &environment);
    let password = format!("password {CANARY}");
    let alice = server.register("alice", &password);
    let (token, refresh) = (text(&alice, "access_token"), text(&alice, "refresh_token"));
    let login = |password: &str| {
        json!({
            "type": "m.login.password", "password": password, "refresh_token": true,
            "identifier": {"type": "m.id.user", "user": "alice"},
        })
    };
    let other = server.json("POST", "login", "", login(&password)).ok();
    let mut refused = vec![server.json("POST", "login", "", login(&format!("wrong {CANARY}")))];
    let body = json!({"refresh_token": text(&other, "refresh_token")});
    server.json("POST", "refresh", "", body).ok();
    let room = text(
        &server.json("POST", "createRoom", &token, json!({})).ok(),
        "room_id",
    );
    let message = json!({"msgtype": "m.text", "body": format!("{CANARY}\u{1b}[31m")});
    server
        .json(
            "PUT",
            &format!("rooms/{room}/send/m.room.message/1"),
            &token,
            message,
        )
        .ok();

    // Every endpoint: with a good token and a body that fits nothing, with a bad token in either place, with no JSON.
    let body = json!({
        "password": CANARY, "new_password": CANARY, "token": CANARY, "refresh_token": CANARY, "session": CANARY,
        "body": CANARY, "user": CANARY, "username": [CANARY], "name": {"x": CANARY}, "type": CANARY, "user_id": [CANARY],
        "auth": {"type": "m.login.password", "password": CANARY, "session": CANARY, "token": CANARY},
    });
    let body = body.to_string();
    let good = format!("authorization: Bearer {token}\r\n");
    let bad = format!("authorization: Bearer {CANARY}\r\ncookie: {CANARY}\r\n");
    for endpoint in comity_testkit::probe::endpoints() {
        let (method, path) = (endpoint.method(), endpoint.filled());
        // Whatever would sign the good token out, or wait for what never comes.
        if ["logout", "deactivate", "delete_devices", "/sync", "/events"]
            .iter()
            .any(|not| path.ends_with(not))
        {
            continue;
        }
        refused.push(server.request(method, &path, &good, &body));
        refused.push(server.request(method, &path, &bad, &body));
        refused.push(server.request(method, &path, "", format!("{{\"x\":\"{CANARY}")));
        let in_query = format!("{path}?access_token={CANARY}&x={CANARY}");
        refused.push(server.request(method, &in_query, "", ""));
    }
    // Escapes: in the path, encoded and raw, in a header, in the body.
    let path = "/_matrix/client/v3/%1b[31mred/profile/@%1b[2Jx:localhost";
    refused.push(server.request("GET", path, "", ""));
    refused.push(server.request(
        "PUT",
        &format!("{path}/displayname"),
        &good,
        "{\"displayname\":\"\u{1b}[1m\"}",
    ));
    let raw = server.connect();
    drop(crate::server::ask(
        raw,
        "GET",
        "/_matrix/\u{1b}[31m",
        "user-agent: \u{1b}[31m\r\n",
        "",
    ));

    let refused_count = refused.len();
    for answer in refused {
        // A profile may say what its user wrote; an error may not.
        if answer.status >= 400 {
            assert!(!answer.text.contains(CANARY), "{}", answer.text);
            assert!(answer.status != 500, "{}", answer.text);
        }
    }
    server.stop();
    let log = server.log();
    let answered = log.matches("answered").count();
    assert!(
        answered >= refused_count,
        "{answered} of {refused_count} requests are in the log"
    );
    for secret in [CANARY, &token, &refresh] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
    }
    let line = log.lines().find(|line| line.contains('\u{1b}'));
    assert_eq!(line, None, "an escape is logged");
}

/// G14: a password is in no file, log or WAL, whichever way it came; nor are the tokens that it was good for.
#[test]
fn g14_no_file_holds_a_password_or_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[("LOG__LEVEL", "debug")]);
    let alice = server.register("alice", &format!("{CANARY} one"));
    let token = text(&alice, "access_token");
    let proof = |password: &str| {
        json!({
            "type": "m.login.password", "password": password,
            "identifier": {"type": "m.id.user", "user": "alice"},
        })
    };
    let wrong = proof(&format!("{CANARY} wrong"));
    assert_eq!(server.json("POST", "login", "", wrong).status, 403);
    let change =
        json!({"new_password": format!("{CANARY} two"), "auth": proof(&format!("{CANARY} one"))});
    server.json("POST", "account/password", &token, change).ok();
    let other = server
        .json("POST", "login", "", proof(&format!("{CANARY} two")))
        .ok();
    let mut secrets = vec![
        CANARY.to_owned(),
        token.clone(),
        text(&alice, "refresh_token"),
    ];
    secrets.push(text(&other, "access_token"));
    // Something that is to be found, so that looking means something.
    let body = json!({"topic": "to be found", "name": "to be found"});
    server.json("POST", "createRoom", &token, body).ok();
    server.kill();
    let mut found = false;
    for file in files(folder.path()) {
        let bytes = std::fs::read(&file).unwrap();
        let has = |text: &str| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        found |= has("@alice:localhost");
        for secret in &secrets {
            assert!(!has(secret), "{} holds a secret", file.display());
        }
    }
    assert!(found, "nothing of the account is in any file");
    assert!(!secrets.iter().any(|secret| server.log().contains(secret)));
}

fn text(object: &Value, key: &str) -> String {
    object[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {object}"))
        .to_owned()
}
