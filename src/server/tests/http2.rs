//! HTTP/2 under TLS, frame by frame: floods end in GOAWAY (threat G5), the silent are closed in time, good streams are answered.

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

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use comity_runtime::Runtime;
use comity_server::http::{Lifecycle, Limits, Listener, Proxies, Tls, serve};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
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

/// A running server, and how to trust it.
struct Server {
    address: SocketAddr,
    client: TlsConnector,
}

fn start(limits: Limits) -> Server {
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
    tokio::spawn(serve(
        vec![listener],
        router,
        limits,
        Proxies::default(),
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
    let client = TlsConnector::from(Arc::new(config));
    Server { address, client }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn handshake(&self) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connect().await;
        self.client.connect(name, stream).await.unwrap()
    }

    /// A connection that speaks HTTP/2.
    async fn speak(&self) -> TlsStream<TcpStream> {
        let mut stream = self.handshake().await;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        stream
    }
}

fn limits() -> Limits {
    Limits {
        body_gap: Duration::from_secs(2),
        ..Limits::default()
    }
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
    let mut stream = start(limits()).speak().await;
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head(GET, "/hello"));
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_until(&mut stream, DATA).await.unwrap(), b"hello");
}

/// G5: reset floods (CVE-2023-44487), CONTINUATION without end, empty DATA without end, PINGs nobody reads.
#[tokio::test]
async fn g5_floods_end_in_goaway() {
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
        let stream = start(limits()).speak().await;
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

/// How long until the server closes it.
async fn closed_after(mut stream: impl AsyncReadExt + Unpin) -> Duration {
    let began = Instant::now();
    let mut read = [0; 1_024];
    let closing = async { while stream.read(&mut read).await.is_ok_and(|n| n > 0) {} };
    timeout(Duration::from_secs(10), closing)
        .await
        .expect("the server closes the connection");
    began.elapsed()
}

/// The deadline of the first head runs from the connection's first moment, whatever it says meanwhile: nothing, half a
/// handshake, a handshake alone, HTTP/2 without a request, PINGs, a head without an end. It is shorter when places are few.
#[tokio::test]
async fn the_first_head_is_due_under_tls_and_http2_too() {
    let (patient, crowded) = (Duration::from_millis(800), Duration::from_millis(200));
    let limits = |connections| Limits {
        connections,
        head: patient,
        head_when_crowded: crowded,
        idle: Duration::from_secs(60),
        ..Limits::default()
    };
    for (connections, least, most) in [
        (1_000, patient / 2, Duration::from_secs(8)),
        (8, Duration::ZERO, patient),
    ] {
        let server = start(limits(connections));
        // Seven of eight places are taken while these go on.
        let mut holding = Vec::new();
        for _ in 0..7 {
            let mut stream = server.speak().await;
            let request = frame(HEADERS, END_HEADERS, 1, &head(POST, "/length"));
            stream.write_all(&request).await.unwrap();
            // The request was taken in.
            let ping = frame(PING, 0, 0, &[0; 8]);
            stream.write_all(&ping).await.unwrap();
            read_until(&mut stream, PING).await.unwrap();
            holding.push(stream);
        }
        let mut half = server.connect().await;
        half.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
        let mut took = vec![
            closed_after(half).await,
            closed_after(server.connect().await).await,
        ];
        took.push(closed_after(server.handshake().await).await);
        took.push(closed_after(server.speak().await).await);
        let mut endless = server.speak().await;
        let unfinished = frame(HEADERS, END_STREAM, 1, &head(GET, "/hello"));
        endless.write_all(&unfinished).await.unwrap();
        took.push(closed_after(endless).await);
        let (read, mut write) = tokio::io::split(server.speak().await);
        let pings = tokio::spawn(async move {
            while write.write_all(&frame(PING, 0, 0, &[0; 8])).await.is_ok()
                && write.flush().await.is_ok()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        took.push(closed_after(read).await);
        pings.abort();
        for (case, took) in took.iter().enumerate() {
            assert!(
                (least..most).contains(took),
                "{connections}, {case}: {took:?}"
            );
        }
        drop(holding);
    }
}
