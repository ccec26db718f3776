//! The one seam between what is said to another server and how it gets there.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use comity_protocol::id::ServerName;

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From its beginning to the last byte of the answer, finding the server included.
    pub timeout: Duration,
    /// The longest body of an answer, in bytes. A longer one is an error: half of JSON is nothing.
    pub max_bytes: usize,
}

/// Brings a request to another server.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request, whose URI is a path with its query, and reads the whole answer. An answer of
    /// any status is one.
    ///
    /// # Errors
    /// No answer came; [`TransportError`] says how far it got.
    async fn send(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<http::Response<Bytes>, TransportError>;
}

/// Why no answer came. For the operator; a client is told that the server couldn't be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// A name that is never looked up.
    #[error("not a name of a server that can be reached")]
    Name,
    /// No address is known for the name.
    #[error("no address found: {0}")]
    Lookup(String),
    /// All its addresses are private, loopback, link-local or otherwise not on the public internet.
    #[error("only private addresses, which outbound.allow_private_addresses forbids")]
    PrivateAddress,
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// A connection, but not to that server as its certificate tells.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection broke, or spoke no HTTP.
    #[error("no answer: {0}")]
    Broken(String),
    /// No whole answer within the limit.
    #[error("timed out")]
    Timeout,
    /// The answer is longer than the limit.
    #[error("the answer is too long")]
    TooLarge,
}
