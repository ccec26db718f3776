//! Where a homeserver listens, and how it is reached: the base URL, resolved once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};

/// What bytes go over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A homeserver's base URL.
#[derive(Clone)]
pub struct Target {
    /// Resolved once, so that no measurement pays for it.
    pub address: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// What stands before each path; empty as a rule.
    pub prefix: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Resolves a base URL such as `http://127.0.0.1:8008` or `https://matrix.example.org`.
    /// For TLS those authorities count that the system trusts, and those in `authorities`, a PEM file.
    ///
    /// # Errors
    /// [`Error::BaseUrl`] for anything but `http[s]://host[:port][/path]`; [`Error::Io`] where the host can't be
    /// resolved or the file not be read.
    #[expect(
        clippy::disallowed_methods,
        reason = "the operator names the server to load"
    )]
    pub async fn resolve(base_url: &str, authorities: Option<&Path>) -> Result<Self> {
        let refuse = || Error::BaseUrl(base_url.to_owned());
        let uri: Uri = base_url.parse().map_err(|_| refuse())?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse()),
        };
        let authority = uri.authority().ok_or_else(refuse)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(refuse());
        }
        let name = authority.host().trim_matches(['[', ']']).to_owned();
        let tail = authority.as_str().rsplit(']').next().unwrap_or_default();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if tail.contains(':') => return Err(refuse()),
            None if is_secure => 443,
            None => 80,
        };
        let address = lookup_host((name.as_str(), port)).await?.next();
        Ok(Self {
            address: address.ok_or_else(refuse)?,
            host: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls: if is_secure {
                let name = ServerName::try_from(name).map_err(|_| refuse())?;
                Some((connector(authorities)?, name))
            } else {
                None
            },
        })
    }

    /// Whether the server is on this machine, so that client addresses of the loopback net reach it.
    #[must_use]
    pub fn is_loopback_v4(&self) -> bool {
        self.address.is_ipv4() && self.address.ip().is_loopback()
    }

    /// The stream itself, or TLS over it.
    ///
    /// # Errors
    /// [`Error::Io`] where the server shows no certificate of its name that counts.
    pub async fn secured(&self, stream: TcpStream) -> Result<Box<dyn Stream>> {
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), stream).await?)),
        }
    }
}

fn connector(authorities: Option<&Path>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = authorities {
        let failed = |error| std::io::Error::other(format!("{}: {error}", file.display()));
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(file).map_err(failed)? {
            let certificate = certificate.map_err(failed)?;
            roots.add(certificate).map_err(std::io::Error::other)?;
        }
        if roots.len() == before {
            let file = file.display();
            return Err(std::io::Error::other(format!("{file} has no certificate")).into());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::http::Connection;
    use crate::remote::tls;

    #[tokio::test]
    async fn base_urls_are_read() {
        for (url, host, port, prefix) in [
            ("http://127.0.0.1", "127.0.0.1", 80, ""),
            ("http://127.0.0.1:8008/", "127.0.0.1:8008", 8008, ""),
            ("https://127.0.0.1/a/b/", "127.0.0.1", 443, "/a/b"),
            ("http://[::1]:81", "[::1]:81", 81, ""),
        ] {
            let target = Target::resolve(url, None).await.unwrap();
            assert_eq!(target.host, host, "{url}");
            assert_eq!(target.address.port(), port, "{url}");
            assert_eq!(target.prefix, prefix, "{url}");
        }
        for url in [
            "",
            "127.0.0.1:8008",
            "ftp://127.0.0.1",
            "http://u:p@127.0.0.1",
            "http://127.0.0.1/?a",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:",
        ] {
            assert!(Target::resolve(url, None).await.is_err(), "{url}");
        }
    }

    /// A server behind TLS and a path is loaded as any other; one whose certificate doesn't count isn't.
    #[tokio::test]
    async fn tls_is_spoken_to_those_whose_certificate_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.pem");
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let acceptor = tls::certify(&[here], &file).unwrap();
        let listener = tls::listen(&[here]).await.unwrap().remove(0);
        let url = format!("https://{}/matrix", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(stream).await.is_err());
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                .await
                .unwrap();
            stream.flush().await.unwrap();
            head.truncate(length);
            String::from_utf8(head).unwrap()
        });
        let ask = async |authorities| {
            let target = Target::resolve(&url, authorities).await.unwrap();
            let path = "/_matrix/client/versions";
            Connection::new(&target)
                .request(hyper::Method::GET, path, None, bytes::Bytes::new())
                .await
        };
        assert!(ask(None).await.is_err());
        assert_eq!(ask(Some(&file)).await.unwrap().status, 200);
        let head = server.await.unwrap();
        assert!(
            head.starts_with("GET /matrix/_matrix/client/versions HTTP/1.1"),
            "{head}"
        );
    }
}
