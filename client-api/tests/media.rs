//! The content repository: uploads and downloads, threats H1, H4 and H7.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use comity_testkit::{Answer, PICTURE, Server, Settings, User};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

const AUTHED: &str = "/_matrix/client/v1/media";
const LEGACY: &str = "/_matrix/media/v3";

/// Two frames of one pixel each: black, white.
const MOVING: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff\
    \x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\
    \x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;";

/// What the specification's list begins with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\nno picture";

async fn try_upload(user: &User, file: &[u8], kind: &str, name: Option<&str>) -> Answer {
    let request = user.post(format!("{LEGACY}/upload"));
    let request = match name {
        Some(name) => request.query("filename", name),
        None => request,
    };
    request.body(file.to_vec(), kind).send().await
}

/// Uploads a file; `server/id` of its URI.
async fn upload(user: &User, file: &[u8], kind: &str, name: Option<&str>) -> String {
    let uri = try_upload(user, file, kind, name).await.ok()["content_uri"].clone();
    uri.as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap()
        .to_owned()
}

async fn create(user: &User) -> String {
    let created = user.post("/_matrix/media/v1/create").send().await.ok();
    let uri = created["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

async fn download(user: &User, media: &str) -> Answer {
    user.get(format!("{AUTHED}/download/{media}")).send().await
}

fn header(answer: &Answer, name: header::HeaderName) -> &str {
    answer.headers[name].to_str().unwrap()
}

/// An answer whose status the specification has no word for, since it is HTTP's.
async fn raw(
    server: &Server,
    user: &User,
    path: &str,
    named: header::HeaderName,
    value: &str,
) -> Response {
    let request = Request::get(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", user.token))
        .header(named, value)
        .body(Body::empty())
        .unwrap();
    server.router.clone().oneshot(request).await.unwrap()
}

async fn bytes(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// What goes in comes out, with its type and its name or another.
#[tokio::test(start_paused = true)]
async fn files_come_back_as_they_were() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let media = upload(&alice, PNG, "img/png", Some("my;file \"x\".png")).await;
    assert!(media.starts_with("localhost/"));
    let found = download(&bob, &media).await;
    assert_eq!((found.status, &found.bytes[..]), (StatusCode::OK, PNG));
    assert_eq!(header(&found, header::CONTENT_TYPE), "img/png");
    assert_eq!(
        header(&found, header::CONTENT_LENGTH),
        PNG.len().to_string()
    );
    let name = header(&found, header::CONTENT_DISPOSITION);
    assert_eq!(name, "attachment; filename=\"my;file \\\"x\\\".png\"");
    let other = bob.get(format!("{AUTHED}/download/{media}/%F0%9F%90%94"));
    let other = other.send().await;
    let name = header(&other, header::CONTENT_DISPOSITION);
    assert_eq!(name, "attachment; filename*=utf-8''%F0%9F%90%94");

    let nameless = upload(&alice, b"", "image/png", None).await;
    let found = download(&bob, &nameless).await;
    assert_eq!((found.status, found.bytes.len()), (StatusCode::OK, 0));
    assert_eq!(header(&found, header::CONTENT_DISPOSITION), "inline");

    // R16.1: without a claim the bytes decide.
    let silent = alice.post(format!("{LEGACY}/upload")).send().await.ok();
    let silent = silent["content_uri"]
        .as_str()
        .unwrap()
        .replace("mxc://", "");
    let found = download(&bob, &silent).await;
    assert_eq!(
        header(&found, header::CONTENT_TYPE),
        "application/octet-stream"
    );

    let most = alice.get(format!("{AUTHED}/config")).send().await.ok();
    assert_eq!(most["m.upload.size"], 1 << 20);
    let same = alice.get(format!("{LEGACY}/config")).send().await.ok();
    assert_eq!(most, same);
}

/// Two files of one content are two files; both outlive a crash.
#[tokio::test(start_paused = true)]
async fn media_outlives_a_crash() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let [one, other] = [
        upload(&alice, b"same", "text/plain", Some("a")).await,
        upload(&alice, b"same", "text/csv", Some("b")).await,
    ];
    assert_ne!(one, other);
    let server = server.restarted().await;
    let alice = server.login("alice").await;
    for (media, kind) in [(one, "text/plain"), (other, "text/csv")] {
        let found = download(&alice, &media).await;
        assert_eq!(&found.bytes[..], b"same");
        assert_eq!(header(&found, header::CONTENT_TYPE), kind);
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>: made, waited for, uploaded once, by its maker.
#[tokio::test(start_paused = true)]
async fn ids_can_be_made_before_their_upload() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let media = create(&alice).await;
    let put = |user: &User, media: &str| {
        user.put(format!("{LEGACY}/upload/{media}"))
            .body(PNG, "image/png")
            .send()
    };
    let early = bob.get(format!("{AUTHED}/download/{media}?timeout_ms=1000"));
    early.send().await.error(504, "M_NOT_YET_UPLOADED");
    let early = bob.get(format!("{LEGACY}/download/{media}?timeout_ms=0"));
    early.send().await.error(504, "M_NOT_YET_UPLOADED");
    put(&bob, &media).await.error(403, "M_FORBIDDEN");
    put(&alice, "localhost/neverMade")
        .await
        .error(404, "M_NOT_FOUND");
    put(&alice, "elsewhere.test/x")
        .await
        .error(404, "M_NOT_FOUND");
    let waiting = download(&bob, &media);
    let uploading = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        put(&alice, &media).await.ok()
    };
    let (found, _) = tokio::join!(waiting, uploading);
    assert_eq!((found.status, &found.bytes[..]), (StatusCode::OK, PNG));
    let again = put(&alice, &media).await;
    again.error(409, "M_CANNOT_OVERWRITE_MEDIA");

    // Five at a time wait for their upload; a day later they don't any more.
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(create(&alice).await);
    }
    let sixth = alice.post("/_matrix/media/v1/create").send().await;
    sixth.error(429, "M_LIMIT_EXCEEDED");
    create(&bob).await;
    put(&alice, &made[0]).await.ok();
    create(&alice).await;
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    put(&alice, &made[1]).await.error(404, "M_NOT_FOUND");
    download(&bob, &made[1]).await.error(404, "M_NOT_FOUND");
    create(&alice).await;
}

/// Of two uploads to one id at a time one is kept, the other refused, and only one counted.
#[tokio::test(start_paused = true)]
async fn an_id_is_uploaded_to_once() {
    let server = Server::with(Settings {
        max_user_bytes: Some(100),
        ..Settings::default()
    })
    .await;
    let alice = server.register("alice").await;
    let media = create(&alice).await;
    let put = |content: &'static [u8]| {
        let path = format!("{LEGACY}/upload/{media}");
        alice.put(path).body(content, "text/plain").send()
    };
    let (one, other) = tokio::join!(put(&[b'a'; 40]), put(&[b'b'; 40]));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let kept = if one.status == 200 { b'a' } else { b'b' };
    assert_eq!(download(&alice, &media).await.bytes[..], [kept; 40]);
    upload(&alice, &[b'c'; 60], "text/plain", None).await;
    let more = try_upload(&alice, b"d", "text/plain", None).await;
    more.error(403, "M_FORBIDDEN");
}

