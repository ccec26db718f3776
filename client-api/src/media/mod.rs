//! The content repository: <https://spec.matrix.org/v1.19/client-server-api/#content-repository>.
//!
//! What was uploaded is for users: by the older paths, which nobody needed a token for, only whoever sends one gets it (threat H7).
//! Nothing here was uploaded before those were frozen.

mod config;
mod create;
mod download;
mod download_as;
mod preview_url;
mod thumbnail;
mod upload;
mod upload_to;

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    routing::{get, post, put},
};
use comity_media::{Mxc, Wanted};
use futures_util::{StreamExt, TryStreamExt};
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use serde::Deserialize;

use crate::{Api, ApiError, Query, Routes, User, UserOrGuest};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/media/config", get(config::get))
        .v1("/media/download/{server}/{media}", get(download::get))
        .v1(
            "/media/download/{server}/{media}/{name}",
            get(download_as::get),
        )
        .v1("/media/thumbnail/{server}/{media}", get(thumbnail::get))
        .v1("/media/preview_url", get(preview_url::get))
        .at("/_matrix/media/v1/create", post(create::post))
        .media("/upload", post(upload::post))
        .media("/upload/{server}/{media}", put(upload_to::put))
        .media("/config", get(config::get))
        .media("/preview_url", get(preview_url::get))
        .media("/download/{server}/{media}", get(download::get))
        .media("/download/{server}/{media}/{name}", get(download_as::get))
        .media("/thumbnail/{server}/{media}", get(thumbnail::get))
}

/// Who wants a file, and how.
struct Asker {
    user: User,
    wait: Option<Duration>,
    /// Whether another server may be asked.
    allow_remote: bool,
    /// Whether they go elsewhere for the file.
    allow_redirect: bool,
}

/// What a request says of it; the last two by the older paths alone.
#[derive(Deserialize)]
struct Asked {
    timeout_ms: Option<u64>,
    allow_remote: Option<bool>,
    allow_redirect: Option<bool>,
}

impl FromRequestParts<Api> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let older = parts.uri.path().starts_with("/_matrix/media/");
        let user = if older {
            let user =
                <UserOrGuest as OptionalFromRequestParts<Api>>::from_request_parts(parts, api);
            user.await?.ok_or_else(no_media)?
        } else {
            <UserOrGuest as FromRequestParts<Api>>::from_request_parts(parts, api).await?
        };
        let Query(asked) = Query::<Asked>::from_request_parts(parts, api).await?;
        Ok(Self {
            user: user.0,
            wait: asked.timeout_ms.map(Duration::from_millis),
            allow_remote: !older || asked.allow_remote.unwrap_or(true),
            allow_redirect: !older || asked.allow_redirect.unwrap_or(false),
        })
    }
}

impl Asker {
    fn wanted(&self) -> Wanted<'_> {
        let wanted = self.wait.map(Wanted::within).unwrap_or_default();
        if self.allow_remote {
            wanted.fetched_for(&self.user.id)
        } else {
            wanted.by(self.user.id.as_str())
        }
    }
}

/// How an upload is described beside its body.
#[derive(Deserialize)]
struct Uploaded {
    filename: Option<String>,
}

impl Uploaded {
    fn described(self, headers: &HeaderMap) -> comity_media::Described {
        let content_type = headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|kind| kind.to_str().ok());
        comity_media::Described {
            content_type: content_type.map(str::to_owned),
            filename: self.filename,
        }
    }
}

/// The length a body is said to have.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body as it comes.
fn pieces(body: Body) -> comity_media::Pieces {
    let pieces = body.into_data_stream();
    pieces.map_err(std::io::Error::other).boxed()
}

/// What a path names. Whatever can't be media isn't there (threat H1).
fn mxc(server: &str, media: &str) -> Result<Mxc, ApiError> {
    Mxc::new(server, media).ok_or_else(no_media)
}

/// Also what the older paths say to whoever shows no token.
fn no_media() -> ApiError {
    ApiError::not_found("There is no such media")
}
