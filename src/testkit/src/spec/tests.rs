//! The oracle itself, tested by the specification's own examples and by answers made wrong.

use serde_json::{Map, Value, json};

use super::files::{Files, Node};
use super::{Seen, Spec, errors, folder, get};

fn violations(spec: &Spec, method: &str, path: &str, status: u16, body: &Value) -> Vec<String> {
    spec.violations(Seen {
        method,
        path,
        status,
        body: Some(body),
        events: true,
    })
}

/// An example whole: a `$ref` in it stands for another one, to which what is beside it is added.
fn expand(files: &Files, node: &Node) -> Value {
    let mut whole = Map::new();
    if let Some(target) = files.follow(node) {
        whole.extend(expand(files, &target).as_object().cloned().unwrap());
    }
    match node.value() {
        Value::Object(object) => {
            for key in object.keys().filter(|key| *key != "$ref") {
                whole.insert(key.clone(), expand(files, &node.child(&[key]).unwrap()));
            }
            Value::Object(whole)
        }
        Value::Array(items) => (0..items.len())
            .map(|index| expand(files, &node.item(index)))
            .collect(),
        other => other.clone(),
    }
}

/// Each documented response with an example passes: references, formats and patterns are read as meant.
#[test]
fn the_specifications_examples_pass() {
    let Some(spec) = get() else { return };
    let mut seen = 0;
    let mut wrong = Vec::new();
    for row in crate::probe::endpoints() {
        let path = row.filled();
        let method = row.method();
        let Some(operation) = spec.operations.find(&spec.files, method, &path) else {
            wrong.push(format!("{method} {path}: not found"));
            continue;
        };
        for status in 200..500 {
            let Some(response) = operation.response(&spec.files, status) else {
                continue;
            };
            let Some(examples) = response.child(&["content", "application/json", "examples"])
            else {
                continue;
            };
            for example in examples.value().as_object().into_iter().flatten() {
                let node = spec.files.resolve(examples.child(&[example.0]).unwrap());
                let Some(value) = node.child(&["value"]) else {
                    continue;
                };
                let value = expand(&spec.files, &value);
                seen += 1;
                if let Some(Some(schema)) = spec.response_schema(&operation, status) {
                    for error in errors(&schema, &value) {
                        wrong.push(format!("{} {status} {error}", operation.id));
                    }
                }
            }
        }
    }
    assert!(seen > 100, "{seen} examples");
    assert_eq!(wrong, Vec::<String>::new());
}

/// Each example of an event passes the schema of its type.
#[test]
fn the_specifications_events_pass() {
    let Some(spec) = get() else { return };
    let files = Files::new(folder());
    let mut wrong = Vec::new();
    let mut seen = 0;
    // An example of the general schema, without what its method's own asks for.
    let general = "event-schemas/examples/m.key.verification.start.yaml";
    let examples = files.list("event-schemas/examples");
    for file in examples.into_iter().filter(|file| file != general) {
        let document = files.get(&file).unwrap();
        let mut found = Vec::new();
        super::events::collect(spec, Node::root(&file, document).value(), &mut found);
        wrong.extend(found.into_iter().map(|error| format!("{file}: {error}")));
        seen += 1;
    }
    assert!(seen > 60, "{seen} examples");
    assert_eq!(wrong, Vec::<String>::new());
}

/// A missing field, a field of another type, and a status nobody documented, each fail.
#[test]
fn a_wrong_answer_fails() {
    let Some(spec) = get() else { return };
    let whoami = |status, body: &Value| {
        violations(
            spec,
            "GET",
            "/_matrix/client/v3/account/whoami",
            status,
            body,
        )
    };
    assert_eq!(
        whoami(200, &json!({"user_id": "@a:b"})),
        Vec::<String>::new()
    );
    assert_ne!(whoami(200, &json!({})), Vec::<String>::new());
    assert_ne!(whoami(200, &json!({"user_id": 7})), Vec::<String>::new());
    assert_ne!(
        whoami(200, &json!({"user_id": "nobody"})),
        Vec::<String>::new()
    );
    assert_ne!(
        whoami(201, &json!({"user_id": "@a:b"})),
        Vec::<String>::new()
    );
    assert_ne!(
        whoami(500, &json!({"errcode": "M_UNKNOWN", "error": "."})),
        Vec::<String>::new()
    );
}

/// The common errors pass everywhere, in the standard shape alone.
#[test]
fn common_errors_pass_in_the_standard_shape() {
    let Some(spec) = get() else { return };
    let sync = |status, body: Value| {
        violations(spec, "GET", "/_matrix/client/v3/sync", status, &body).is_empty()
    };
    assert!(sync(
        401,
        json!({"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown token"})
    ));
    assert!(!sync(401, json!({"errcode": "M_UNKNOWN_TOKEN"})));
    assert!(!sync(401, json!({"errcode": "M_FORBIDDEN", "error": "."})));
    assert!(sync(
        429,
        json!({"errcode": "M_LIMIT_EXCEEDED", "error": ".", "retry_after_ms": 5})
    ));
    assert!(!sync(
        429,
        json!({"errcode": "M_LIMIT_EXCEEDED", "error": ".", "retry_after_ms": "5"})
    ));
}

