//! Its log as whoever looks for the cause of an answer reads it.

use std::fs;

use serde_json::{Value, json};

use crate::server::{Server, exchange, files};

/// `log.format = "json"`: each line is an object by itself, and what a request has to say stands under the id that its answer
/// has in `x-request-id`; of a 500 the cause, too, of which the answer says nothing.
#[test]
fn json_lines_carry_the_id_of_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("STORAGE__ENGINE", "memory"),
        ("LOG__FORMAT", "json"),
        ("LOG__LEVEL", "debug"),
    ];
    let mut server = Server::start(folder.path(), &environment);
    let alice = server.register("alice", "a \"password\"");
    let token = alice["access_token"].as_str().unwrap();
    let bearer = format!("authorization: Bearer {token}\r\n");
    let room = server.json("POST", "createRoom", token, json!({"name": "line\nbreak"}));
    let nothing = server.request("GET", "/_matrix/nothing/%22%0a", &bearer, "");
    let uploaded = server.request("POST", "/_matrix/media/v3/upload", &bearer, "a text");
    let uri = uploaded.ok()["content_uri"].as_str().unwrap().to_owned();
    // A file that is gone is a 404; its folder being none is a fault of ours.
    for file in files(&folder.path().join("media/blobs")) {
        let place = file.parent().unwrap();
        fs::remove_dir_all(place).unwrap();
        fs::write(place, "").unwrap();
    }
    let path = uri.replace("mxc://", "/_matrix/client/v1/media/download/");
    let fault = exchange(server.connect(), "GET", &path, &bearer, "").unwrap();
    server.stop();

    let log = server.log();
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines.map(|line| line.expect(&log)).collect();
    for line in &lines {
        let parts = ["timestamp", "level", "target", "message"];
        assert!(parts.iter().all(|part| line[part].is_string()), "{line}");
    }
    for (answer, status) in [(&room, 200), (&nothing, 404), (&fault, 500)] {
        assert_eq!(answer.status, status, "{}", answer.text);
        let of_it = lines.iter().filter(|line| {
            let mut spans = line["spans"].as_array().into_iter().flatten();
            spans.any(|span| span["id"] == answer.header("x-request-id"))
        });
        let of_it: Vec<&Value> = of_it.collect();
        let ended = of_it.iter().filter(|line| line["message"] == "answered");
        let ended: Vec<&Value> = ended.map(|line| &line["status"]).collect();
        assert_eq!(ended, [&json!(status)], "{of_it:#?}");
        let mut causes = of_it.iter().filter_map(|line| line["cause"].as_str());
        assert_eq!(
            causes.any(|cause| !cause.is_empty()),
            status == 500,
            "{of_it:#?}"
        );
    }
}
