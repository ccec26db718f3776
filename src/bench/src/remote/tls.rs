//! The remote servers' certificates and sockets.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};

/// Times that another port is tried when one isn't free on all addresses.
const ATTEMPTS: usize = 16;

fn failed(error: impl ToString) -> Error {
    Error::Program(format!(
        "the remote servers' certificates: {}",
        error.to_string()
    ))
}

/// A new authority, whose certificate goes to `authority`, and one certificate of it for all the addresses.
pub fn certify(addresses: &[IpAddr], authority: &Path) -> Result<TlsAcceptor> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    std::fs::write(authority, certificate.pem())?;
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::default();
    params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(failed)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A listener for each address, all at one port.
#[expect(
    clippy::disallowed_methods,
    reason = "the servers that the measured one shares rooms with"
)]
pub async fn listen(addresses: &[IpAddr]) -> Result<Vec<TcpListener>> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let port = crate::servers::free_port()?;
        let mut listeners = Vec::new();
        for address in addresses {
            match TcpListener::bind(SocketAddr::new(*address, port)).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => last = Some(error),
            }
        }
        if listeners.len() == addresses.len() {
            return Ok(listeners);
        }
    }
    Err(last.map_or_else(|| failed("no port is free"), Error::from))
}