/// R13.2, and the specification's security considerations: too long is 413, beyond the quota 403, of a user alone.
#[tokio::test(start_paused = true)]
async fn h6_uploads_are_bounded() {
    let server = Server::with(Settings {
        max_upload_bytes: 1000,
        max_user_bytes: Some(1500),
        ..Settings::default()
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let long = try_upload(&alice, &[0; 1001], "text/plain", None).await;
    long.error(413, "M_TOO_LARGE");
    upload(&alice, &[1; 1000], "text/plain", None).await;
    let much = try_upload(&alice, &[2; 501], "text/plain", None).await;
    much.error(403, "M_FORBIDDEN");
    upload(&alice, &[3; 500], "text/plain", None).await;
    upload(&bob, &[1; 1000], "text/plain", None).await;
}

/// H1: nothing in a path leads anywhere but to media.
#[tokio::test(start_paused = true)]
async fn h1_ids_are_no_paths() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    for path in [
        "localhost/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "localhost/..%2fx",
        "localhost/a%00b",
        "localhost/a.b",
        "%2e%2e/x",
        "..%2f..%2f/x",
        "local%00host/x",
        "localhost/unknown",
    ] {
        for base in [AUTHED, LEGACY] {
            for way in [
                "download/{}",
                "download/{}/x",
                "thumbnail/{}?width=32&height=32",
            ] {
                let way = way.replace("{}", path);
                let answer = alice.get(format!("{base}/{way}")).send().await;
                answer.error(404, "M_NOT_FOUND");
            }
        }
        let put = alice.put(format!("{LEGACY}/upload/{path}"));
        put.send().await.error(404, "M_NOT_FOUND");
    }
}

/// H4: what a browser could run is a download, and everything is sandboxed.
#[tokio::test(start_paused = true)]
async fn h4_nothing_is_run() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let page = b"<script>alert(1)</script>";
    for kind in [
        "text/html",
        "Text/HTML;x=1",
        "image/svg+xml",
        "application/xml",
        "x",
    ] {
        let media = upload(&alice, page, kind, None).await;
        let found = download(&alice, &media).await;
        assert_eq!(header(&found, header::CONTENT_DISPOSITION), "attachment");
        assert_eq!(header(&found, header::CONTENT_TYPE), kind);
    }
    let media = upload(&alice, page, "image/png", None).await;
    for base in [AUTHED, LEGACY] {
        let found = alice.get(format!("{base}/download/{media}")).send().await;
        assert_eq!(header(&found, header::CONTENT_DISPOSITION), "inline");
        assert_eq!(header(&found, header::CONTENT_TYPE), "image/png");
        assert_eq!(header(&found, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        let policy = header(&found, header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("sandbox; default-src 'none'; script-src 'none';"));
        let shared = &found.headers["cross-origin-resource-policy"];
        assert_eq!(shared, "cross-origin");
    }
}

/// H7: by the older paths, which need no token, nobody gets anything without one.
#[tokio::test(start_paused = true)]
async fn h7_new_media_is_for_users() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let media = upload(&alice, PICTURE, "image/png", None).await;
    for path in [
        format!("download/{media}"),
        format!("download/{media}/x.png"),
        format!("thumbnail/{media}?width=96&height=96"),
    ] {
        let nobody = server.get(format!("{AUTHED}/{path}")).send().await;
        nobody.error(401, "M_MISSING_TOKEN");
        let nobody = server.get(format!("{LEGACY}/{path}")).send().await;
        nobody.error(404, "M_NOT_FOUND");
        let forged = server.get(format!("{LEGACY}/{path}")).token("forged");
        forged.send().await.error(401, "M_UNKNOWN_TOKEN");
        let found = alice.get(format!("{LEGACY}/{path}")).send().await;
        assert_eq!(found.status, 200);
        assert_eq!(found.bytes == PICTURE, path.starts_with("download"));
    }
    let nobody = server
        .post(format!("{LEGACY}/upload"))
        .body(PNG, "image/png");
    nobody.send().await.error(401, "M_MISSING_TOKEN");
}

/// R16.3: parts of files, and no file twice.
#[tokio::test(start_paused = true)]
async fn parts_and_caching() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let media = upload(&alice, b"0123456789", "video/mp4", None).await;
    let path = format!("{AUTHED}/download/{media}");
    let part = raw(&server, &alice, &path, header::RANGE, "bytes=2-4").await;
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
    assert_eq!(part.headers()[header::CONTENT_LENGTH], "3");
    assert_eq!(&bytes(part).await[..], b"234");
    let beyond = raw(&server, &alice, &path, header::RANGE, "bytes=10-").await;
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */10");
    let whole = download(&alice, &media).await;
    let tag = header(&whole, header::ETAG).to_owned();
    let kept = header(&whole, header::CACHE_CONTROL);
    assert_eq!(kept, "private, max-age=31536000, immutable");
    let known = raw(&server, &alice, &path, header::IF_NONE_MATCH, &tag).await;
    assert_eq!(known.status(), 304);
    assert!(bytes(known).await.is_empty());
}