/// A documented error is explained too, though its schema asks for the code alone.
#[test]
fn errors_are_explained() {
    let Some(spec) = get() else { return };
    let path = "/_matrix/client/v3/login";
    let login = |body: Value| violations(spec, "POST", path, 403, &body).is_empty();
    assert!(login(
        json!({"errcode": "M_FORBIDDEN", "error": "Wrong password"})
    ));
    assert!(!login(json!({"errcode": "M_FORBIDDEN"})));
}

/// Routes in no schema fail, unless they say that they aren't there; ours have theirs.
#[test]
fn routes_need_a_schema() {
    let Some(spec) = get() else { return };
    let unknown =
        |status, body| violations(spec, "GET", "/_comity/secret", status, &body).is_empty();
    assert!(!unknown(200, json!({})));
    assert!(unknown(
        404,
        json!({"errcode": "M_UNRECOGNIZED", "error": "."})
    ));
    let nonce =
        |body| violations(spec, "GET", "/_synapse/admin/v1/register", 200, &body).is_empty();
    assert!(nonce(json!({"nonce": "0123456789abcdef"})));
    assert!(!nonce(json!({})));
}

/// An empty state key's slash may be left out, `r0` is `v3`, literals win over parameters.
#[test]
fn paths_find_their_operation() {
    let Some(spec) = get() else { return };
    let id = |method: &str, path: &str| {
        spec.operations
            .find(&spec.files, method, path)
            .map(|it| it.id)
    };
    for (method, path, expected) in [
        (
            "PUT",
            "/_matrix/client/v3/rooms/!r:s/state/m.room.name",
            Some("setRoomStateWithKey"),
        ),
        (
            "PUT",
            "/_matrix/client/v3/rooms/!r:s/state/m.room.name/",
            Some("setRoomStateWithKey"),
        ),
        (
            "GET",
            "/_matrix/client/r0/rooms/!r:s/joined_members",
            Some("getJoinedMembersByRoom"),
        ),
        ("POST", "/_matrix/client/v3/logout/all", Some("logout_all")),
        ("GET", "/_matrix/client/v3/pushrules/", Some("getPushRules")),
        ("GET", "/.well-known/matrix/client", Some("getWellknown")),
        ("GET", "/_matrix/client/versions", Some("getVersions")),
        ("GET", "/_matrix/client/v3/nothing", None),
        ("PATCH", "/_matrix/client/v3/login", None),
    ] {
        assert_eq!(id(method, path).as_deref(), expected, "{method} {path}");
    }
}

/// Events are checked wherever they are: in a timeline, in `unsigned`, but not inside content; a redacted one
/// only by its envelope.
#[test]
fn events_are_checked_by_type() {
    let Some(spec) = get() else { return };
    let event = |kind: &str, content: Value, unsigned: Value| {
        json!({
            "type": kind, "content": content, "event_id": "$e", "sender": "@a:b",
            "origin_server_ts": 1, "unsigned": unsigned,
        })
    };
    let fails = |event: Value| {
        let mut found = Vec::new();
        super::events::collect(
            spec,
            &json!({"rooms": {"timeline": {"events": [event]}}}),
            &mut found,
        );
        !found.is_empty()
    };
    let text = json!({"msgtype": "m.text", "body": "hi"});
    assert!(!fails(event("m.room.message", text.clone(), json!({}))));
    assert!(fails(event(
        "m.room.message",
        json!({"msgtype": "m.text"}),
        json!({})
    )));
    assert!(!fails(event(
        "org.example",
        json!({"type": "m.room.message", "content": {}}),
        json!({})
    )));
    let wrong = event("m.room.message", json!({"msgtype": "m.text"}), json!({}));
    assert!(fails(event(
        "m.room.message",
        text,
        json!({"m.relations": {"m.thread": {"latest_event": wrong}}})
    )));
    let because = event("m.room.redaction", json!({}), json!({}));
    assert!(!fails(event(
        "m.room.message",
        json!({}),
        json!({"redacted_because": because})
    )));
    // What came to us redacted has no event beside it that says why; of what a redaction keeps nothing may be missing.
    let state = |kind: &str, content: Value| {
        let mut event = event(kind, content, json!({}));
        event["state_key"] = "".into();
        event
    };
    assert!(!fails(state("m.room.name", json!({}))));
    assert!(fails(state("m.room.name", json!({ "name": 5 }))));
    assert!(fails(state("m.room.join_rules", json!({}))));
    let mut malformed = event("org.example", json!({}), json!({}));
    malformed["event_id"] = json!(5);
    assert!(fails(malformed));
}

/// Every group named is one of the table's, and something of each is due.
#[test]
fn the_probes_groups_are_the_tables() {
    if get().is_none() {
        return;
    }
    let endpoints = crate::probe::endpoints();
    let due: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| endpoint.is_due())
        .collect();
    for group in crate::probe::GROUPS {
        assert!(
            due.iter().any(|endpoint| endpoint.group() == group),
            "{group}"
        );
    }
    assert!(
        due.len() > 90 && due.len() < endpoints.len(),
        "{} due",
        due.len()
    );
}
