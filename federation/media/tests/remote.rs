//! Other servers' media and pages of the web, as users see them: threats H3 and H6.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use axum::{Router, routing::get};
use comity_testkit::{Answer, Federation, HostilePeer, PICTURE, Reply, Server, Settings, User};
use http::{Method, StatusCode, header};
use serde_json::json;

const MEDIA: &str = "/_matrix/client/v1/media";
/// What a file counts for beside its bytes.
const FOOTPRINT: u64 = 16 << 10;

async fn upload(user: &User, file: Vec<u8>, name: &str) -> String {
    let request = user
        .post("/_matrix/media/v3/upload")
        .query("filename", name);
    let uri = request.body(file, "image/png").send().await.ok()["content_uri"].clone();
    uri.as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap()
        .to_owned()
}

async fn download(user: &User, media: &str) -> Answer {
    user.get(format!("{MEDIA}/download/{media}")).send().await
}

fn named(name: &str) -> Settings {
    Settings {
        server_name: name.try_into().unwrap(),
        ..Settings::default()
    }
}

/// What it takes to have a file of another server: one request, however many ask, and none once it is here.
#[tokio::test(start_paused = true)]
async fn files_come_once() {
    let federation = Federation::of(["a.test", "b.test"]).await;
    let alice = federation["a.test"].register("alice").await;
    let bob = federation["b.test"].register("bob").await;
    let carol = federation["b.test"].register("carol").await;
    let media = upload(&alice, PICTURE.to_vec(), "🐔.png").await;
    let _ = federation.wire.log();
    let (one, other) = tokio::join!(download(&bob, &media), download(&carol, &media));
    for found in [&one, &other] {
        assert_eq!((found.status, &found.bytes[..]), (StatusCode::OK, PICTURE));
        assert_eq!(found.headers[header::CONTENT_TYPE], "image/png");
        let name = &found.headers[header::CONTENT_DISPOSITION];
        assert_eq!(name, "inline; filename*=utf-8''%F0%9F%90%94%2Epng");
    }
    let asked = federation.wire.log();
    assert_eq!(
        asked.iter().filter(|line| line.contains("/media/")).count(),
        1
    );
    federation.wire.cut("a.test", "b.test");
    assert_eq!(download(&carol, &media).await.bytes, PICTURE);
    let small = bob.get(format!("{MEDIA}/thumbnail/{media}?width=32&height=32"));
    let small = small.send().await;
    assert_eq!(
        (small.status, small.bytes[19], small.bytes[23]),
        (StatusCode::OK, 32, 16)
    );

    // What isn't here and can't be had.
    let second = upload(&alice, b"second".to_vec(), "x").await;
    let legacy = |media: &str| format!("/_matrix/media/v3/download/{media}?allow_remote=false");
    bob.get(legacy(&second))
        .send()
        .await
        .error(404, "M_NOT_FOUND");
    assert_eq!(bob.get(legacy(&media)).send().await.bytes, PICTURE);
    download(&bob, &second).await.error(502, "M_UNKNOWN");
    federation.wire.heal();
    download(&bob, "a.test/unknown")
        .await
        .error(404, "M_NOT_FOUND");
    download(&bob, "nobody.test/x")
        .await
        .error(502, "M_UNKNOWN");
}

/// What an administrator quarantines of another server's isn't fetched any more, whether it was here or not, and isn't kept.
#[tokio::test(start_paused = true)]
async fn quarantined_files_stay_away() {
    let federation = Federation::of(["a.test", "b.test"]).await;
    let alice = federation["a.test"].register("alice").await;
    let bob = federation["b.test"].register("bob").await;
    federation["b.test"].promote(&bob).await;
    let known = upload(&alice, PICTURE.to_vec(), "x").await;
    let unknown = upload(&alice, b"second".to_vec(), "x").await;
    assert_eq!(download(&bob, &known).await.bytes, PICTURE);
    let thumbnail = format!("{MEDIA}/thumbnail/{known}?width=32&height=32");
    assert_eq!(bob.get(&thumbnail).send().await.status, StatusCode::OK);
    let judge = |verdict: &str, media: &str| {
        bob.post(format!("/_synapse/admin/v1/media/{verdict}/{media}"))
    };
    let _ = federation.wire.log();
    for media in [&known, &unknown] {
        judge("quarantine", media).send().await.ok();
        download(&bob, media).await.error(404, "M_NOT_FOUND");
    }
    bob.get(&thumbnail).send().await.error(404, "M_NOT_FOUND");
    let asked = federation.wire.log();
    assert!(!asked.iter().any(|line| line.contains("/media/")));
    let findings = federation["b.test"].media_findings().await;
    assert_eq!(findings, Vec::<String>::new());
    for media in [&known, &unknown] {
        judge("unquarantine", media).send().await.ok();
        assert_eq!(download(&bob, media).await.status, StatusCode::OK);
    }
}

