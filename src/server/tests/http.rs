//! The way in, over real sockets: what hostile, slow and broken clients get (threats G1, G2, G4, slow clients), and
//! what good ones keep getting beside them.

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
use comity_server::http::{Lifecycle, Limits, Listener, Phase, Proxies, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};

struct Server {
    address: SocketAddr,
    lifecycle: Lifecycle,
    /// Answers those who wait at `/wait`.
    release: Arc<Notify>,
    serving: JoinHandle<()>,
}

/// Patience short enough for a test, long enough for a busy machine to be within it.
fn limits() -> Limits {
    Limits {
        connections: 100,
        head: Duration::from_millis(700),
        head_when_crowded: Duration::from_millis(200),
        idle: Duration::from_millis(1_000),
        body_gap: Duration::from_millis(400),
        body_whole: Duration::from_millis(1_200),
        body_bytes: 4_096,
        drain: Duration::from_secs(10),
        ..Limits::default()
    }
}

async fn start(limits: Limits) -> Server {
    let server = starting(limits).await;
    server.lifecycle.advance(Phase::Ready);
    server
}

async fn starting(limits: Limits) -> Server {
    let release = Arc::new(Notify::new());
    let waiting = Arc::clone(&release);
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route(
            "/_matrix/federation/v1/send/t",
            post(async |body: Bytes| body.len().to_string()),
        )
        .route(
            "/panic",
            get(async || -> &'static str { panic!("on purpose") }),
        )
        .route(
            "/wait",
            get(async move || {
                waiting.notified().await;
                "waited"
            }),
        );
    let runtime = Runtime::system();
    let lifecycle = Lifecycle::default();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).unwrap();
    let address = listener.address().unwrap();
    let serving = tokio::spawn(serve(
        vec![listener],
        router,
        limits,
        Proxies::default(),
        lifecycle.clone(),
        runtime,
    ));
    Server {
        address,
        lifecycle,
        release,
        serving,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `bytes` on a connection of its own and reads until the server closes it.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_close(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        self.exchange(request.as_bytes()).await
    }
}

async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is a close as well.
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection");
    String::from_utf8(answer).unwrap()
}

