//! Our users' media, for other servers.

use comity_testkit::{Federation, HostilePeer, PICTURE, User};
use http::header;

/// Uploads a file; its id.
async fn upload(user: &User, file: &'static [u8]) -> String {
    let request = user.post("/_matrix/media/v3/upload?filename=a.png");
    let uri = request.body(file, "image/png").send().await.ok()["content_uri"].clone();
    uri.as_str().unwrap().rsplit_once('/').unwrap().1.to_owned()
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid>: two parts, the second the file.
#[tokio::test(start_paused = true)]
async fn files_and_thumbnails_go_out_in_parts() {
    let federation = Federation::of(["a.test"]).await;
    let alice = federation["a.test"].register("alice").await;
    let id = upload(&alice, PICTURE).await;
    let peer = HostilePeer::on(&federation.wire, "evil.test");
    let peer = peer.to(&federation["a.test"]);
    let base = "/_matrix/federation/v1/media";
    let whole = peer.get(format!("{base}/download/{id}")).send().await;
    let kind = whole.headers[header::CONTENT_TYPE]
        .to_str()
        .unwrap()
        .to_owned();
    let boundary = kind.strip_prefix("multipart/mixed; boundary=").unwrap();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: image/png\r\nContent-Disposition: inline; filename=\"a.png\"\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let expected = [head.as_bytes(), PICTURE, tail.as_bytes()].concat();
    assert_eq!(whole.bytes, expected);
    let length = &whole.headers[header::CONTENT_LENGTH];
    assert_eq!(*length, expected.len().to_string());
    let small = peer.get(format!("{base}/thumbnail/{id}?width=32&height=32"));
    let small = small.send().await;
    let file = alice.get(format!(
        "/_matrix/client/v1/media/thumbnail/a.test/{id}?width=32&height=32"
    ));
    let file = file.send().await.bytes;
    assert!(small.bytes.windows(file.len()).any(|part| part == file));

    for path in [
        "download/unknown",
        "download/..%2fx",
        "thumbnail/a.b?width=1&height=1",
    ] {
        let unknown = peer.get(format!("{base}/{path}")).send().await;
        unknown.error(404, "M_NOT_FOUND");
    }
    let unsigned = federation["a.test"].get(format!("{base}/download/{id}"));
    unsigned.send().await.error(401, "M_UNAUTHORIZED");
}
