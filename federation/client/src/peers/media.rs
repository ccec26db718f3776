//! Other servers' media, as it comes.

use std::time::Duration;

use comity_protocol::id::ServerName;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};

use super::{Call, PeerError, Peers, Refusal, answers, refusal};
use crate::transport::{Limits, Streamed};

/// What a refusal says, at most.
const REFUSAL: usize = 64 << 10;
/// How long the other server may wait for an upload at most, and we for its answer's head, or its next piece.
const UPLOAD: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);

impl Peers {
    /// A server's media: `multipart/mixed`, of at most `most` bytes. The server may `wait` so long for it to be uploaded.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn media(
        &self,
        to: &ServerName,
        id: &str,
        wait: Duration,
        most: usize,
    ) -> Result<Streamed, PeerError> {
        let path = ["federation", "v1", "media", "download", id];
        let call = Call::get(&path, limits(most)).query([timeout_ms(wait)]);
        self.stream(to, call).await
    }

    /// The same of servers that are older than that: the file itself, which they give anybody.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn media_of_old(
        &self,
        to: &ServerName,
        id: &str,
        wait: Duration,
        most: usize,
    ) -> Result<Streamed, PeerError> {
        let path = ["media", "v3", "download", to.as_str(), id];
        let ours = ("allow_remote", "false".to_owned());
        let call = Call::get(&path, limits(most)).unsigned();
        self.stream(to, call.query([ours, timeout_ms(wait)])).await
    }

    /// As [`Self::exchange`], without waiting for the body of a good answer.
    async fn stream(&self, to: &ServerName, call: Call) -> Result<Streamed, PeerError> {
        let turn = self.admitted(to, &call).await?;
        let (mut request, limits) = self.request(to, call)?;
        let anything = HeaderValue::from_static("*/*");
        request.headers_mut().insert(header::ACCEPT, anything);
        let answer = self.inner.transport.stream(to, request, limits).await;
        drop(turn);
        let answer = match answer {
            Ok(answer) if answer.status() == StatusCode::OK => Ok(answer),
            Ok(answer) => {
                let (head, mut body) = answer.into_parts();
                let mut bytes = Vec::new();
                let read = async {
                    while let Some(Ok(piece)) = body.next().await
                        && bytes.len() + piece.len() <= REFUSAL
                    {
                        bytes.extend_from_slice(&piece);
                    }
                };
                // What came in time counts; the status is there in any case.
                drop(tokio::time::timeout(PATIENCE, read).await);
                let answer = http::Response::from_parts(head, bytes.into());
                Err(PeerError::Refused(Box::new(refusal(&answer))))
            }
            Err(error) => Err(error.into()),
        };
        // A server that says that it doesn't have something, or not yet, answers; 504 is one of the words for it.
        let says_no = |refusal: &Refusal| !refusal.errcode.is_empty() || refusal.status < 500;
        let answered = match &answer {
            Ok(_) => true,
            Err(PeerError::Refused(refusal)) => says_no(refusal),
            Err(PeerError::Unreachable(error)) => answers(error),
            Err(_) => false,
        };
        self.note(to, answered).await?;
        answer
    }
}

fn timeout_ms(wait: Duration) -> (&'static str, String) {
    ("timeout_ms", wait.min(UPLOAD).as_millis().to_string())
}

fn limits(max_bytes: usize) -> Limits {
    Limits {
        timeout: PATIENCE,
        max_bytes,
    }
}
