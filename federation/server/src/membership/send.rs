//! What the `send_…` endpoints have in common.

use comity_federation_client::Keys;
use comity_protocol::{
    event::{Limits, WellFormed},
    id::{EventId, RoomId, ServerName},
    room_version::RoomVersion,
};
use serde_json::value::RawValue;

use crate::{Api, ApiError, ask_others};

/// A membership as its server has signed it, with the keys that say so.
pub(super) struct Membership {
    pub event: WellFormed,
    pub keys: Keys,
}

impl Membership {
    /// Reads the body of a request about a room of ours.
    pub(super) async fn read(
        api: &Api,
        origin: &ServerName,
        (room_id, event_id): (&RoomId, &EventId),
        body: &RawValue,
    ) -> Result<Self, ApiError> {
        let version = api.rooms.room_version(room_id).await.map_err(ask_others)?;
        Self::of_version(api, origin, version, event_id, body).await
    }

    /// Reads it as an event of this version. Nobody is asked for keys on behalf of a server that speaks for others.
    pub(super) async fn of_version(
        api: &Api,
        origin: &ServerName,
        version: RoomVersion,
        event_id: &EventId,
        body: &RawValue,
    ) -> Result<Self, ApiError> {
        let event = WellFormed::parse(version, body.get().as_bytes(), Limits::New)
            .map_err(|error| ApiError::bad_json(error.to_string()))?;
        if event.event().event_id() != event_id {
            return Err(ApiError::invalid_param(
                "The event is not the one that the path names",
            ));
        }
        if event.event().sender().server_name() != origin {
            return Err(ApiError::forbidden("The sender is of another server"));
        }
        let keys = api
            .keyring
            .keys_for(std::slice::from_ref(&event))
            .await
            .map_err(ApiError::internal)?;
        Ok(Self { event, keys })
    }
}
