//! More clients than there is room for: file descriptors that run out, half-open connections by the thousand, floods of bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::{Server, ask};

const MEMORY: (&str, &str) = ("STORAGE__ENGINE", "memory");

/// The fault "file descriptors exhausted": the accept loop backs off, what is open goes on, and five seconds after there are
/// descriptors again a client is served.
#[test]
fn file_descriptors_exhausted() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [MEMORY, ("LISTEN__MAX_CONNECTIONS", "10000")];
    let server = Server::with_files(folder.path(), &environment, 64);
    let mut open = server.connect();
    open.write_all(b"GET /_comity/live HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    read_head(&mut open);
    let crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
    // One that was open before is answered while no other can be taken in.
    open.write_all(b"GET /_comity/live HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut open).starts_with("HTTP/1.1 200"));
    let told = Instant::now();
    while !server.log().contains("cannot accept connections") {
        assert!(
            told.elapsed() < Duration::from_secs(10),
            "it takes more than it can"
        );
        std::thread::yield_now();
    }
    drop(crowd);
    let began = Instant::now();
    assert_eq!(server.request("GET", "/_comity/ready", "", "").status, 200);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // It waits between its tries rather than spin.
    let tries = server.log().matches("cannot accept connections").count();
    assert!(tries < 20, "{tries}");
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(char::from(byte[0]));
    }
    head
}

/// The fault "19,000 half-open connections" (as many as this machine lets a process have): no valid request is lost, all are closed
/// within 30 seconds, and memory stays within what the places cost.
#[test]
fn half_open_connections_by_the_thousand() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let many = usize::try_from(files)
        .unwrap_or(usize::MAX)
        .saturating_sub(500)
        .min(19_000);

    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[MEMORY, ("LISTEN__CLIENT", "0.0.0.0:0")]);
    let port = server.address.port();
    assert_eq!(
        ask(server.connect(), "GET", "/_comity/ready", "", "")
            .unwrap()
            .status,
        200
    );
    let before = server.peak_memory();
    let began = Instant::now();
    let mut crowd = Vec::with_capacity(many);
    for n in 0..many {
        // Several addresses, so that their ports suffice.
        let host = u8::try_from(1 + n % 8).unwrap();
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, host], port))).unwrap();
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /_comity/live HTTP/1.1\r\nhost: a\r\nx-half: ");
        }
        crowd.push(stream);
    }
    let valid: Vec<_> = (0..50)
        .map(|n| {
            let address = SocketAddr::from(([127, 0, 0, 1 + n % 8], port));
            std::thread::spawn(move || {
                let stream = TcpStream::connect(address).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(60)))
                    .unwrap();
                ask(stream, "GET", "/_comity/live", "", "").map(|answer| answer.status)
            })
        })
        .collect();
    for request in valid {
        assert_eq!(request.join().unwrap().unwrap(), 200);
    }
    for mut stream in crowd {
        let left = Duration::from_secs(30).saturating_sub(began.elapsed());
        stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        // A reset is a close as well.
        let closed = stream.read(&mut [0; 64]);
        let open = matches!(&closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!open, "still open after {:?}", began.elapsed());
    }
    // A quarter of the files are no connections.
    let places = u64::try_from(many).unwrap();
    let grown = server.peak_memory() - before;
    assert!(
        grown / places < 20_000,
        "{} bytes a connection",
        grown / places
    );
}

/// G1, law 11: what is sent without end is neither kept nor read on: memory stays as it was, whatever is sent and however much.
#[test]
fn g1_endless_bytes_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[MEMORY, ("LIMITS__ENABLED", "false")]);
    let alice = server.register("alice", "a secret of alice");
    let token = alice["access_token"].as_str().unwrap();
    let nested = "[".repeat(64 << 10);
    server.request("POST", "/_matrix/client/v3/login", "", &nested);
    let before = server.peak_memory();
    let head = |headers: &str| {
        format!(
            "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{headers}"
        )
    };
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let floods = [
        // A head without end, a body without end, a body that was announced as endless, a compressed one, deep nesting.
        (head("x-long: "), "y".repeat(0x10000)),
        (head("transfer-encoding: chunked\r\n\r\n"), chunk),
        (
            head("content-length: 99999999999\r\n\r\n"),
            "x".repeat(0x10000),
        ),
        (
            head("content-encoding: gzip\r\ncontent-length: 99999999\r\n\r\n"),
            "x".repeat(0x10000),
        ),
        (head("content-length: 1000000\r\n\r\n"), "[".repeat(0x10000)),
    ];
    for (head, piece) in floods {
        for _ in 0..8 {
            let mut stream = server.connect();
            stream.write_all(head.as_bytes()).unwrap();
            let mut sent = 0;
            while sent < 64 << 20 && stream.write_all(piece.as_bytes()).is_ok() {
                sent += piece.len();
            }
            assert!(sent < 64 << 20, "{head}: all of it was read");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            // A reset may come before the answer.
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{head}: {answer}"
            );
        }
        assert_eq!(
            server
                .request("POST", "/_matrix/client/v3/login", "", &nested)
                .status,
            400
        );
    }
    let grown = server.peak_memory() - before;
    assert!(grown < 16 << 20, "{grown} bytes more");
}