/// Servers that don't know the endpoint for servers, in the ways they say so.
#[tokio::test(start_paused = true)]
async fn older_servers_are_asked_as_anybody_asks() {
    let federation = Federation::of(["a.test"]).await;
    let alice = federation["a.test"].register("alice").await;
    let peer = HostilePeer::on(&federation.wire, "old.test");
    peer.answer(
        Method::GET,
        "/_matrix/media/v3/download/old.test/x",
        |asked| {
            assert!(asked.target.contains("allow_remote=false"));
            Reply::file("text/plain", "old")
        },
    );
    let found = download(&alice, "old.test/x1").await;
    assert_eq!(
        (found.status, &found.bytes[..]),
        (StatusCode::OK, &b"old"[..])
    );
    assert_eq!(found.headers[header::CONTENT_TYPE], "text/plain");
    for (at, reply) in [(400, json!({})), (404, json!({})), (405, json!({}))]
        .into_iter()
        .enumerate()
    {
        peer.answer(Method::GET, "/_matrix/federation/v1/media", move |_| {
            reply.clone()
        });
        let found = download(&alice, &format!("old.test/x{}", at + 2)).await;
        assert_eq!(found.bytes, "old");
    }
    // One that knows it and has nothing isn't asked again.
    let _ = peer.heard();
    peer.answer(Method::GET, "/_matrix/federation/v1/media", |_| {
        (404, json!({"errcode": "M_NOT_FOUND", "error": "no"}))
    });
    download(&alice, "old.test/x9")
        .await
        .error(404, "M_NOT_FOUND");
    assert_eq!(peer.heard().len(), 1);
    peer.answer(Method::GET, "/_matrix/federation/v1/media", |_| {
        (
            504,
            json!({"errcode": "M_NOT_YET_UPLOADED", "error": "wait"}),
        )
    });
    download(&alice, "old.test/x8")
        .await
        .error(504, "M_NOT_YET_UPLOADED");
    // Nobody waits there for longer than here.
    let early = alice.get(format!("{MEDIA}/download/old.test/x8?timeout_ms=70"));
    early.send().await.error(504, "M_NOT_YET_UPLOADED");
    let heard = peer.heard();
    let waits = ["timeout_ms=20000", "timeout_ms=70"];
    assert_eq!(heard.len(), 2);
    for (asked, wait) in heard.iter().zip(waits) {
        assert!(asked.target.ends_with(wait), "{}", asked.target);
    }
}

