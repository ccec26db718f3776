//! Our users' media for other servers: <https://spec.matrix.org/v1.19/server-server-api/#content-repository>.
//!
//! An answer has two parts: what is known of the file, which is nothing yet, and the file.

mod download;
mod thumbnail;

use std::time::Duration;

use axum::{body::Body, response::Response, routing::get};
use bytes::Bytes;
use comity_media::{Content, Mxc, Wanted, whole};
use comity_protocol::id::ServerName;
use comity_web::content;
use futures_util::StreamExt;
use http::{
    HeaderValue,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Deserialize;

use crate::{Api, ApiError, Routes};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/media/download/{media}", get(download::get))
        .v1("/media/thumbnail/{media}", get(thumbnail::get))
}

/// How media is wanted.
#[derive(Deserialize)]
struct Asked {
    timeout_ms: Option<u64>,
}

impl Asked {
    fn wanted<'a>(&self, origin: &'a ServerName) -> Wanted<'a> {
        let wait = self.timeout_ms.map(Duration::from_millis);
        let wanted = wait.map(Wanted::within).unwrap_or_default();
        wanted.by(origin.as_str())
    }
}

/// What a media id of ours names.
fn own(api: &Api, media: &str) -> Result<Mxc, ApiError> {
    let mxc = Mxc::new(api.rooms.server_name().as_str(), media);
    mxc.ok_or_else(|| ApiError::not_found("There is no such media"))
}

/// A file as `multipart/mixed`.
async fn answer(api: &Api, content: &Content) -> Result<Response, ApiError> {
    // Nothing in a file can be taken for what nobody could guess.
    let runtime = api.rooms.tenant().runtime();
    let boundary = runtime.random().alphanumeric(32);
    let kind = content::kind(&content.content_type);
    let name = content.filename.as_deref();
    let disposition = content::disposition(&content.content_type, name);
    let mut head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: "
    )
    .into_bytes();
    head.extend_from_slice(kind.as_bytes());
    head.extend_from_slice(b"\r\nContent-Disposition: ");
    head.extend_from_slice(disposition.as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    let tail = format!("\r\n--{boundary}--\r\n").into_bytes();
    let length = head.len() as u64 + content.size + tail.len() as u64;
    let file = api.media.read(content, None).await?;
    let whole = whole(Bytes::from(head))
        .chain(file)
        .chain(whole(tail.into()));
    let mut response = Response::new(Body::from_stream(whole));
    let kind = format!("multipart/mixed; boundary={boundary}");
    let kind = HeaderValue::try_from(kind).map_err(ApiError::internal)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}
