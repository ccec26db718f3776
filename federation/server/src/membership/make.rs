//! What the `make_…` endpoints have in common.

use comity_protocol::room_version::RoomVersion;
use comity_rooms::{RoomError, Template};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ApiError;

/// The event as it should be.
#[derive(Serialize)]
pub(super) struct Answer {
    room_version: &'static str,
    event: Box<RawValue>,
}

impl From<Template> for Answer {
    fn from(template: Template) -> Self {
        Self {
            room_version: template.version.as_str(),
            event: template.event,
        }
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

/// A room that isn't here may be elsewhere: whoever asks goes on to the next server.
pub(super) fn refused(error: RoomError) -> ApiError {
    match error {
        RoomError::UnknownRoom => ApiError::not_found("There is no such room here"),
        error => error.into(),
    }
}