/// One answer with a short body, on a connection that stays open.
async fn read_answer(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(end) {
        let mut piece = [0; 1_024];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    answer
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own_and_cors() {
    let server = start(limits()).await;
    let (one, other) = (server.get("/hello").await, server.get("/nowhere").await);
    assert_eq!((status(&one), status(&other)), ("200", "404"));
    assert_eq!(header(&one, "x-request-id").len(), 16);
    assert_ne!(header(&one, "x-request-id"), header(&other, "x-request-id"));
    assert_eq!(header(&other, "access-control-allow-origin"), "*");
    let preflight = server
        .exchange(b"OPTIONS /panic HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&preflight), "204");
    assert!(header(&preflight, "access-control-allow-headers").contains("Authorization"));
}

/// G1, G2, G4: refused by the head alone, in the standard error shape, and the connection closed behind it.
#[tokio::test]
async fn g1_g2_hostile_heads_are_refused_and_the_connection_closed() {
    let server = start(limits()).await;
    let long = "a".repeat(20_000);
    let cases = [
        ("413", "M_TOO_LARGE", "content-length: 1000000\r\n"),
        (
            "415",
            "M_UNKNOWN",
            "content-encoding: gzip\r\ncontent-length: 3\r\n",
        ),
        ("400", "", "content-length: 3\r\ncontent-length: 4\r\n"),
        ("400", "", "content-length: -3\r\n"),
        ("400", "", "transfer-encoding: gzip\r\n"),
        ("431", "", &format!("x-long: {long}\r\n")),
    ];
    for (expected, errcode, headers) in cases {
        let mut stream = server.connect().await;
        let request = format!("POST /length HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_to_close(&mut stream).await;
        assert_eq!(status(&answer), expected, "{headers:.60}: {answer}");
        assert!(answer.contains(errcode), "{headers:.60}: {answer}");
    }
    assert_eq!(status(&server.get("/hello").await), "200");
}

/// G4: a length told twice, in whichever way and order, and however the bytes are cut, is refused, and nothing behind it is
/// taken for a request: a proxy that believed the other length smuggles nothing
/// ([RFC 9112, 6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3)).
#[tokio::test]
async fn g4_two_lengths_are_refused_and_smuggle_no_request() {
    let server = start(limits()).await;
    let before = "POST /length HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "Content-Length: 5\r\nx: y\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
    ] {
        let ambiguous = format!(
            "POST /length HTTP/1.1\r\nhost: a\r\n{headers}\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let answer = server.exchange(ambiguous.as_bytes()).await;
        assert_eq!(status(&answer), "400", "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        // As the second request of a connection, sent at once or a few bytes at a time.
        for piece in [1_000, 10] {
            let mut stream = server.connect().await;
            for piece in format!("{before}{ambiguous}").as_bytes().chunks(piece) {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let answer = read_to_close(&mut stream).await;
            assert_eq!(status(&answer), "200", "{headers}: {answer}");
            let second = answer.rfind("HTTP/1.1").unwrap();
            assert_eq!(status(&answer[second..]), "400", "{headers}: {answer}");
            assert!(!answer.contains("hello"), "{headers}: {answer}");
        }
    }
    // Many requests behind one another, each with one length, are each answered.
    let plain = "POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let last = "GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = server
        .exchange(format!("{before}{plain}{before}{plain}{last}").as_bytes())
        .await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 5, "{answer}");
}

/// G1: an endless chunked body is cut at the limit.
#[tokio::test]
async fn g1_an_endless_body_is_cut() {
    let server = start(limits()).await;
    let mut stream = server.connect().await;
    let head = "POST /length HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    for _ in 0..64 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = read_answer(&mut stream, "}").await;
    assert_eq!(status(&answer), "413", "{answer}");
    let exact = format!(
        "POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4096\r\n\r\n{}",
        "x".repeat(4_096)
    );
    assert!(server.exchange(exact.as_bytes()).await.ends_with("4096"));
    // A transaction of another server has a limit of its own.
    let transaction = exact.replace("/length", "/_matrix/federation/v1/send/t");
    let transaction = transaction.replace("length: 4096", "length: 4097") + "x";
    let answer = server.exchange(transaction.as_bytes()).await;
    assert!(answer.ends_with("4097"), "{answer}");
}

/// A connection has a deadline from its first moment, whether it says nothing or drips.
#[tokio::test]
async fn silent_and_dripping_heads_are_closed_in_time() {
    let server = start(limits()).await;
    let began = Instant::now();
    let mut silent = server.connect().await;
    let mut dripping = server.connect().await;
    let drip = async {
        for byte in b"GET /hello HTTP/1.1\r\nhost: a\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            .iter()
            .cycle()
        {
            if dripping.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (answer, dripped) = tokio::join!(
        read_to_close(&mut silent),
        timeout(Duration::from_secs(8), drip)
    );
    assert_eq!(answer, "");
    assert!(dripped.is_ok(), "the dripping connection is still open");
    assert!(began.elapsed() >= limits().head);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_dripping_second_head_too() {
    let server = start(limits()).await;
    for second in ["", "GET /he"] {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(status(&read_answer(&mut stream, "hello").await), "200");
        stream.write_all(second.as_bytes()).await.unwrap();
        assert_eq!(read_to_close(&mut stream).await, "");
    }
}

#[tokio::test]
async fn a_body_that_stops_is_408() {
    let server = start(limits()).await;
    let answer = server
        .exchange(b"POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    assert_eq!(status(&answer), "408", "{answer}");
}

/// A long poll is no idle connection: it outlives every deadline of the connection, and is kept for the next.
#[tokio::test]
async fn a_waiting_request_outlives_the_deadlines() {
    let server = start(limits()).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(limits().idle + Duration::from_millis(300)).await;
        server.release.notify_one();
        assert_eq!(status(&read_answer(&mut stream, "waited").await), "200");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_names_its_id() {
    let server = start(limits()).await;
    let answer = server.get("/panic").await;
    assert_eq!(status(&answer), "500");
    assert!(
        answer
            .split_once("\r\n\r\n")
            .unwrap()
            .1
            .contains(header(&answer, "x-request-id"))
    );
    assert!(!answer.contains("on purpose"));
    assert_eq!(status(&server.get("/hello").await), "200");
}

/// The fault "half-open connections": more of them than there are places, and no valid request is lost.
#[tokio::test]
async fn half_open_connections_take_no_valid_request_with_them() {
    let server = start(limits()).await;
    let mut half_open = Vec::new();
    for _ in 0..150 {
        half_open.push(server.connect().await);
    }
    for _ in 0..5 {
        assert_eq!(status(&server.get("/hello").await), "200");
    }
    for stream in &mut half_open {
        read_to_close(stream).await;
    }
}

#[tokio::test]
async fn a_drain_answers_what_has_begun_and_takes_no_more() {
    let server = start(limits()).await;
    assert_eq!(status(&server.get("/_comity/ready").await), "200");
    let (mut waiting, mut idle) = (server.connect().await, server.connect().await);
    idle.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    read_answer(&mut idle, "hello").await;
    waiting
        .write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    // Taken in before the drain begins.
    assert_eq!(status(&server.get("/_comity/live").await), "200");
    tokio::time::sleep(Duration::from_millis(100)).await;

    server.lifecycle.advance(Phase::Draining);
    assert_eq!(read_to_close(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
    server.release.notify_one();
    assert!(read_to_close(&mut waiting).await.ends_with("waited"));
    timeout(Duration::from_secs(5), server.serving)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn readiness_follows_the_phase_and_liveness_does_not() {
    let server = starting(limits()).await;
    for (path, expected) in [("live", "200"), ("ready", "503")] {
        let answer = server.get(&format!("/_comity/{path}")).await;
        assert_eq!(status(&answer), expected, "{path}");
    }
    server.lifecycle.advance(Phase::Ready);
    assert_eq!(status(&server.get("/_comity/ready").await), "200");
    server.lifecycle.advance(Phase::Draining);
    server.lifecycle.advance(Phase::Ready); // never back
    assert_eq!(server.lifecycle.phase(), Phase::Draining);
}
