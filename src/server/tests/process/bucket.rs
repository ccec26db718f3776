//! Media in a bucket of a real S3 service, which the test script starts.

use std::{net::TcpStream, path::Path};

use comity_testkit::encode;
use serde_json::json;

use crate::server::{Server, comity, exchange, files};

const URL: &str = "COMITY_TEST_S3_URL";

/// The service; `None`, and said so, where there is none.
fn service() -> Option<String> {
    let url = std::env::var(URL).ok();
    if url.is_none() {
        let said = format!("SKIPPED: {URL} names no S3 service to test on");
        assert!(std::env::var("CI").is_err(), "{said}");
        eprintln!("{said}");
    }
    url
}

fn start(folder: &Path, service: &str, prefix: &str, redirects: &str) -> Server {
    Server::start(folder, &environment(service, prefix, redirects))
}

fn environment<'a>(
    service: &'a str,
    prefix: &'a str,
    redirects: &'a str,
) -> [(&'a str, &'a str); 6] {
    [
        ("S3__ENDPOINT", service),
        ("S3__BUCKET", "media"),
        ("S3__PREFIX", prefix),
        ("S3__ACCESS_KEY_ID", "test"),
        ("S3__SECRET_ACCESS_KEY", "testsecret"),
        ("S3__REDIRECTS", redirects),
    ]
}

/// Uploads a text; the path of its download after `/media/`.
fn upload(server: &Server, bearer: &str, text: &str) -> String {
    let headers = format!("{bearer}content-type: text/plain\r\n");
    let path = "/_matrix/media/v3/upload?filename=a%20name.txt";
    let uploaded = server.request("POST", path, &headers, text).ok();
    let uri = uploaded["content_uri"].as_str().unwrap().to_owned();
    format!("download/{}", uri.strip_prefix("mxc://").unwrap())
}

/// What is uploaded is in the bucket and not on this disk, in one piece or in many, and is there after a restart, whole and in part.
#[test]
fn media_is_kept_in_a_bucket() {
    let Some(service) = service() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), &service, "one/server", "false");
    let alice = server.register("alice", "a secret of alice");
    let bearer = format!(
        "authorization: Bearer {}\r\n",
        alice["access_token"].as_str().unwrap()
    );
    let texts = [String::from("short"), "abcdefghijklmnop".repeat(20 << 16)];
    let paths = texts.each_ref().map(|text| upload(&server, &bearer, text));
    let left = files(&folder.path().join("media"));
    assert!(left.is_empty(), "{left:?}");

    assert!(server.stop().success());
    // "media rows match blobs", there too.
    for (prefix, fine) in [("one/server", true), ("elsewhere", false)] {
        let environment = environment(&service, prefix, "false");
        let mut check = comity(folder.path(), &environment);
        let checked = check.arg("check").output().unwrap();
        let said = String::from_utf8(checked.stdout).unwrap();
        assert_eq!(checked.status.success(), fine, "{prefix}: {said}");
    }
    let server = start(folder.path(), &service, "one/server", "false");
    for (path, text) in paths.iter().zip(&texts) {
        let path = format!("/_matrix/client/v1/media/{path}");
        let whole = server.request("GET", &path, &bearer, "");
        assert_eq!(whole.status, 200);
        assert!(whole.text == *text);
        let ranged = format!("{bearer}range: bytes=1-3\r\n");
        let part = server.request("GET", &path, &ranged, "");
        assert_eq!((part.status, part.text.as_str()), (206, &text[1..4]));
    }
}

