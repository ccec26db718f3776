//! The state of a room that was joined without its members: who is in it, asked of one server.
//!
//! The state before the events that our join follows, by `/state_ids`; what of it isn't here by `/state`
//! if it is much, else event by event. What comes is brought to the rooms' door like everything else.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>

use std::{collections::BTreeSet, iter::once};

use comity_protocol::id::{OwnedEventId, RoomId, ServerName};
use comity_rooms::{Claim, Completed, Incomplete, RoomError, Rooms};
use tokio::time::{Instant, timeout_at};

use crate::missing::{Fetcher, STATE, Search};

/// What of a state is waited for, if it can't be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patience {
    /// All of it.
    ForAll,
    /// What can't be checked, for servers that may yet tell their keys.
    ForKeys,
    /// Nothing: what can't be had is done without.
    None,
}

/// What came of asking a server for what a room lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// The room's state is whole.
    Whole,
    /// The server doesn't answer.
    Silent,
    /// Some of what it says can't be checked, since other servers don't tell their keys; it may be later.
    Unchecked,
    /// It has nothing of use.
    Useless,
}

impl Fetcher {
    /// Completes a room by what one server has of it, until then. `patience` is for what nobody has, or can be checked.
    ///
    /// # Errors
    /// The rooms'; that the server doesn't help is none.
    pub async fn complete(
        &self,
        rooms: &Rooms,
        room_id: &RoomId,
        lacks: &Incomplete,
        server: &ServerName,
        until: Instant,
        patience: Patience,
    ) -> Result<Completion, RoomError> {
        let view = rooms.view(room_id).await?;
        let servers = once(server.to_owned()).chain(lacks.servers.iter().cloned());
        let mut search = Search::among(self, view, servers);
        search.until = until;
        let mut claims = Vec::with_capacity(lacks.prev.len());
        for event in &lacks.prev {
            let request = self.peers.state_ids(server, room_id, event);
            let ids = match timeout_at(until, request).await {
                Ok(Ok(ids)) => ids,
                Ok(Err(error)) if error.is_answer() => return Ok(Completion::Useless),
                Ok(Err(_)) | Err(_) => return Ok(Completion::Silent),
            };
            claims.push(Claim {
                event: event.clone(),
                state: ids.pdu_ids.into_iter().take(STATE).collect(),
            });
        }
        let claimed = Claimed {
            rooms,
            room_id,
            server,
        };
        let nothing = BTreeSet::new();
        let Some(mut wanted) = claimed.lacks(&claims, &nothing).await? else {
            return Ok(Completion::Whole);
        };
        // What is fetched for one event serves most of the next one's state; it is in the store before more is asked for.
        for event in &lacks.prev {
            let chain = search.state_if_many(server, event, &wanted).await;
            search.outliers(wanted, chain).await?;
            wanted = match claimed.lacks(&claims, &nothing).await? {
                None => return Ok(Completion::Whole),
                Some(wanted) => wanted,
            };
        }
        // What wasn't looked at would be left out for good, however long that has lasted.
        let waits = patience <= Patience::ForKeys && search.may_be_had_later().await?;
        if waits || search.was_busy() {
            return Ok(Completion::Unchecked);
        }
        // What our join follows goes last: it is what the state is asked for.
        let is_needed = lacks.prev.iter().any(|event| wanted.contains(event));
        let needs_all = patience == Patience::ForAll;
        if needs_all || (is_needed && patience != Patience::None) {
            return Ok(Completion::Useless);
        }
        Ok(match claimed.lacks(&claims, &wanted).await? {
            None => Completion::Whole,
            Some(_) => Completion::Useless,
        })
    }
}

/// Whose claims about which room.
struct Claimed<'a> {
    rooms: &'a Rooms,
    room_id: &'a RoomId,
    server: &'a ServerName,
}

impl Claimed<'_> {
    /// Brings claims to the room, `without` such of their events: what they lack, or `None` once its state is whole.
    async fn lacks(
        &self,
        claims: &[Claim],
        without: &BTreeSet<OwnedEventId>,
    ) -> Result<Option<BTreeSet<OwnedEventId>>, RoomError> {
        let rooms = self.rooms;
        let completed = rooms.complete_state(self.room_id, self.server, claims, without);
        match Box::pin(completed).await? {
            Completed::Whole => Ok(None),
            Completed::Wanted(wanted) => Ok(Some(wanted.into_iter().collect())),
        }
    }
}