/// A file that its server keeps elsewhere; and answers that make no sense.
#[tokio::test(start_paused = true)]
async fn files_kept_elsewhere_and_nonsense() {
    let federation = Federation::of(["a.test"]).await;
    let alice = federation["a.test"].register("alice").await;
    let peer = HostilePeer::on(&federation.wire, "cdn.test");
    let site = Router::new().route(
        "/file",
        get(|| async { ([(header::CONTENT_TYPE, "image/png")], PICTURE) }),
    );
    federation.wire.site("files.test", site);
    let parts = |second: &str| {
        format!("--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\n{second}\r\n--b--\r\n")
    };
    let there = parts("Location: https://files.test/file\r\n\r\n");
    peer.answer(
        Method::GET,
        "/_matrix/federation/v1/media/download/there",
        move |_| Reply::file("multipart/mixed; boundary=b", there.clone()),
    );
    let found = download(&alice, "cdn.test/there").await;
    assert_eq!((found.status, &found.bytes[..]), (StatusCode::OK, PICTURE));
    let lost = parts("Location: https://lost.test/file\r\n\r\n");
    for (id, kind, body) in [
        ("lost", "multipart/mixed; boundary=b", lost),
        ("json", "application/json", "{}".to_owned()),
        (
            "none",
            "multipart/mixed; boundary=b",
            "--b--\r\n".to_owned(),
        ),
        (
            "one",
            "multipart/mixed; boundary=b",
            "--b\r\n\r\n{}\r\n--b--\r\n".to_owned(),
        ),
        (
            "cut",
            "multipart/mixed; boundary=b",
            "--b\r\n\r\n{}\r\n--b\r\n\r\nhal".to_owned(),
        ),
        (
            "huge",
            "multipart/mixed; boundary=b",
            format!("--b\r\n\r\n{}", "x".repeat(200_000)),
        ),
    ] {
        let reply = move |_: &_| Reply::file(kind, body.clone());
        let path = format!("/_matrix/federation/v1/media/download/{id}");
        peer.answer(Method::GET, &path, reply);
        download(&alice, &format!("cdn.test/{id}"))
            .await
            .error(502, "M_UNKNOWN");
    }
}

/// H6 (CVE-2024-37302): a file, a user and all that is kept are bounded.
#[tokio::test(start_paused = true)]
async fn h6_remote_media_is_bounded() {
    let small = Settings {
        max_remote_bytes: 1_000,
        // Of two and a half.
        max_cache_bytes: 2_500 + 5 * FOOTPRINT / 2,
        ..named("b.test")
    };
    let federation = Federation::with([named("a.test"), small]).await;
    let alice = federation["a.test"].register("alice").await;
    let bob = federation["b.test"].register("bob").await;
    let long = upload(&alice, vec![0; 1_001], "x").await;
    download(&bob, &long).await.error(502, "M_TOO_LARGE");
    let mut media = Vec::new();
    for n in 1..=3 {
        media.push(upload(&alice, vec![n; 900], "x").await);
    }
    for media in &media[..2] {
        assert_eq!(download(&bob, media).await.bytes.len(), 900);
    }
    // Who looks later keeps it longer, to the day.
    tokio::time::sleep(Duration::from_secs(25 * 60 * 60)).await;
    for media in [&media[0], &media[2]] {
        assert_eq!(download(&bob, media).await.bytes.len(), 900);
    }
    // What goes for it goes beside.
    tokio::time::sleep(Duration::from_secs(1)).await;
    federation.wire.cut("a.test", "b.test");
    let here: Vec<u16> = [
        download(&bob, &media[0]).await.status.as_u16(),
        download(&bob, &media[1]).await.status.as_u16(),
        download(&bob, &media[2]).await.status.as_u16(),
    ]
    .into();
    assert_eq!(here, [200, 502, 200]);
    federation.wire.heal();
    tokio::time::sleep(Duration::from_secs(2 * 60 * 60)).await;
    assert_eq!(download(&bob, &media[1]).await.bytes.len(), 900);
}

