//! HTTP/2 under TLS, frame by frame: floods end in GOAWAY (threat G5), good streams are answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests are the clients on the other side"
)]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use comity_runtime::Runtime;
use comity_server::http::{Lifecycle, Limits, Listener, Tls, serve};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `:method`, `:scheme https`, `:path` (HPACK without the dynamic table), `:authority localhost`.
fn head(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 9]);
    block.extend(b"localhost");
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

async fn connect() -> TlsStream<TcpStream> {
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();

    let tls = Tls::load(&certificate, &key).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Some(tls)).unwrap();
    let address = listener.address().unwrap();
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/length", post(async |body: Bytes| body.len().to_string()));
    let limits = Limits {
        body_gap: Duration::from_secs(2),
        ..Limits::default()
    };
    tokio::spawn(serve(
        vec![listener],
        router,
        limits,
        Lifecycle::default(),
        Runtime::system(),
    ));

    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Frames as they come, until one of `kind` or the end.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), kind: u8) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == kind {
            return Some(payload);
        }
    }
}

#[tokio::test]
async fn a_stream_is_answered() {
    let mut stream = connect().await;
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head(GET, "/hello"));
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_until(&mut stream, DATA).await.unwrap(), b"hello");
}

/// G5: reset floods (CVE-2023-44487), CONTINUATION without end, empty DATA without end, PINGs nobody reads.
#[tokio::test]
async fn floods_end_in_goaway() {
    let resets: Vec<u8> = (0..2_000_u32)
        .flat_map(|number| {
            let id = 2 * number + 1;
            let mut pair = frame(HEADERS, END_STREAM | END_HEADERS, id, &head(GET, "/hello"));
            pair.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
            pair
        })
        .collect();
    let mut continuations = frame(HEADERS, END_STREAM, 1, &head(GET, "/hello"));
    // One literal header field after the other, none of them indexed.
    let field = [&[0x00, 1, b'x', 100][..], &[b'a'; 100]].concat();
    for _ in 0..20_000 {
        continuations.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let mut empty = frame(HEADERS, END_HEADERS, 1, &head(POST, "/length"));
    for _ in 0..200_000 {
        empty.extend(frame(DATA, 0, 1, &[]));
    }
    for (name, flood) in [
        ("resets", resets),
        ("continuations", continuations),
        ("empty data", empty),
    ] {
        let stream = connect().await;
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            let _ = write.write_all(&flood).await;
            let _ = write.write_all(&frame(PING, 0, 0, &[0; 8])).await;
            write
        });
        let ended = timeout(Duration::from_secs(20), read_until(&mut read, GOAWAY)).await;
        let goaway = ended.unwrap_or_else(|_| panic!("{name}: the flood goes on"));
        if let Some(goaway) = goaway {
            assert_ne!(goaway[4..8], [0; 4], "{name}: a GOAWAY without an error");
        } // else: the reset that follows the GOAWAY came first
        writing.abort();
    }
}
