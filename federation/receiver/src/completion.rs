//! The state of a room that was joined without its members: who is in it, asked of one server.
//!
//! The state before the events that our join follows, by `/state_ids`; what of it isn't here by `/state`
//! if it is much, else event by event. What comes is brought to the rooms' door like everything else.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>

use std::{collections::BTreeSet, iter::once, time::Duration};

use comity_protocol::id::{OwnedEventId, RoomId, ServerName};
use comity_rooms::{Claim, Completed, Incomplete, RoomError, Rooms};
use tokio::time::Instant;

use crate::missing::{Events, Fetcher, STATE, Search};

/// How long one server may take for all of it.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

impl Fetcher {
    /// Completes a room by what one server has of it; whether its state is whole now. `spare`: what of the
    /// state nobody has is done without.
    ///
    /// # Errors
    /// The rooms'; that the server doesn't help is none.
    pub async fn complete(
        &self,
        rooms: &Rooms,
        room_id: &RoomId,
        lacks: &Incomplete,
        server: &ServerName,
        spare: bool,
    ) -> Result<bool, RoomError> {
        let view = rooms.view(room_id).await?;
        let servers = once(server.to_owned()).chain(lacks.servers.iter().cloned());
        let mut search = Search::among(self, view, servers);
        search.until = Instant::now() + PATIENCE;
        let mut claims = Vec::with_capacity(lacks.prev.len());
        for event in &lacks.prev {
            let request = self.peers.state_ids(server, room_id, event);
            let Some(ids) = search.answer(request).await else {
                return Ok(false);
            };
            claims.push(Claim {
                event: event.clone(),
                state: ids.pdu_ids.into_iter().take(STATE).collect(),
            });
        }
        let Some(wanted) = tried(rooms, room_id, &claims).await? else {
            return Ok(true);
        };
        let mut at_hand = Events::new();
        for event in &lacks.prev {
            at_hand.append(&mut search.state_if_many(server, event, &wanted).await);
        }
        search.outliers(wanted, at_hand).await?;
        let Some(missing) = tried(rooms, room_id, &claims).await? else {
            return Ok(true);
        };
        if !spare || lacks.prev.iter().any(|event| missing.contains(event)) {
            return Ok(false);
        }
        for claim in &mut claims {
            claim.state.retain(|id| !missing.contains(id));
        }
        Ok(tried(rooms, room_id, &claims).await?.is_none())
    }
}

/// Brings the claims to the room: what they lack, or `None` once its state is whole.
async fn tried(
    rooms: &Rooms,
    room_id: &RoomId,
    claims: &[Claim],
) -> Result<Option<BTreeSet<OwnedEventId>>, RoomError> {
    match Box::pin(rooms.complete_state(room_id, claims)).await? {
        Completed::Whole => Ok(None),
        Completed::Wanted(wanted) => Ok(Some(wanted.into_iter().collect())),
    }
}
