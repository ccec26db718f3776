//! Connections: names to addresses, addresses refused or connected to, TLS with the right name.
//!
//! The one place that connects. An address is looked at after it was resolved and used as it was
//! looked at, so that a name which resolves otherwise the second time gains nothing (threat H2).

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use comity_runtime::Random;
use hickory_resolver::{
    TokioResolver,
    proto::rr::{RData, RecordType},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{OutboundConfig, OutboundError, address::is_public};
use crate::transport::TransportError;

/// For one address: one that takes longer is as good as none, and there may be others.
const CONNECT: Duration = Duration::from_secs(8);
const LOOKUP: Duration = Duration::from_secs(8);
const TLS: Duration = Duration::from_secs(10);
/// Addresses tried at most.
const ADDRESSES: usize = 8;
/// SRV records looked at.
const RECORDS: usize = 8;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request to another server.
    Peer,
    /// A page or a file of the web.
    Page,
}

/// What SRV records said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Srv {
    /// In the order in which they are to be tried.
    Found(Vec<Target>),
    /// There are none.
    Absent,
    /// The resolver gave no answer.
    Unknown,
}

pub(super) struct Dialer {
    tls: TlsConnector,
    resolver: Option<TokioResolver>,
    random: Random,
    allow_private_addresses: bool,
    allow_private_pages: bool,
}

impl Dialer {
    pub fn new(config: &OutboundConfig, random: Random) -> Result<Self, OutboundError> {
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls(&config.extra_ca_files)?)),
            resolver: resolver(),
            random,
            allow_private_addresses: config.allow_private_addresses,
            allow_private_pages: config.allow_private_pages,
        })
    }

    /// The servers that SRV records name, by priority and then by weight.
    pub async fn srv(&self, name: &str) -> Srv {
        let Some(resolver) = &self.resolver else {
            return Srv::Unknown;
        };
        // The dot at the end keeps the search domains out.
        let lookup = resolver.lookup(format!("{name}."), RecordType::SRV);
        let found = match timeout(LOOKUP, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.is_no_records_found() => return Srv::Absent,
            Ok(Err(_)) | Err(_) => return Srv::Unknown,
        };
        let mut records: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(srv),
                _ => None,
            })
            // A service that is said not to be there (RFC 2782).
            .filter(|srv| !srv.target.is_root())
            .take(RECORDS)
            .map(|srv| {
                let share = self.random.below(u64::from(srv.weight) + 1);
                let host = srv.target.to_ascii();
                let host = Host::Name(host.trim_end_matches('.').to_owned());
                let port = srv.port;
                (
                    (srv.priority, std::cmp::Reverse(share)),
                    Target { host, port },
                )
            })
            .collect();
        records.sort_by_key(|(order, _)| *order);
        if records.is_empty() {
            return Srv::Absent;
        }
        Srv::Found(records.into_iter().map(|(_, target)| target).collect())
    }

    /// A connection to the first address of these that takes one, whose certificate is for `name`.
    pub async fn connect(
        &self,
        targets: &[Target],
        name: &ServerName<'static>,
        purpose: Purpose,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let mut last = TransportError::Lookup("no target".to_owned());
        for target in targets {
            let addresses = match self.addresses(target, purpose).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            for address in addresses {
                match self.connect_to(address, name).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    /// As [`Self::connect`], without TLS: for pages that are read without.
    pub async fn connect_plain(&self, targets: &[Target]) -> Result<TcpStream, TransportError> {
        let mut last = TransportError::Lookup("no target".to_owned());
        for target in targets {
            for address in self.addresses(target, Purpose::Page).await? {
                match tcp(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        name: &ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let stream = tcp(address).await?;
        timeout(TLS, self.tls.connect(name.clone(), stream))
            .await
            .map_err(|_| TransportError::Tls("timed out".to_owned()))?
            .map_err(|error| TransportError::Tls(error.to_string()))
    }

    /// The addresses that may be connected to.
    async fn addresses(
        &self,
        target: &Target,
        purpose: Purpose,
    ) -> Result<Vec<SocketAddr>, TransportError> {
        let allow_private = match purpose {
            Purpose::Peer => self.allow_private_addresses,
            Purpose::Page => self.allow_private_pages,
        };
        let mut found = match &target.host {
            Host::Ip(address) => vec![SocketAddr::new(*address, target.port)],
            Host::Name(name) => lookup(name, target.port).await?,
        };
        if found.is_empty() {
            return Err(TransportError::Lookup("none".to_owned()));
        }
        found.retain(|address| allow_private || is_public(address.ip()));
        if found.is_empty() {
            return Err(TransportError::PrivateAddress);
        }
        found.truncate(ADDRESSES);
        Ok(found)
    }
}

/// A connection to an address that was looked at.
async fn tcp(address: SocketAddr) -> Result<TcpStream, TransportError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one outgoing client; the address was checked"
    )]
    let stream = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = stream
        .map_err(|_| TransportError::Connect("timed out".to_owned()))?
        .map_err(|error| TransportError::Connect(error.to_string()))?;
    // Requests are short; waiting to fill a packet only delays them.
    drop(stream.set_nodelay(true));
    Ok(stream)
}

/// As the system resolves names, its hosts file included.
async fn lookup(name: &str, port: u16) -> Result<Vec<SocketAddr>, TransportError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one outgoing client; what is found is checked before it is used"
    )]
    let found = timeout(LOOKUP, tokio::net::lookup_host((name, port))).await;
    found
        .map_err(|_| TransportError::Lookup("timed out".to_owned()))?
        .map(Iterator::collect)
        .map_err(|error| TransportError::Lookup(error.to_string()))
}

/// For SRV records only. Without a configuration of the system's there are none.
fn resolver() -> Option<TokioResolver> {
    let built = TokioResolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(2);
        options.attempts = 1;
        options.cache_size = 4096;
        builder.build()
    });
    built
        .inspect_err(|error| tracing::warn!(%error, "no SRV records can be looked up"))
        .ok()
}

fn tls(extra: &[PathBuf]) -> Result<ClientConfig, OutboundError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::warn!(%error, "a certificate of the system can't be read");
    }
    roots.add_parsable_certificates(system.certs);
    for path in extra {
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|error| OutboundError::Authority(path.clone(), error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OutboundError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| OutboundError::Authority(path.to_owned(), error.to_string()))
}
