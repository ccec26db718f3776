//! Rooms as other servers see them: what a server may read, and what it may ask for.
//!
//! A [`PeerView`] is a [`RoomView`] in the eyes of a server that takes part in the room: to have one
//! is to have been let in (a user of it is joined, the room's access control list allows it). What
//! was said while nobody of that server could see it goes out redacted, as the graph needs its events
//! whoever may read them. Everything is read at one position, and every walk and list has an end.
//!
//! A server that isn't in the room any more may still have to learn why: who bans its last user while it can't be
//! reached is heard of when it is no member, by an event that rests on others. So it may ask about what it was owed
//! ([`PeerView::was_owed`]), event by event, and sees nothing else by whatever way. Of a room that we have left ourselves what
//! we hold is handed out by its last state: what our users said there, nobody else may have.
//!
//! State is handed out by numbers, so that the answer about a large room can be written in portions.

mod acl;
mod handshake;
mod history;
mod present;
mod spaces;
mod template;
mod visible;

use comity_protocol::{
    event::Event,
    id::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName},
};
use comity_storage::{Range, RoomKey};

pub(crate) use acl::Acls;
pub use handshake::Admission;
pub(crate) use present::Present;
pub use spaces::PeerSpace;
pub use template::Template;

use crate::{
    chains::ChainIndex,
    change::RoomChains,
    error::RoomError,
    event::read_id,
    live::{Pending, parse_room_id},
    num::EventNum,
    rooms::Rooms,
    tables::{Headers, IdRooms, InRoom, Infos, RoomNum, Verdict},
    view::{Found, RoomView},
};

/// Rooms looked at for one bare event id: in the first room versions servers choose the ids.
const ROOMS_OF_AN_ID: usize = 16;
/// Events about which a server that isn't in the room may ask at a time.
const ASKED_ABOUT: usize = 20;

const OUTSIDE: RoomError = RoomError::Forbidden("the server is not in the room");

/// A room as a server that takes part in it may see it.
#[derive(Clone)]
pub struct PeerView {
    view: RoomView,
    server: OwnedServerName,
    /// The server is in the room: it sees more than it was owed when it was.
    is_in: bool,
}

/// A state and what it rests on, by numbers for [`PeerView::pdus`] and [`PeerView::ids`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// The state's events.
    pub state: Vec<EventNum>,
    /// The auth chains of all of them.
    pub auth_chain: Vec<EventNum>,
}

impl Rooms {
    /// The room as it is published now, for a server that is in it.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] for a server that isn't, or that the room's access control list shuts
    /// out; the same where there is no such room (threat E2).
    pub async fn peer_view(
        &self,
        server: &ServerName,
        room_id: &RoomId,
    ) -> Result<PeerView, RoomError> {
        let view = self.any_peer_view(server, room_id).await?;
        if view.is_in { Ok(view) } else { Err(OUTSIDE) }
    }

    /// [`Self::peer_view`] for a server that asks about these events. One that isn't in the room any more is shown what
    /// it was owed, if one of the events is of that.
    ///
    /// # Errors
    /// As [`Self::peer_view`].
    pub async fn peer_view_about(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        events: &[OwnedEventId],
    ) -> Result<PeerView, RoomError> {
        let view = self.any_peer_view(server, room_id).await?;
        if view.is_in {
            return Ok(view);
        }
        for event_id in events.iter().take(ASKED_ABOUT) {
            match view.found(event_id).await {
                Err(RoomError::UnknownEvent) => {}
                found => return found.map(|_| view),
            }
        }
        Err(OUTSIDE)
    }

    /// The room for a server that it doesn't shut out, whether that is in it or not.
    async fn any_peer_view(
        &self,
        server: &ServerName,
        room_id: &RoomId,
    ) -> Result<PeerView, RoomError> {
        let view = match self.view(room_id).await {
            Err(RoomError::UnknownRoom) => return Err(OUTSIDE),
            view => view?,
        };
        if !view.lets_in(server).await? {
            return Err(OUTSIDE);
        }
        Ok(PeerView {
            is_in: view.has_server(server).await?,
            view,
            server: server.to_owned(),
        })
    }

    /// The servers with joined users in a room now, in the order of their names.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn servers_in(&self, room_id: &RoomId) -> Result<Vec<OwnedServerName>, RoomError> {
        self.view(room_id).await?.servers().await
    }

    /// Whether a room has joined users of a server now.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn is_server_in(
        &self,
        server: &ServerName,
        room_id: &RoomId,
    ) -> Result<bool, RoomError> {
        self.view(room_id).await?.has_server(server).await
    }

    /// Whether a room's access control list lets a server take part; a room that isn't known has
    /// none.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn lets_in(&self, server: &ServerName, room_id: &RoomId) -> Result<bool, RoomError> {
        match self.view(room_id).await {
            Err(RoomError::UnknownRoom) => Ok(true),
            view => view?.lets_in(server).await,
        }
    }

    /// An event, by its bare id, for a server that is in its room.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>
    ///
    /// # Errors
    /// [`RoomError::UnknownEvent`], also for a server that isn't in the room and wasn't owed the event.
    pub async fn peer_event(
        &self,
        server: &ServerName,
        event_id: &EventId,
    ) -> Result<Event, RoomError> {
        let reader = self.tenant().reader();
        let range = Range::everywhere(|key| {
            key.str(event_id.as_str());
        });
        let rows = reader
            .scan::<IdRooms>(range.limit(ROOMS_OF_AN_ID))
            .await?
            .into_iter();
        let rooms: Vec<RoomKey> = rows.map(|(key, _)| key.room).collect();
        for room in rooms {
            let Some(info) = reader.get::<Infos>(&InRoom { room }).await? else {
                continue;
            };
            let room_id = parse_room_id(&info.value.room_id)?;
            let about = [event_id.to_owned()];
            let view = match self.peer_view_about(server, &room_id, &about).await {
                Err(RoomError::Forbidden(_)) => continue,
                view => view?,
            };
            match view.event(event_id).await {
                Err(RoomError::UnknownEvent) => {}
                event => return event,
            }
        }
        Err(RoomError::UnknownEvent)
    }
}