/// R16.2: a photo loses what its camera knew.
#[tokio::test(start_paused = true)]
async fn photos_lose_their_place() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let exif = b"\xff\xe1\x00\x13Exif\0\0canary: 52N";
    let picture = b"\xff\xda\x00\x02data\xff\xd9";
    let photo = [&b"\xff\xd8"[..], exif, picture].concat();
    let media = upload(&alice, &photo, "image/jpeg", None).await;
    let found = download(&alice, &media).await;
    assert_eq!(&found.bytes[..], [&b"\xff\xd8"[..], picture].concat());
    // What is encrypted is no photo to us.
    let secret = upload(&alice, &photo[1..], "application/octet-stream", None).await;
    assert_eq!(download(&alice, &secret).await.bytes[..], photo[1..]);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>
#[tokio::test(start_paused = true)]
async fn pictures_become_smaller() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    // Whatever its uploader says it is.
    let media = upload(&alice, PICTURE, "text/html", Some("x.html")).await;
    let thumbnail = |query: &str| {
        bob.get(format!("{AUTHED}/thumbnail/{media}?{query}"))
            .send()
    };
    let size = |answer: &Answer| {
        let side = |at: usize| u32::from_be_bytes(answer.bytes[at..at + 4].try_into().unwrap());
        (side(16), side(20))
    };
    for (query, expected) in [
        ("width=20&height=20", (32, 16)),
        ("width=20&height=20&method=scale", (32, 16)),
        ("width=20&height=20&method=crop", (32, 32)),
        ("width=96&height=20&method=crop&animated=true", (96, 32)),
        ("width=640&height=480", (200, 100)),
        ("width=5000&height=5000&method=crop", (200, 100)),
    ] {
        let made = thumbnail(query).await;
        assert_eq!(made.status, StatusCode::OK, "{query}");
        assert_eq!(size(&made), expected, "{query}");
        assert_eq!(header(&made, header::CONTENT_TYPE), "image/png");
        let name = header(&made, header::CONTENT_DISPOSITION);
        assert!(name.starts_with("inline"), "{name}");
        let again = thumbnail(query).await;
        assert_eq!(again.bytes, made.bytes);
    }
    for bad in [
        "width=20",
        "width=x&height=20",
        "width=-1&height=20",
        "width=0&height=20",
    ] {
        thumbnail(bad).await.error(400, "M_INVALID_PARAM");
    }
    thumbnail("width=1&height=1&method=stretch")
        .await
        .error(400, "M_INVALID_PARAM");
    let nobody = server.get(format!("{LEGACY}/thumbnail/{media}?width=20&height=20"));
    nobody.send().await.error(404, "M_NOT_FOUND");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>, `animated`: what nobody asked
