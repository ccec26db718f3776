//! Section G, limits and sign-in.

use comity_accounts::Standing;
use comity_testkit::{Server, Settings, User, encode, password};
use serde_json::{Value, json};

use crate::{SLIDING, V3, alone};

/// G1: what is no JSON is refused wherever JSON is read: forms, files, nothing at all where something is needed.
#[tokio::test(start_paused = true)]
async fn g1_forms_and_files_are_no_json() {
    let (server, alice, _) = alone().await;
    let form =
        "--x\r\ncontent-disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\n{}\r\n--x--\r\n";
    for (kind, body) in [
        ("multipart/form-data; boundary=x", form),
        (
            "application/x-www-form-urlencoded",
            "type=m.login.password&user=a",
        ),
        ("application/json", "\u{1f}\u{8b}"),
    ] {
        let login = server.post(format!("{V3}/login")).body(body, kind);
        login.send().await.error(400, "M_NOT_JSON");
        let create = alice.post(format!("{V3}/createRoom")).body(body, kind);
        create.send().await.error(400, "M_NOT_JSON");
    }
}

/// G8: numbers beyond all sense and positions of the future are cut or refused, and nobody waits for ever.
#[tokio::test(start_paused = true)]
async fn g8_absurd_numbers_and_future_positions() {
    // Another server's position, far ahead of this one's.
    let (_other, carol, elsewhere) = alone().await;
    for n in 0..50 {
        carol.send(&elsewhere, &n.to_string()).await;
    }
    let future = carol.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_server, alice, room) = alone().await;
    let event = encode(&alice.send(&room, "x").await);
    let (id, v1) = (encode(&room), "/_matrix/client/v1");
    let numbers = [
        "0",
        "-1",
        "1000000000",
        "1000000000000",
        "9223372036854775808",
        "99999999999999999999999",
        "1e9",
        "x",
        "",
    ];
    for path in [
        format!("{V3}/rooms/{id}/messages?dir=b&limit=N"),
        format!("{V3}/rooms/{id}/context/{event}?limit=N"),
        format!("{V3}/rooms/{id}/initialSync?limit=N"),
        format!("{V3}/initialSync?limit=N"),
        format!("{V3}/publicRooms?limit=N"),
        format!("{v1}/rooms/{id}/threads?limit=N"),
        format!("{v1}/rooms/{id}/relations/{event}?limit=N"),
        format!("{v1}/rooms/{id}/hierarchy?limit=N&max_depth=N"),
        format!("{v1}/rooms/{id}/timestamp_to_event?dir=b&ts=N"),
        format!("{V3}/sync?timeout=N"),
        format!("{V3}/sync?timeout=N&since={future}"),
        format!("{V3}/events?timeout=N&from={future}"),
        format!("{V3}/rooms/{id}/messages?dir=b&from={future}&limit=N"),
        format!("{V3}/rooms/{id}/messages?dir=f&to={future}&limit=N"),
        format!("{V3}/rooms/{id}/members?at={future}&N"),
    ] {
        for number in numbers {
            let path = path.replace('N', number);
            let began = tokio::time::Instant::now();
            let answer = alice.get(&path).send().await;
            let status = answer.status.as_u16();
            assert!(
                [200, 400, 404].contains(&status),
                "{path}: {status} {}",
                answer.body
            );
            assert!(
                began.elapsed().as_secs() < 600,
                "{path}: waited {:?}",
                began.elapsed()
            );
        }
    }
    for (path, body) in [
        (
            format!("{V3}/user_directory/search"),
            json!({"search_term": "a", "limit": 1_000_000_000}),
        ),
        (format!("{V3}/publicRooms"), json!({"limit": 1_000_000_000})),
        (
            format!("{V3}/user/{}/filter", encode(&alice.id)),
            json!({"room": {"timeline": {"limit": 1_000_000_000}}}),
        ),
    ] {
        let answer = alice.post(&path).json(body).send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

/// G8: of sliding sync as much as is of use: lists, subscriptions, ranges, names are counted, a timeline is cut, and of connections a
/// device has sixteen, of which the one least used gives way.
#[tokio::test(start_paused = true)]
async fn g8_sliding_sync_is_bounded() {
    let (_server, alice, room) = alone().await;
    for n in 0..120 {
        alice.send(&room, &n.to_string()).await;
    }
    let config = |limit: u64| json!({"timeline_limit": limit, "required_state": []});
    let named = |count: usize, of: &dyn Fn(usize) -> String| {
        let entries = (0..count).map(|n| (of(n), config(1)));
        serde_json::Value::Object(entries.collect())
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut list = config(1);
        list[key] = value;
        json!({"lists": {"a": list}})
    };
    let state = vec![["m.room.name", ""]; 501];
    let names: Vec<_> = (0..220)
        .map(|n| [format!("{n:0>240}"), String::new()])
        .collect();
    for (body, code) in [
        (
            json!({"lists": named(101, &|n| n.to_string())}),
            "M_INVALID_PARAM",
        ),
        (
            json!({"lists": named(1, &|_| "x".repeat(256))}),
            "M_INVALID_PARAM",
        ),
        (
            json!({"room_subscriptions": named(101, &|n| format!("!{n}:localhost"))}),
            "M_INVALID_PARAM",
        ),
        (
            json!({"room_subscriptions": named(1, &|_| "nonsense".into())}),
            "M_INVALID_PARAM",
        ),
        (json!({"conn_id": "x".repeat(256)}), "M_INVALID_PARAM"),
        (with("ranges", json!([[2, 1]])), "M_INVALID_PARAM"),
        (with("ranges", json!(vec![[0, 1]; 101])), "M_INVALID_PARAM"),
        (with("required_state", json!(state)), "M_INVALID_PARAM"),
        (with("required_state", json!(names)), "M_INVALID_PARAM"),
        (with("ranges", json!([[-1, 1]])), "M_BAD_JSON"),
        (with("timeline_limit", json!(-1)), "M_BAD_JSON"),
    ] {
        let refused = alice.post(SLIDING).json(body).send().await;
        refused.error(400, code);
    }
    overlapping(&alice).await;
    let much = with("timeline_limit", json!(9_007_199_254_740_991_u64));
    let answer = alice.post(SLIDING).json(much).send().await.ok();
    let timeline = &answer["rooms"][&room]["timeline"];
    assert_eq!(timeline.as_array().unwrap().len(), 100);
    let slide = async |n: usize, pos: Option<&str>| {
        let body = json!({"conn_id": format!("c{n}")});
        let request = alice.post(SLIDING).json(body);
        match pos {
            Some(pos) => request.query("pos", pos).send().await,
            None => request.send().await,
        }
    };
    let mut positions = Vec::new();
    for n in 0..17 {
        let pos = slide(n, None).await.ok()["pos"]
            .as_str()
            .unwrap()
            .to_owned();
        positions.push(pos);
    }
    let ended = slide(0, Some(&positions[0])).await;
    ended.error(400, "M_UNKNOWN_POS");
    let _ = slide(16, Some(&positions[16])).await.ok();
}

/// G8: lists whose windows overlap in another way in each room come to a state of its own in each; so much of it is taken.
async fn overlapping(user: &User) {
    for _ in 0..40 {
        user.create_room(json!({})).await;
    }
    let lists = |elements: usize| {
        let list = |bit: usize| {
            let rooms = (0..40).filter(|place| (place + 1) & (1 << bit) != 0);
            let rooms: Vec<_> = rooms.map(|place| [place, place]).collect();
            let state = (0..elements).map(|n| [format!("{bit}.{n}"), String::new()]);
            let state: Vec<_> = state.collect();
            json!({"ranges": rooms, "timeline_limit": 1, "required_state": state})
        };
        let lists = (0..6).map(|bit| (bit.to_string(), list(bit)));
        json!({"lists": serde_json::Value::Object(lists.collect())})
    };
    let few = user.post(SLIDING).json(lists(10)).send().await.ok();
    assert_eq!(few["rooms"].as_object().unwrap().len(), 40);
    let refused = user.post(SLIDING).json(lists(100)).send().await;
    refused.error(400, "M_INVALID_PARAM");
}

/// G9: whatever writes, or costs more than a page, has a limit for who repeats it.
#[tokio::test(start_paused = true)]
async fn g9_whoever_repeats_has_to_wait() {
    let settings = Settings {
        limits: true,
        ..Settings::default()
    };
    let server = Server::with(settings).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let event = encode(&alice.send(&room, "x").await);
    let (id, me, v1) = (encode(&room), encode(&alice.id), "/_matrix/client/v1");
    let target = json!({"user_id": "@nobody:localhost"});
    for (method, path, body) in [
        (
            "PUT",
            format!("{V3}/rooms/{id}/send/m.room.message/T"),
            json!({"body": "x"}),
        ),
        ("POST", format!("{V3}/rooms/{id}/kick"), target.clone()),
        ("POST", format!("{V3}/rooms/{id}/ban"), target.clone()),
        ("POST", format!("{V3}/rooms/{id}/unban"), target.clone()),
        ("POST", format!("{V3}/rooms/{id}/leave"), json!({})),
        ("POST", format!("{V3}/rooms/{id}/forget"), json!({})),
        (
            "PUT",
            format!("{V3}/rooms/{id}/typing/{me}"),
            json!({"typing": true}),
        ),
        (
            "POST",
            format!("{V3}/rooms/{id}/receipt/m.read/{event}"),
            json!({}),
        ),
        ("POST", format!("{V3}/rooms/{id}/read_markers"), json!({})),
        ("GET", format!("{v1}/rooms/{id}/threads"), json!(null)),
        (
            "GET",
            format!("{v1}/rooms/{id}/timestamp_to_event?ts=0&dir=f"),
            json!(null),
        ),
        (
            "GET",
            format!("{v1}/mutual_rooms?user_id=%40nobody%3Alocalhost"),
            json!(null),
        ),
        (
            "PUT",
            format!("{V3}/sendToDevice/org.example.message/T"),
            json!({"messages": {}}),
        ),
        (
            "POST",
            format!("{V3}/keys/query"),
            json!({"device_keys": {}}),
        ),
        (
            "POST",
            format!("{V3}/keys/claim"),
            json!({"one_time_keys": {}}),
        ),
        ("POST", format!("{V3}/keys/upload"), json!({})),
        ("POST", format!("{V3}/keys/signatures/upload"), json!({})),
        (
            "DELETE",
            format!("{V3}/room_keys/keys?version=1"),
            json!(null),
        ),
        (
            "POST",
            format!("{V3}/refresh"),
            json!({"refresh_token": "x"}),
        ),
    ] {
        let mut waits = false;
        for n in 0..300 {
            let path = path.replace("/T", &format!("/{n}"));
            let request = match method {
                "PUT" => alice.put(&path).json(body.clone()),
                "POST" => alice.post(&path).json(body.clone()),
                "DELETE" => alice.delete(&path),
                _ => alice.get(&path),
            };
            let answer = request.send().await;
            if answer.status == 429 {
                answer.error(429, "M_LIMIT_EXCEEDED");
                waits = true;
                break;
            }
        }
        assert!(waits, "{method} {path} may be repeated for ever");
    }
}

/// Law 11: servers that nobody has heard of are few a user, however few requests it takes to write to many; those we know are not counted.
#[tokio::test(start_paused = true)]
async fn g9_strangers_are_few() {
    let settings = Settings {
        limits: true,
        ..Settings::default()
    };
    let server = Server::with(settings).await;
    let alice = server.register("alice").await;
    let tell = async |names: std::ops::Range<u32>| {
        let to = names.map(|n| (format!("@a:x{n}.test"), json!({ "D": {} })));
        let messages: serde_json::Map<_, _> = to.collect();
        let path = format!("{V3}/sendToDevice/m.test/{}", alice.transaction());
        let request = alice.put(path).json(json!({ "messages": messages }));
        request.send().await
    };
    tell(0..150).await.ok();
    tell(150..300).await.error(429, "M_LIMIT_EXCEEDED");
    // What is refused costs nothing, and what could never pass isn't told to come again.
    tell(150..200).await.ok();
    tell(200..401).await.error(413, "M_TOO_LARGE");
    let ours = json!({ "messages": { &alice.id: { "*": {} } } });
    let path = format!("{V3}/sendToDevice/m.test/{}", alice.transaction());
    alice.put(path).json(ours).send().await.ok();
    // Whose keys are asked for are counted with them.
    let ways = [
        ("keys/query", "device_keys"),
        ("keys/claim", "one_time_keys"),
        ("keys/signatures/upload", ""),
    ];
    for (path, under) in ways {
        let asker = server.register(&path.replace('/', "_")).await;
        let ask = async |names: std::ops::Range<u32>| {
            let empty = if path == "keys/query" {
                json!([])
            } else {
                json!({})
            };
            let of = names.map(|n| (format!("@a:x{n}.test"), empty.clone()));
            let of = Value::Object(of.collect());
            let body = match under {
                "" => of,
                under => json!({ under: of }),
            };
            asker.post(format!("{V3}/{path}")).json(body).send().await
        };
        ask(0..150).await.ok();
        ask(150..300).await.error(429, "M_LIMIT_EXCEEDED");
        ask(200..401).await.error(413, "M_TOO_LARGE");
    }
}

/// G9: a change that everybody who shares a room hears of is one of an account, however it is made.
#[tokio::test(start_paused = true)]
async fn g9_changes_of_keys_are_few() {
    let settings = Settings {
        limits: true,
        ..Settings::default()
    };
    let server = Server::with(settings).await;
    for (n, path) in ["upload", "device_signing/upload", "devices"]
        .iter()
        .enumerate()
    {
        let user = server.register(&format!("u{n}")).await;
        let change = async || {
            let request = match *path {
                "devices" => user
                    .put(format!("{V3}/devices/{}", user.device))
                    .json(json!({ "display_name": "another" })),
                path => user
                    .post(format!("{V3}/keys/{path}"))
                    .json(json!({ "device_keys": {}, "master_key": {} })),
            };
            request.send().await.status.as_u16()
        };
        let mut done = 0;
        while change().await != 429 {
            done += 1;
            assert!(done <= 60, "{path}");
        }
    }
}

/// G11: locked, suspended and deactivated have each their code; a poll under way ends with the session.
#[tokio::test(start_paused = true)]
async fn g11_polls_end_with_their_session() {
    for (standing, errcode) in [
        (Some(Standing::Locked(true)), "M_USER_LOCKED"),
        (None, "M_UNKNOWN_TOKEN"),
    ] {
        let (server, alice, room) = alone().await;
        let since = alice.sync(None).await["next_batch"]
            .as_str()
            .unwrap()
            .to_owned();
        let poll = alice
            .sync_request(Some(&since))
            .query("timeout", "30000")
            .send();
        let began = tokio::time::Instant::now();
        let end = async {
            // The clock stands while anybody has something to do: when it moves, the poll waits.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            match standing {
                Some(standing) => server
                    .api
                    .accounts
                    .set_standing(&alice.id, standing)
                    .await
                    .unwrap(),
                None => server.api.deactivate(&alice.id, false).await.unwrap(),
            }
        };
        let (answer, ()) = tokio::join!(poll, end);
        assert_eq!(answer.status, 401, "{errcode}: {}", answer.body);
        assert!(
            began.elapsed().as_secs() < 3,
            "{errcode}: {:?}",
            began.elapsed()
        );
        let state = alice.get(format!("{V3}/rooms/{}/state", encode(&room)));
        state.send().await.error(401, errcode);
    }
}

