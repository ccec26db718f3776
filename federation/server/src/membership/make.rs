//! What the `make_…` endpoints have in common.

use comity_protocol::room_version::RoomVersion;
use comity_rooms::Template;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError};

/// The event as it should be.
#[derive(Serialize)]
pub(super) struct Answer {
    room_version: &'static str,
    event: Map<String, Value>,
}

impl Answer {
    /// The template, with the name of the server that made it, as it goes over the wire.
    pub(super) fn of(api: &Api, template: &Template) -> Result<Self, ApiError> {
        let mut event: Map<String, Value> =
            serde_json::from_str(template.event.get()).map_err(ApiError::internal)?;
        let us = api.rooms.server_name().as_str();
        event.insert("origin".to_owned(), us.into());
        Ok(Self {
            room_version: template.version.as_str(),
            event,
        })
    }
}

/// The versions that a server says it knows, by `ver`; who says nothing knows the first alone.
pub(super) fn versions(asked: Vec<(String, String)>) -> Vec<String> {
    let versions = asked.into_iter().filter(|(name, _)| name == "ver");
    let mut versions: Vec<String> = versions.map(|(_, version)| version).collect();
    if versions.is_empty() {
        versions.push(RoomVersion::V1.as_str().to_owned());
    }
    versions
}