/// to move stands still, however large it may be.
#[tokio::test(start_paused = true)]
async fn nothing_moves_unasked() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let media = upload(&alice, MOVING, "image/gif", None).await;
    for side in [32, 5000] {
        for (animated, kind) in [("false", "image/png"), ("true", "image/gif")] {
            let made = alice
                .get(format!("{AUTHED}/thumbnail/{media}"))
                .query("width", &side.to_string())
                .query("height", &side.to_string())
                .query("animated", animated);
            let made = made.send().await;
            assert_eq!(made.status, StatusCode::OK);
            assert_eq!(header(&made, header::CONTENT_TYPE), kind);
        }
    }
}

/// H5: other kinds of files have no thumbnails, and a picture of too many pixels is refused from its header.
#[tokio::test(start_paused = true)]
async fn h5_what_has_no_thumbnail() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    for file in [
        &b"II*\0\x08\0\0\0"[..],
        b"8BPS\0\x01",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\nno more",
        b"GIF89a",
    ] {
        let media = upload(&alice, file, "image/png", None).await;
        let made = alice.get(format!("{AUTHED}/thumbnail/{media}?width=32&height=32"));
        made.send().await.error(400, "M_UNKNOWN");
    }
    let mut bomb = PICTURE[..33].to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    bomb[29..33].copy_from_slice(&[0xc4, 0xcd, 0xaa, 0x9d]);
    let media = upload(&alice, &bomb, "image/png", None).await;
    for side in [32, 5000] {
        let path = format!("{AUTHED}/thumbnail/{media}?width={side}&height={side}");
        alice.get(path).send().await.error(413, "M_TOO_LARGE");
    }
}

/// Pictures of a room are found by a filter, page by page, to a page without any.
#[tokio::test(start_paused = true)]
async fn messages_with_pictures_are_found() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(serde_json::json!({})).await;
    let media = upload(&alice, PNG, "image/png", None).await;
    alice.send(&room, "no picture").await;
    let picture =
        serde_json::json!({"msgtype": "m.image", "body": "x", "url": format!("mxc://{media}")});
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/pic");
    let _ = alice.put(path).json(picture).send().await.ok();
    let page = async |from: Option<String>| {
        let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b");
        let request = alice.get(path).query("filter", r#"{"contains_url":true}"#);
        let request = match from {
            Some(from) => request.query("from", &from),
            None => request,
        };
        request.send().await.ok()
    };
    let first = page(None).await;
    assert_eq!(first["chunk"].as_array().unwrap().len(), 1);
    let last = page(Some(first["end"].as_str().unwrap().to_owned())).await;
    assert_eq!(last["chunk"].as_array().unwrap().len(), 0);
    assert!(last.get("end").is_none());
}
