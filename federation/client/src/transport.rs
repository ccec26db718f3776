//! The one seam between what is said to another server and how it gets there.

use std::{io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use comity_protocol::id::ServerName;
use futures_util::{StreamExt, stream, stream::BoxStream};

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

    /// Sends a request and hands on the answer's body as it comes. The time is for its head, and again for each piece.
    /// Within one process all of it comes at once.
    ///
    /// # Errors
    /// No answer came. What goes wrong later cuts the body short.
    async fn stream(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<Streamed, TransportError> {
        let answer = self.send(to, request, limits).await?;
        Ok(answer.map(|body| stream::iter([Ok(body)]).boxed()))
    }
}

/// An answer whose body comes piece by piece; an error cuts it short.
pub type Streamed = http::Response<BoxStream<'static, io::Result<Bytes>>>;

/// The way to what isn't Matrix: pages and files by their addresses.
#[async_trait]
pub trait Web: Send + Sync + 'static {
    /// Asks for what an `http:` or `https:` address names, following where it leads; with the address it came from.
    ///
    /// # Errors
    /// No answer came.
    async fn get(
        &self,
        address: &str,
        accept: &'static str,
        limits: Limits,
    ) -> Result<(String, Streamed), TransportError>;
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
    #[error("only private addresses, which [outbound] in the configuration forbids")]
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
