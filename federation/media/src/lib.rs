//! Other servers' media: how it comes here.
//!
//! A server is asked by the endpoint for servers; one that doesn't know that is asked as anybody may ask. What comes back is handed on
//! piece by piece, described as its server describes it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#content-repository>

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod multipart;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use comity_federation_client::{Limits, PeerError, Peers, Streamed, TransportError, Web};
use comity_media::{Described, Elsewhere, Fetched, Mxc, NotFetched, Page};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION},
};
use multipart::Parts;

/// For the head of what a server sends elsewhere for.
const PATIENCE: Duration = Duration::from_secs(30);
/// What describes a file, at most; it says nothing yet.
const DESCRIPTION: usize = 64 << 10;

/// The way to other servers' media.
#[derive(Clone)]
pub struct RemoteMedia {
    peers: Peers,
    web: Arc<dyn Web>,
}

impl RemoteMedia {
    /// Servers are asked through `peers`; where they send us on, through `web`.
    pub fn new(peers: Peers, web: Arc<dyn Web>) -> Self {
        Self { peers, web }
    }

    async fn file(&self, answer: Streamed, most: usize) -> Result<Fetched, NotFetched> {
        let (head, body) = answer.into_parts();
        let kind = text(&head.headers, CONTENT_TYPE).unwrap_or_default();
        let nonsense = || NotFetched::Unreachable("not an answer of two parts".to_owned());
        let boundary = multipart::boundary(&kind).ok_or_else(nonsense)?;
        let mut parts = Parts::new(body, &boundary);
        let broken = |error: std::io::Error| NotFetched::Unreachable(error.to_string());
        let about = parts.next().await.map_err(broken)?;
        about.ok_or_else(nonsense)?;
        let mut described = 0;
        while let Some(piece) = parts.data().await.map_err(broken)? {
            described += piece.len();
            if described > DESCRIPTION {
                return Err(nonsense());
            }
        }
        let file = parts.next().await.map_err(broken)?.ok_or_else(nonsense)?;
        match text(&file, LOCATION) {
            Some(address) => self.elsewhere(&address, most).await,
            None => Ok(Fetched {
                described: describe(&file),
                body: parts.into_data(),
            }),
        }
    }

    /// From where a server keeps its files.
    async fn elsewhere(&self, address: &str, most: usize) -> Result<Fetched, NotFetched> {
        let limits = Limits {
            timeout: PATIENCE,
            max_bytes: most,
        };
        let (_, answer) = self.web.get(address, "*/*", limits).await.map_err(told)?;
        match answer.status() {
            StatusCode::OK => Ok(plain(answer)),
            StatusCode::NOT_FOUND => Err(NotFetched::NotFound),
            status => Err(NotFetched::Unreachable(format!("answered {status}"))),
        }
    }
}

#[async_trait]
impl Elsewhere for RemoteMedia {
    async fn media(&self, mxc: &Mxc, wait: Duration, most: u64) -> Result<Fetched, NotFetched> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // The file, and what stands around it.
        let around = most.saturating_add(2 * DESCRIPTION);
        let peers = self.peers.urgent();
        match peers.media(mxc.server(), mxc.id(), wait, around).await {
            Ok(answer) => self.file(answer, most).await,
            Err(error) if is_older(&error) => {
                let found = peers.media_of_old(mxc.server(), mxc.id(), wait, most).await;
                found.map(plain).map_err(refused)
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn page(&self, address: &str, most: u64) -> Result<Page, NotFetched> {
        let limits = Limits {
            timeout: PATIENCE,
            max_bytes: usize::try_from(most).unwrap_or(usize::MAX),
        };
        let (address, answer) = self.web.get(address, PAGES, limits).await.map_err(told)?;
        if answer.status() != StatusCode::OK {
            return Err(NotFetched::Unreachable(format!(
                "answered {}",
                answer.status()
            )));
        }
        let file = plain(answer);
        Ok(Page { address, file })
    }
}

/// What pages and their pictures are.
const PAGES: &str =
    "text/html,application/xhtml+xml,image/png,image/jpeg,image/gif,image/webp;q=0.9,*/*;q=0.1";

/// A server that doesn't know the endpoint says so in many ways, most of them without a Matrix error.
fn is_older(error: &PeerError) -> bool {
    let refusal = error.refusal();
    let mute = refusal.is_some_and(|refusal| refusal.status < 500 && refusal.errcode.is_empty());
    mute || error.is_unknown_endpoint()
}

fn refused(error: PeerError) -> NotFetched {
    match &error {
        PeerError::Refused(refusal) => match refusal.errcode.as_str() {
            "M_NOT_YET_UPLOADED" => NotFetched::NotYetUploaded,
            "M_TOO_LARGE" => NotFetched::TooLarge,
            _ if refusal.status == 404 => NotFetched::NotFound,
            _ => NotFetched::Unreachable(error.to_string()),
        },
        PeerError::Unreachable(TransportError::TooLarge) => NotFetched::TooLarge,
        // Nobody has that name.
        PeerError::Name => NotFetched::NotFound,
        _ => NotFetched::Unreachable(error.to_string()),
    }
}

fn told(error: TransportError) -> NotFetched {
    match error {
        TransportError::TooLarge => NotFetched::TooLarge,
        error => NotFetched::Unreachable(error.to_string()),
    }
}

/// A file as an answer by itself.
fn plain(answer: Streamed) -> Fetched {
    let (head, body) = answer.into_parts();
    Fetched {
        described: describe(&head.headers),
        body,
    }
}

fn describe(headers: &HeaderMap) -> Described {
    Described {
        content_type: text(headers, CONTENT_TYPE),
        filename: text(headers, CONTENT_DISPOSITION).and_then(|line| filename(&line)),
    }
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The file's name in a `Content-Disposition`: as it is written for all alphabets, else as for one.
pub fn filename(line: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let mut rest = line.split_once(';')?.1;
    while let Some((name, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let (value, left) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, left) = value.split_once(';').unwrap_or((value, ""));
                (value.trim().to_owned(), left)
            }
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            "filename*" => {
                // A charset, perhaps a language, and the name.
                let encoded = value.splitn(3, '\'').nth(2);
                extended = encoded.map(|encoded| {
                    percent_encoding::percent_decode_str(encoded)
                        .decode_utf8_lossy()
                        .into_owned()
                });
            }
            _ => {}
        }
        rest = left.trim_start_matches([' ', ';']);
    }
    extended.or(plain)
}

/// What a quoted string says, and what comes after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut text, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return Some((text, quoted.get(at + 1..)?)),
            '\\' if !escaped => escaped = true,
            c => {
                text.push(c);
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (line, name) in [
            ("inline; filename=a.png", Some("a.png")),
            (
                "attachment; filename=\"a;\\\"b\\\" c\"; x=y",
                Some("a;\"b\" c"),
            ),
            (
                "inline; filename=a; filename*=utf-8''%F0%9F%90%94",
                Some("🐔"),
            ),
            (
                "inline; filename*=UTF-8''b.txt; filename=\"a\"",
                Some("b.txt"),
            ),
            ("inline; filename*=UTF-8'en'b%27s", Some("b's")),
            ("inline", None),
            ("inline; filename=\"open", None),
            ("attachment; x=y", None),
        ] {
            assert_eq!(filename(line).as_deref(), name, "{line}");
        }
    }
}
