//! Against real TLS servers on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::Web;

/// A certificate authority of our own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = std::env::temp_dir().join(format!("comity-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { issuer, folder }
    }

    fn outbound(&self, allow_private: bool) -> Outbound {
        self.outbound_to(allow_private, allow_private)
    }

    fn outbound_to(&self, private_addresses: bool, private_pages: bool) -> Outbound {
        let config = OutboundConfig {
            extra_ca_files: vec![self.folder.join("ca.pem")],
            allow_private_addresses: private_addresses,
            allow_private_pages: private_pages,
        };
        Outbound::new(&config, Runtime::system()).unwrap()
    }

    /// A server with a certificate for this name that answers each request with what `answer` makes
    /// of its head, and counts connections.
    async fn serve(
        &self,
        san: SanType,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> (SocketAddr, Arc<AtomicUsize>) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = vec![san];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        #[expect(clippy::disallowed_methods, reason = "a test's server")]
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, answer) = (connections.clone(), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while let Ok(byte) = stream.read_u8().await {
                        head.push(byte);
                        if head.ends_with(b"\r\n\r\n") {
                            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                            let bytes = answer(&text);
                            if stream.write_all(&bytes).await.is_err() || bytes.is_empty() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        (address, connections)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn loopback() -> SanType {
    SanType::IpAddress("127.0.0.1".parse().unwrap())
}

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(5),
    max_bytes: 1000,
};

async fn get(outbound: &Outbound, to: &str) -> Result<String, TransportError> {
    let request = Request::get("/_matrix/x?y=1").body(Bytes::new()).unwrap();
    let to = OwnedServerName::try_from(to).unwrap();
    let answer = outbound.send(&to, request, LIMITS).await?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

/// Steps 1 and 2: an address, and a name with a port; the `Host` header and certificate of each, and
/// one connection for several requests.
#[tokio::test]
async fn requests_by_address_and_by_name() {
    let authority = Authority::new("names");
    let host = |head: &str| {
        assert!(
            head.starts_with("GET /_matrix/x?y=1 HTTP/1.1\r\n"),
            "{head}"
        );
        let host = head
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap();
        ok(host)
    };
    let (by_address, connections) = authority.serve(loopback(), host).await;
    let dns = SanType::DnsName("localhost".try_into().unwrap());
    let (by_name, _) = authority.serve(dns, host).await;
    let outbound = authority.outbound(true);
    let name = by_address.to_string();
    for _ in 0..3 {
        assert_eq!(get(&outbound, &name).await.unwrap(), name);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let name = format!("localhost:{}", by_name.port());
    assert_eq!(get(&outbound, &name).await.unwrap(), name);
    // A certificate for another name, and an authority that isn't trusted.
    let wrong = format!("127.0.0.1:{}", by_name.port());
    assert!(matches!(
        get(&outbound, &wrong).await,
        Err(TransportError::Tls(_))
    ));
    let stranger = Authority::new("stranger").outbound(true);
    let refused = get(&stranger, &by_address.to_string()).await;
    assert!(
        matches!(refused, Err(TransportError::Tls(_))),
        "{refused:?}"
    );
}

/// H2: no connection is made to a private address, whether it is written or resolved, or a redirect
/// leads there.
#[tokio::test]
async fn h2_private_addresses_are_not_connected_to() {
    let authority = Authority::new("private");
    let (address, connections) = authority.serve(loopback(), |_| ok("{}")).await;
    let outbound = authority.outbound(false);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let refused = get(&outbound, &format!("{host}:{}", address.port())).await;
        // A number is no name that a certificate could be for.
        assert!(
            matches!(
                refused,
                Err(TransportError::PrivateAddress | TransportError::Name)
            ),
            "{host}: {refused:?}"
        );
    }
    assert_eq!(
        outbound.ask_well_known(&address.to_string()).await,
        WellKnown::Unknown
    );
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

/// G2: what is longer than the limit, announced or not, and what is compressed.
#[tokio::test]
async fn g2_answers_are_cut_at_the_cap() {
    let authority = Authority::new("caps");
    for (answer, expected) in [
        (ok(&"x".repeat(1000)), Ok(1000)),
        (ok(&"x".repeat(1001)), Err(TransportError::TooLarge)),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            Err(TransportError::TooLarge),
        ),
        (
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                format!("400\r\n{}\r\n", "x".repeat(1024)).into_bytes(),
            ]
            .concat(),
            Err(TransportError::TooLarge),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx".to_vec(),
            Err(TransportError::Broken("a compressed answer".to_owned())),
        ),
    ] {
        let (address, _) = authority.serve(loopback(), move |_| answer.clone()).await;
        let outbound = authority.outbound(true);
        let got = get(&outbound, &address.to_string()).await;
        assert_eq!(got.map(|body| body.len()), expected);
    }
}

/// G2, law 11: of one server's long answers two are read at a time, and what is short, or another's, doesn't wait for them.
#[tokio::test]
async fn g2_few_long_answers_are_held_at_a_time() {
    const LONG: Limits = Limits {
        timeout: Duration::from_secs(60),
        max_bytes: 2 * whole::SHORT,
    };
    let authority = Authority::new("long");
    let answer = |head: &str| {
        let mut answer = ok(&"x".repeat(whole::SHORT + 2));
        match head.split(' ').nth(1).unwrap() {
            "/short" => ok("{}"),
            // Its last byte never comes.
            "/endless" => {
                answer.pop();
                answer
            }
            _ => answer,
        }
    };
    let (slow, _) = authority.serve(loopback(), answer).await;
    let (other, _) = authority.serve(loopback(), answer).await;
    let outbound = Arc::new(authority.outbound(true));
    let get = |from: SocketAddr, path: &'static str, limits: Limits| {
        let outbound = outbound.clone();
        async move {
            let from = OwnedServerName::try_from(from.to_string().as_str()).unwrap();
            let request = Request::get(path).body(Bytes::new()).unwrap();
            let answer = outbound.send(&from, request, limits).await;
            answer.map(|answer| answer.into_body().len())
        }
    };
    let all = outbound.places.free();
    let endless = [(), ()].map(|()| tokio::spawn(get(slow, "/endless", LONG)));
    while outbound.places.free() > all - 2 {
        tokio::task::yield_now().await;
    }
    let hasty = Limits {
        timeout: Duration::from_millis(500),
        ..LONG
    };
    let waits = get(slow, "/long", hasty).await;
    assert_eq!(waits, Err(TransportError::Timeout));
    assert_eq!(get(slow, "/short", LONG).await, Ok(2));
    assert_eq!(get(other, "/long", LONG).await, Ok(whole::SHORT + 2));
    endless[0].abort();
    assert_eq!(get(slow, "/long", LONG).await, Ok(whole::SHORT + 2));
    assert_eq!(outbound.places.free(), all - 1);
}

/// A server that closes idle connections: the next request goes by a new one.
#[tokio::test]
async fn a_closed_connection_is_not_an_error() {
    let authority = Authority::new("closed");
    let (address, connections) = authority
        .serve(loopback(), |head| {
            if head.contains("/close") {
                vec![]
            } else {
                ok("{}")
            }
        })
        .await;
    let outbound = authority.outbound(true);
    let to = address.to_string();
    get(&outbound, &to).await.unwrap();
    // The server hangs up instead of answering, on the old connection and on a new one.
    let request = Request::get("/close").body(Bytes::new()).unwrap();
    let name = OwnedServerName::try_from(to.as_str()).unwrap();
    let broken = outbound.send(&name, request, LIMITS).await;
    assert!(
        matches!(broken, Err(TransportError::Broken(_))),
        "{broken:?}"
    );
    get(&outbound, &to).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

/// G3: delegation by redirects; loops, long answers and redirects without TLS are none.
#[tokio::test]
async fn g3_well_known() {
    let authority = Authority::new("well-known");
    let redirect = |to: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let (address, _) = authority
        .serve(loopback(), move |head| {
            match head.split(' ').nth(1).unwrap() {
                "/.well-known/matrix/server" => redirect("/second"),
                "/second" => ok(r#"{"m.server":"there:1"}"#),
                _ => unreachable!(),
            }
        })
        .await;
    let outbound = authority.outbound(true);
    let found = outbound.ask_well_known(&address.to_string()).await;
    let there = OwnedServerName::try_from("there:1").unwrap();
    assert_eq!(
        found,
        WellKnown::Delegates(there, Duration::from_secs(86_400))
    );

    let padded = format!(r#"{{"m.server":"there:1","x":"{}"}}"#, "x".repeat(50 << 10));
    for answer in [
        redirect("/.well-known/matrix/server"),
        ok(&padded),
        redirect("http://there/"),
    ] {
        let (address, connections) = authority.serve(loopback(), move |_| answer.clone()).await;
        let found = outbound.ask_well_known(&address.to_string()).await;
        assert_eq!(found, WellKnown::Absent);
        assert!(connections.load(Ordering::SeqCst) <= 6);
    }
}

/// The pages of the web that a test's server over TLS has, and what came of them.
async fn page(outbound: &Outbound, address: &str) -> Result<(String, String), TransportError> {
    let (from, answer) = outbound.get(address, "*/*", LIMITS).await?;
    let mut body = answer.into_body();
    let mut read = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| TransportError::Broken(error.to_string()))?;
        read.extend_from_slice(&piece);
    }
    Ok((from, String::from_utf8(read).unwrap()))
}

/// A page with the `Host` that was asked for, relative redirects, and redirects without end.
#[tokio::test]
async fn pages_are_followed_to_where_they_are() {
    let authority = Authority::new("pages");
    let (address, connections) = authority
        .serve(loopback(), |head| {
            let redirect = |to: &str| {
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
                    .into_bytes()
            };
            match head.split(' ').nth(1).unwrap() {
                "/a/first?x=y" => redirect("second"),
                "/a/second" => {
                    let line = |name| head.lines().find_map(|line| line.strip_prefix(name));
                    ok(line("host: ").unwrap())
                }
                _ => redirect("/loop"),
            }
        })
        .await;
    let outbound = authority.outbound(true);
    let (from, body) = page(&outbound, &format!("https://{address}/a/first?x=y"))
        .await
        .unwrap();
    assert_eq!(from, format!("https://{address}/a/second"));
    assert_eq!(body, address.to_string());
    let before = connections.load(Ordering::SeqCst);
    let endless = page(&outbound, &format!("https://{address}/loop")).await;
    assert!(matches!(endless, Err(TransportError::Broken(_))));
    assert_eq!(connections.load(Ordering::SeqCst), before + 6);
    for bad in [
        "ftp://a/",
        "file:///etc/passwd",
        "https://a:b@127.0.0.1/",
        "x",
        "https://",
    ] {
        let refused = page(&outbound, bad).await;
        assert_eq!(refused, Err(TransportError::Name), "{bad}");
    }
}

/// H2: however a private address is written, and wherever a redirect leads, nothing is connected to; also where other servers may
/// have private addresses.
#[tokio::test]
async fn h2_pages_are_on_the_public_internet() {
    let authority = Authority::new("private-pages");
    let (address, connections) = authority.serve(loopback(), |_| ok("secret")).await;
    let outbound = authority.outbound_to(true, false);
    let port = address.port();
    for scheme in ["http", "https"] {
        for host in [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "0.0.0.0",
            "10.0.0.1",
            "169.254.169.254",
        ] {
            let refused = page(&outbound, &format!("{scheme}://{host}:{port}/")).await;
            assert_eq!(refused, Err(TransportError::PrivateAddress), "{host}");
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

/// H3, G2: a body is handed on as it comes and cut where it is too long.
#[tokio::test]
async fn h3_pages_are_cut() {
    let authority = Authority::new("long-pages");
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", "x".repeat(length));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless = format!("{head}{}{}", chunk(900), chunk(900)).into_bytes();
    let (address, _) = authority.serve(loopback(), move |_| endless.clone()).await;
    let outbound = authority.outbound(true);
    let cut = page(&outbound, &format!("https://{address}/")).await;
    assert!(matches!(cut, Err(TransportError::Broken(_))), "{cut:?}");
    let announced = ok(&"x".repeat(1001));
    let (address, _) = authority
        .serve(loopback(), move |_| announced.clone())
        .await;
    let cut = page(&outbound, &format!("https://{address}/")).await;
    assert_eq!(cut, Err(TransportError::TooLarge));
}