/// MSC3860: with `s3.redirects` a client is sent to the service, for that file alone and under its type and name; by the older paths
/// if it asks for that.
#[test]
fn clients_are_sent_to_the_bucket() {
    let Some(service) = service() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &service, "", "true");
    let alice = server.register("alice", "a secret of alice");
    let bearer = format!(
        "authorization: Bearer {}\r\n",
        alice["access_token"].as_str().unwrap()
    );
    let path = upload(&server, &bearer, "a text");
    let get = |path: &str| server.request("GET", path, &bearer, "");
    let direct = get(&format!("/_matrix/media/v3/{path}"));
    assert_eq!((direct.status, direct.text.as_str()), (200, "a text"));

    for path in [
        format!("/_matrix/client/v1/media/{path}"),
        format!("/_matrix/media/v3/{path}?allow_redirect=true"),
    ] {
        let sent = get(&path);
        assert_eq!(sent.status, 307, "{path}");
        assert_eq!(sent.header("cache-control"), "no-store");
        let link = sent.header("location");
        let link = link.strip_prefix(&service).unwrap();
        let there = |link: &str| {
            let service = TcpStream::connect(service.strip_prefix("http://").unwrap()).unwrap();
            exchange(service, "GET", link, "", "").unwrap()
        };
        let there_is = there(link);
        assert_eq!((there_is.status, there_is.text.as_str()), (200, "a text"));
        assert_eq!(there_is.header("content-type"), "text/plain");
        assert_eq!(
            there_is.header("content-disposition"),
            "inline; filename=\"a name.txt\""
        );
        let forged = link.replace(&encode("text/plain"), &encode("text/html"));
        assert_ne!(forged, link);
        assert_eq!(there(&forged).status, 403);
    }
    // Whoever isn't signed in learns no link.
    let path = format!("/_matrix/client/v1/media/{path}");
    assert_eq!(server.request("GET", &path, "", "").status, 401);
}

/// A bucket that isn't there, is another's, or can't be reached is told of at the start and by the doctor, in the words of what is to be
/// mended; the server runs without its files.
#[test]
fn what_is_wrong_with_a_bucket_is_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let service = service();
    let mut cases = vec![(
        ("S3__ENDPOINT", nowhere.as_str()),
        "doubt",
        format!("`media` (s3.bucket) at {nowhere} (s3.endpoint) can't be used: Connection refused"),
    )];
    if let Some(service) = service.as_deref() {
        let place = format!("(s3.bucket) at {service} (s3.endpoint)");
        let refused = |key: &str, code: &str| {
            format!("`{key}` (s3.access_key_id) may not put objects in `media` {place}: {code}")
        };
        cases.extend([
            (
                ("S3__REDIRECTS", "false"),
                "ok   ",
                "keeps files".to_owned(),
            ),
            (
                ("S3__BUCKET", "another"),
                "doubt",
                format!("there is no `another` {place}: NoSuchBucket"),
            ),
            (
                ("S3__ACCESS_KEY_ID", "nobody"),
                "doubt",
                // Services have different words for it.
                refused("nobody", ""),
            ),
            (
                ("S3__SECRET_ACCESS_KEY", "another"),
                "doubt",
                refused("test", "SignatureDoesNotMatch"),
            ),
        ]);
    }
    for (change, mark, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        let service = service.as_deref().unwrap_or(&nowhere);
        let mut set = environment(service, "trial", "false").to_vec();
        set.retain(|(name, _)| *name != change.0);
        set.push(change);
        let doctor = comity(folder.path(), &set).arg("doctor").output().unwrap();
        let said = String::from_utf8(doctor.stdout).unwrap();
        let line = format!("{mark} bucket: {why}");
        assert!(said.lines().any(|one| one.starts_with(&line)), "{said}");
        assert!(doctor.status.success());
        let mut server = Server::start(folder.path(), &set);
        server.register("alice", "a secret of alice");
        assert!(server.stop().success());
        assert_eq!(
            server.log().contains(&why),
            mark == "doubt",
            "{}",
            server.log()
        );
    }
}

/// A bucket that can't be reached costs its media, and nothing else.
#[test]
fn a_server_lives_without_its_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let server = start(folder.path(), &service, "", "false");
    let alice = server.register("alice", "a secret of alice");
    let token = alice["access_token"].as_str().unwrap();
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: text/plain\r\n");
    let path = "/_matrix/media/v3/upload";
    let refused = exchange(server.connect(), "POST", path, &headers, "a text").unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    server.json("POST", "createRoom", token, json!({})).ok();
    let left = files(&folder.path().join("media"));
    assert!(left.is_empty(), "{left:?}");
}