impl PeerView {
    /// The room.
    pub fn room(&self) -> &RoomView {
        &self.view
    }

    /// The server that looks.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// An event, as the server may see it.
    ///
    /// # Errors
    /// [`RoomError::UnknownEvent`], which is also what an event of another room is (threat E1).
    pub async fn event(&self, event_id: &EventId) -> Result<Event, RoomError> {
        let found = self.found(event_id).await?;
        // Part of a state or an auth chain: handed out with those as well.
        if found.status.verdict == Verdict::Outlier {
            return Ok(found.event);
        }
        let mut shown = self.shown(vec![found]).await?;
        shown.pop().ok_or(RoomError::UnknownEvent)
    }

    /// The state before an event, and the auth chains of that state.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>
    ///
    /// # Errors
    /// [`RoomError::UnknownEvent`], also for an event of whose state nothing is known.
    pub async fn state_before(&self, event_id: &EventId) -> Result<PeerState, RoomError> {
        let found = self.found(event_id).await?;
        let root = found.root_before()?.ok_or(RoomError::UnknownEvent)?;
        if root.is_partial() {
            return Err(RoomError::Forbidden("the state is not known here yet"));
        }
        let state = self.view.state_nums(root, None).await?;
        let auth_chain = self.chain_of(&state).await?;
        Ok(PeerState { state, auth_chain })
    }

    /// The auth chain of an event.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>
    ///
    /// # Errors
    /// [`RoomError::UnknownEvent`].
    pub async fn event_auth(&self, event_id: &EventId) -> Result<Vec<EventNum>, RoomError> {
        let found = self.found(event_id).await?;
        let room = self.view.key();
        let at = RoomNum {
            room,
            num: found.num.0,
        };
        let header = self.view.reader().get::<Headers>(&at).await?;
        let header = header.ok_or(RoomError::UnknownEvent)?.value;
        let auth: Vec<EventNum> = header.auth.into_iter().map(EventNum).collect();
        let mut chain = self.chain_of(&auth).await?;
        chain.extend(auth);
        chain.sort_unstable();
        chain.dedup();
        Ok(chain)
    }

    /// Events of a state or an auth chain, whole.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn pdus(&self, nums: &[EventNum]) -> Result<Vec<Event>, RoomError> {
        let found = self.view.load(nums).await?;
        Ok(found.into_iter().map(|found| found.event).collect())
    }

    /// The ids of events, in their order.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn ids(&self, nums: &[EventNum]) -> Result<Vec<OwnedEventId>, RoomError> {
        let room = self.view.key();
        let keys: Vec<RoomNum> = nums
            .iter()
            .map(|num| RoomNum { room, num: num.0 })
            .collect();
        let headers = self.view.reader().get_many::<Headers>(&keys).await?;
        let headers = headers.into_iter().flatten();
        headers
            .map(|header| read_id(&header.value.event_id))
            .collect()
    }

    /// The auth chains of state events, without these unless one is another's.
    pub(crate) async fn chain_of(&self, of: &[EventNum]) -> Result<Vec<EventNum>, RoomError> {
        let chains = ChainIndex::new(RoomChains::new(
            self.view.key(),
            self.view.reader().clone(),
            Pending::default(),
        ));
        Ok(chains.auth_chain(of).await?.into_iter().collect())
    }

    /// An event that other servers may ask about: not one that was rejected, not one that this
    /// position doesn't know.
    async fn found(&self, event_id: &EventId) -> Result<Found, RoomError> {
        let num = self.view.num(event_id).await?;
        let num = num.ok_or(RoomError::UnknownEvent)?;
        let found = self.view.load(&[num]).await?.pop();
        let found = found
            .filter(|found| match found.status.verdict {
                Verdict::Accepted => self.view.holds(found),
                Verdict::SoftFailed => true,
                Verdict::Outlier => found.event.state_key().is_some(),
                Verdict::Named | Verdict::Rejected => false,
            })
            .ok_or(RoomError::UnknownEvent)?;
        if self.is_in || self.was_owed(&found).await? {
            Ok(found)
        } else {
            Err(RoomError::UnknownEvent)
        }
    }

    /// Those of some events that the server may have at all.
    async fn owed(&self, mut found: Vec<Found>) -> Result<Vec<Found>, RoomError> {
        if self.is_in {
            return Ok(found);
        }
        let mut owed = Vec::with_capacity(found.len());
        for one in found.drain(..) {
            if self.was_owed(&one).await? {
                owed.push(one);
            }
        }
        Ok(owed)
    }

    /// Whether an event is one that others had to send to this server: it was in the room by the state before it. That
    /// was settled when the event came, and nothing which came later changes it. What the server says itself counts for
    /// nothing: it might follow what it was never owed.
    async fn was_owed(&self, found: &Found) -> Result<bool, RoomError> {
        let root = found.root_before()?.filter(|root| !root.is_partial());
        let Some(root) = root.filter(|_| found.status.verdict == Verdict::Accepted) else {
            return Ok(false);
        };
        if found.event.sender().server_name() == self.server {
            return Ok(false);
        }
        let census = self.view.census().await?;
        let census = self.view.census_at(census, root).await?;
        Ok(census.of(&self.server).joined > 0)
    }
}
