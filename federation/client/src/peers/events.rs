//! Events, states and history that other servers have.

use comity_protocol::id::{EventId, OwnedEventId, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Call, PAGE, PeerError, Peers, SMALL, WHOLE};

/// A room's state before an event, with the auth chains of it.
#[derive(Debug, Deserialize)]
pub struct State {
    /// The state.
    pub pdus: Vec<Box<RawValue>>,
    /// The auth chains.
    pub auth_chain: Vec<Box<RawValue>>,
}

/// The same by ids.
#[derive(Debug, Deserialize)]
pub struct StateIds {
    /// The state.
    pub pdu_ids: Vec<OwnedEventId>,
    /// The auth chains.
    pub auth_chain_ids: Vec<OwnedEventId>,
}

/// The event next to a time.
#[derive(Debug, Deserialize)]
pub struct Nearby {
    /// Its id.
    pub event_id: OwnedEventId,
    /// Its own time, in milliseconds since 1970.
    pub origin_server_ts: i64,
}

#[derive(Deserialize)]
struct Pdus {
    pdus: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct Missing<'a> {
    earliest_events: &'a [OwnedEventId],
    latest_events: &'a [OwnedEventId],
    limit: usize,
    min_depth: u64,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct AuthChain {
    auth_chain: Vec<Box<RawValue>>,
}

impl Peers {
    /// At most `limit` events before and including these, the latest first.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn backfill(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let path = ["federation", "v1", "backfill", room_id.as_str()];
        let from = from.iter().map(|event_id| ("v", event_id.to_string()));
        let query = from.chain([("limit", limit.to_string())]);
        let answer = self.call(to, Call::get(&path, PAGE).query(query)).await;
        answer.map(|Pdus { pdus }| pdus)
    }

    /// At most `limit` events between those we have and those we heard of.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn missing_events(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        earliest_events: &[OwnedEventId],
        latest_events: &[OwnedEventId],
        limit: usize,
        min_depth: u64,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let path = ["federation", "v1", "get_missing_events", room_id.as_str()];
        let body = Missing {
            earliest_events,
            latest_events,
            limit,
            min_depth,
        };
        let answer = self.call(to, Call::post(&path, &body, PAGE)?).await;
        answer.map(|Found { events }| events)
    }

    /// One event.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>
    ///
    /// # Errors
    /// [`PeerError`]; [`PeerError::Malformed`] also where the answer holds none.
    pub async fn event(
        &self,
        to: &ServerName,
        event_id: &EventId,
    ) -> Result<Box<RawValue>, PeerError> {
        let path = ["federation", "v1", "event", event_id.as_str()];
        let Pdus { pdus } = self.call(to, Call::get(&path, SMALL)).await?;
        pdus.into_iter().next().ok_or(PeerError::Malformed)
    }

    /// The state before an event.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn state(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<State, PeerError> {
        let path = ["federation", "v1", "state", room_id.as_str()];
        let call = Call::get(&path, WHOLE).query([("event_id", event_id.to_string())]);
        self.call(to, call).await
    }

    /// The state before an event, by ids.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn state_ids(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<StateIds, PeerError> {
        let path = ["federation", "v1", "state_ids", room_id.as_str()];
        let call = Call::get(&path, WHOLE).query([("event_id", event_id.to_string())]);
        self.call(to, call).await
    }

    /// The auth chain of an event.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn event_auth(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let path = [
            "federation",
            "v1",
            "event_auth",
            room_id.as_str(),
            event_id.as_str(),
        ];
        let answer = self.call(to, Call::get(&path, WHOLE)).await;
        answer.map(|AuthChain { auth_chain }| auth_chain)
    }

    /// The event next to a time (milliseconds since 1970), before or after it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn timestamp_to_event(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        ts: i64,
        backwards: bool,
    ) -> Result<Nearby, PeerError> {
        let path = ["federation", "v1", "timestamp_to_event", room_id.as_str()];
        let direction = if backwards { "b" } else { "f" };
        let query = [("ts", ts.to_string()), ("dir", direction.to_owned())];
        self.call(to, Call::get(&path, SMALL).query(query)).await
    }
}
