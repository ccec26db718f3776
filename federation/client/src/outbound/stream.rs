//! Answers that are too long to be held: handed on piece by piece.
//!
//! Their connections end with them, for nobody knows when, or whether, they are read to their end.

use std::io;

use bytes::Bytes;
use comity_protocol::id::ServerName;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Connection, Outbound, broken, fits};
use crate::transport::{Limits, Streamed, TransportError};

impl Outbound {
    /// Sends a request to a server by a new connection, as far as the answer's head.
    pub(super) async fn open_stream(
        &self,
        to: &ServerName,
        mut request: Request<Bytes>,
    ) -> Result<Response<Incoming>, TransportError> {
        let Ok(_place) = self.in_flight.acquire().await else {
            return Err(TransportError::Broken("shutting down".to_owned()));
        };
        let route = self.routes.find(to, self).await?;
        let host = HeaderValue::try_from(&route.host).map_err(|_| TransportError::Name)?;
        request.headers_mut().insert(header::HOST, host);
        match self.open(&route).await {
            Ok(connection) => ask(connection, request).await,
            Err(error) => {
                self.routes.failed(to);
                Err(error)
            }
        }
    }
}

/// A request by this connection, as far as the answer's head.
pub(super) async fn ask(
    mut connection: Connection,
    request: Request<Bytes>,
) -> Result<Response<Incoming>, TransportError> {
    let request = request.map(http_body_util::Full::new);
    let answer = connection.send_request(request).await;
    answer.map_err(|error| broken(&error))
}

/// The answer with its body in pieces, cut at the longest and where nothing comes for too long.
pub(super) fn pieces(
    answer: Response<Incoming>,
    limits: Limits,
) -> Result<Streamed, TransportError> {
    fits(answer.headers(), limits.max_bytes)?;
    Ok(answer.map(|body| {
        let next = move |(mut body, left): (Incoming, usize)| async move {
            loop {
                let frame = tokio::time::timeout(limits.timeout, body.frame()).await;
                let frame = frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
                let Some(frame) = frame.transpose().map_err(io::Error::other)? else {
                    return Ok(None);
                };
                let Ok(piece) = frame.into_data() else {
                    continue;
                };
                let left = left.checked_sub(piece.len());
                let left = left.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
                return Ok(Some((piece, (body, left))));
            }
        };
        stream::try_unfold((body, limits.max_bytes), next).boxed()
    }))
}
