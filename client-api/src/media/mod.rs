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
    routing::{get, post, put},
};
use comity_media::{Mxc, Wanted};
use futures_util::{StreamExt, TryStreamExt};
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Deserialize;

use crate::{ApiError, Routes, User, UserOrGuest};

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
        .media("/download/{server}/{media}", get(download::legacy))
        .media(
            "/download/{server}/{media}/{name}",
            get(download_as::legacy),
        )
        .media("/thumbnail/{server}/{media}", get(thumbnail::legacy))
}

/// How a download is wanted.
#[derive(Deserialize)]
struct Asked {
    timeout_ms: Option<u64>,
    /// Of the older paths: whether another server may be asked.
    #[serde(default = "yes")]
    allow_remote: bool,
    /// Of the older paths: whether the asker goes elsewhere for the file. By the newer ones all do.
    #[serde(default)]
    allow_redirect: bool,
}

fn yes() -> bool {
    true
}

impl Asked {
    /// By a newer path.
    fn newer(self) -> Self {
        Self {
            allow_redirect: true,
            ..self
        }
    }

    fn wanted<'a>(&self, user: &'a User) -> Wanted<'a> {
        let wait = self.timeout_ms.map(Duration::from_millis);
        let wanted = wait.map(Wanted::within).unwrap_or_default();
        if self.allow_remote {
            wanted.fetched_for(&user.id)
        } else {
            wanted.by(user.id.as_str())
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

/// What the older paths say to whoever shows no token.
fn frozen(user: Option<UserOrGuest>) -> Result<User, ApiError> {
    user.map(|UserOrGuest(user)| user).ok_or_else(no_media)
}

fn no_media() -> ApiError {
    ApiError::not_found("There is no such media")
}
