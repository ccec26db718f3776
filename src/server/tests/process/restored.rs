//! A store that is put back from a backup: law 12.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::server::{Server, comity};

const ROCKS: [(&str, &str); 2] = [("STORAGE__ENGINE", "rocksdb"), ("LIMITS__ENABLED", "false")];

fn restored(folder: &Path) -> (Option<i32>, String) {
    let done = comity(folder, &ROCKS).arg("restored").output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(said).unwrap())
}

/// A folder is copied while the server is stopped; what comes after is lost. Whoever was signed in has to say the password again, on the
/// same device; a position from the lost time is told the room anew, as it was.
#[test]
fn a_backup_is_put_back() {
    let home = tempfile::tempdir().unwrap();
    let (data, backup) = (home.path().join("data"), home.path().join("backup"));
    let mut server = Server::start(&data, &ROCKS);
    let alice = server.register("alice", "password of alice");
    let (token, device) = (&alice["access_token"], &alice["device_id"]);
    let token = token.as_str().unwrap();
    let room = server.json("POST", "createRoom", token, json!({})).ok();
    let room = room["room_id"].as_str().unwrap();
    let say = |server: &Server, body: &str| {
        let path = format!("rooms/{room}/send/m.room.message/{body}");
        let content = json!({ "msgtype": "m.text", "body": body });
        server.json("PUT", &path, token, content).ok()
    };
    say(&server, "kept");
    assert!(server.stop().success());
    let copied = Command::new("cp").arg("-r").args([&data, &backup]).status();
    assert!(copied.unwrap().success());

    let mut server = Server::start(&data, &ROCKS);
    say(&server, "lost");
    let since = server.json("GET", "sync", token, json!({})).ok();
    let since = since["next_batch"].as_str().unwrap();
    assert!(server.stop().success());

    // The folder alone, as before its contents are put there.
    let (code, said) = restored(&home.path().join("empty"));
    assert_eq!(code, Some(1), "{said}");
    std::fs::create_dir_all(home.path().join("empty/rocksdb")).unwrap();
    let (code, said) = restored(&home.path().join("empty"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("put the backup back first"), "{said}");
    let (code, said) = restored(&backup);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with("begins; the server can be started.\n"),
        "{said}"
    );
    let mut server = Server::start(&backup, &ROCKS);
    let (code, said) = restored(&backup);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a server runs"), "{said}");
    let refused = server.json("GET", "account/whoami", token, json!({}));
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["soft_logout"], true);
    let again = json!({
        "type": "m.login.password", "device_id": device, "password": "password of alice",
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let again = server.json("POST", "login", "", again).ok();
    assert_eq!(&again["device_id"], device);
    let token = again["access_token"].as_str().unwrap();
    let path = format!("sync?since={since}");
    let told = server.json("GET", &path, token, json!({})).ok();
    let timeline = &told["rooms"]["join"][room]["timeline"];
    let bodies = timeline["events"].as_array().unwrap().iter();
    let bodies = bodies.filter_map(|event| event["content"]["body"].as_str());
    assert_eq!(bodies.collect::<Vec<_>>(), ["kept"]);
    assert!(server.stop().success());
    let checked = comity(&backup, &ROCKS).arg("check").status();
    assert!(checked.unwrap().success());
}