/// G11: a suspended moderator removes nobody, whichever way it is written, and may leave by either.
#[tokio::test(start_paused = true)]
async fn g11_the_suspended_remove_nobody() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    alice.invite(&room, &bob.id).await;
    bob.join(&room).await;
    let suspend = server
        .api
        .accounts
        .set_standing(&alice.id, Standing::Suspended(true));
    suspend.await.unwrap();
    let member = |of: &User| format!("{V3}/rooms/{}/state/m.room.member/{}", encode(&room), of.id);
    for membership in ["leave", "ban", "invite"] {
        let put = alice
            .put(member(&bob))
            .json(json!({"membership": membership}));
        put.send().await.error(403, "M_USER_SUSPENDED");
    }
    for way in ["kick", "ban"] {
        let post = alice.post(format!("{V3}/rooms/{}/{way}", encode(&room)));
        let post = post.json(json!({"user_id": bob.id})).send().await;
        post.error(403, "M_USER_SUSPENDED");
    }
    let leave = alice
        .put(member(&alice))
        .json(json!({"membership": "leave"}));
    let _ = leave.send().await.ok();
    assert_eq!(
        bob.state(&room, "m.room.member", &bob.id).await["membership"],
        "join"
    );
}

/// A login token is worth nothing after the password it rests on, through the API.
#[tokio::test(start_paused = true)]
async fn login_tokens_end_with_the_password() {
    let (server, alice, _) = alone().await;
    let auth = json!({
        "type": "m.login.password", "password": password("alice"),
        "identifier": {"type": "m.id.user", "user": "alice"},
    });
    let ask = alice
        .post("/_matrix/client/v1/login/get_token")
        .json(json!({"auth": auth}));
    let token = ask.send().await.ok()["login_token"].clone();
    let change = json!({"auth": auth, "new_password": "another", "logout_devices": false});
    let _ = alice
        .post(format!("{V3}/account/password"))
        .json(change)
        .send()
        .await
        .ok();
    let login = json!({"type": "m.login.token", "token": token});
    let login = server.post(format!("{V3}/login")).json(login).send().await;
    login.error(403, "M_FORBIDDEN");
}
