//! Events as they go from server to server.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

use comity_protocol::{event::Event, id::OwnedServerName};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Api, ApiError};

/// Events in the form of a transaction, as some answers have them.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#transactions>
#[derive(Serialize)]
pub(crate) struct Transaction {
    origin: OwnedServerName,
    origin_server_ts: u64,
    pdus: Vec<Box<RawValue>>,
}

impl Transaction {
    /// These events, from us, now.
    pub(crate) fn of(api: &Api, pdus: Vec<Box<RawValue>>) -> Self {
        Self {
            origin: api.rooms.server_name().to_owned(),
            origin_server_ts: api.now_ms(),
            pdus,
        }
    }
}

/// An event byte by byte, as it was signed.
pub(crate) fn pdu(event: &Event) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(event.json().to_owned()).map_err(ApiError::internal)
}

/// Several.
pub(crate) fn pdus(events: &[Event]) -> Result<Vec<Box<RawValue>>, ApiError> {
    events.iter().map(pdu).collect()
}