/// H6: a user's fetching is a bucket that leaks, and others have their own.
#[tokio::test(start_paused = true)]
async fn h6_a_user_fetches_so_much() {
    let small = Settings {
        fetch_bucket_bytes: 2 * FOOTPRINT,
        ..named("b.test")
    };
    let federation = Federation::with([named("a.test"), small]).await;
    let alice = federation["a.test"].register("alice").await;
    let bob = federation["b.test"].register("bob").await;
    let carol = federation["b.test"].register("carol").await;
    let mut media = Vec::new();
    for n in 1..=3 {
        media.push(upload(&alice, vec![n; 15_000], "x").await);
    }
    for media in &media[..2] {
        assert_eq!(download(&bob, media).await.status, StatusCode::OK);
    }
    // What is here already is free.
    assert_eq!(download(&bob, &media[0]).await.status, StatusCode::OK);
    let refused = download(&bob, &media[2]).await;
    let refused = refused.error(429, "M_LIMIT_EXCEEDED");
    let wait = refused["retry_after_ms"].as_u64().unwrap();
    assert!((900_000..=1_000_000).contains(&wait), "{wait}");
    assert_eq!(download(&carol, &media[1]).await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    assert_eq!(download(&bob, &media[2]).await.status, StatusCode::OK);
}

const PAGE: &str = r#"<html prefix="og: http://ogp.me/ns#"><head><title>The Rock (1996)</title>
<meta property="og:title" content="The Rock" /><meta property="og:type" content="video.movie" />
<meta property="og:image" content="rock.png" /><meta property="og:image:width" content="7" /></head></html>"#;

fn site() -> Router {
    let html = |page: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, "text/html")], page) })
    };
    Router::new()
        .route("/page", html(PAGE))
        .route("/bare", html("<title>Bare</title>"))
        .route(
            "/lost",
            html("<meta property=og:image content=/nothing.png><title>x</title>"),
        )
        .route(
            "/deep",
            html(Box::leak("<div>".repeat(10_000).into_boxed_str())),
        )
        .route(
            "/rock.png",
            get(|| async { ([(header::CONTENT_TYPE, "image/png")], PICTURE) }),
        )
        .route(
            "/file",
            get(|| async { ([(header::CONTENT_TYPE, "application/zip")], "PK") }),
        )
        .route(
            "/endless",
            get(|| async {
                let forever = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("<p>"));
                (
                    [(header::CONTENT_TYPE, "text/html")],
                    axum::body::Body::from_stream(forever),
                )
            }),
        )
}

async fn preview(user: &User, url: &str) -> Answer {
    user.get(format!("{MEDIA}/preview_url"))
        .query("url", url)
        .send()
        .await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>
#[tokio::test(start_paused = true)]
async fn pages_are_previewed() {
    let server = Server::start().await;
    server.wire().site("films.test", site());
    let alice = server.register("alice").await;
    let page = preview(&alice, "https://films.test/page#top").await.ok();
    let image = page["og:image"].as_str().unwrap().to_owned();
    let expected = json!({
        "og:title": "The Rock",
        "og:type": "video.movie",
        "og:image": image,
        "og:image:type": "image/png",
        "og:image:width": 200,
        "og:image:height": 100,
        "matrix:image:size": PICTURE.len(),
    });
    assert_eq!(page, expected);
    let picture = download(&alice, image.strip_prefix("mxc://").unwrap()).await;
    assert_eq!(picture.bytes, PICTURE);
    let _ = server.wire().log();
    let legacy = alice.get("/_matrix/media/v3/preview_url?url=https://films.test/page");
    assert_eq!(legacy.send().await.ok(), expected);
    assert!(server.wire().log().is_empty());

    let of = async |path: &str| {
        preview(&alice, &format!("http://films.test{path}"))
            .await
            .ok()
    };
    assert_eq!(of("/bare").await, json!({"og:title": "Bare"}));
    assert_eq!(of("/lost").await, json!({"og:title": "x"}));
    assert_eq!(of("/file").await, json!({}));
    assert_eq!(of("/rock.png").await["og:image:width"], 200);
    preview(&alice, "http://films.test/nothing")
        .await
        .error(404, "M_NOT_FOUND");
    for bad in [
        "",
        "films.test",
        "ftp://films.test/",
        "file:///etc/passwd",
        "javascript:1",
    ] {
        preview(&alice, bad).await.error(400, "M_INVALID_PARAM");
    }
    let nobody = server.get(format!("{MEDIA}/preview_url?url=http://films.test/page"));
    nobody.send().await.error(401, "M_MISSING_TOKEN");
}

/// H3: pages that are deep or without end are read as far as they are read.
#[tokio::test(start_paused = true)]
async fn h3_pages_without_end() {
    let server = Server::start().await;
    server.wire().site("films.test", site());
    let alice = server.register("alice").await;
    for path in ["deep", "endless"] {
        let page = preview(&alice, &format!("http://films.test/{path}")).await;
        assert_eq!(page.ok(), json!({}), "{path}");
    }
}

/// Where the operator doesn't want them there are none.
#[tokio::test(start_paused = true)]
async fn previews_can_be_off() {
    let server = Server::with(Settings {
        previews: false,
        ..Settings::default()
    })
    .await;
    let alice = server.register("alice").await;
    preview(&alice, "http://films.test/page")
        .await
        .error(404, "M_UNRECOGNIZED");
}
