//! Memberships that other servers ask us to make part of the room: the bodies of `send_join`,
//! `send_leave` and `send_knock`.
//!
//! The body is compared with what the request is for before anything is believed of it, its
//! signatures are checked, and it goes through the door by the strictest way: what the room's current
//! state doesn't allow is not stored. Sent again, it is answered again.

use comity_protocol::{
    auth::{MemberContent, Membership},
    event::{Event, Signed, WellFormed},
    id::{OwnedServerName, RoomId, ServerName, UserId},
    sign::{CosignError, JoinIntent, KeyRing},
};

use serde_json::{Map, Value};

use super::{PeerState, PeerView};
use crate::{
    change::Change,
    error::RoomError,
    live::read_root,
    rooms::Rooms,
    state::{AnyRoot, Half},
    view::Found,
};

/// Members who name a room without a name.
const HEROES: usize = 5;

/// A join that is part of the room now, and the room before it.
#[derive(Clone)]
pub struct Admission {
    view: PeerView,
    found: Found,
    before: AnyRoot,
}

impl Rooms {
    /// Makes a join of another server's user part of the room. Of a restricted room's it is signed in
    /// the name of the user of ours who authorises it, if they do.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`]; [`RoomError::Invalid`] for what is no such join (threats C3, C9);
    /// [`RoomError::Signature`]; [`RoomError::Forbidden`], also of a user who is banned (C4);
    /// [`RoomError::UnableToAuthoriseJoin`] and [`RoomError::UnableToGrantJoin`] (C6).
    pub async fn send_join(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        join: WellFormed,
        keys: &impl KeyRing,
    ) -> Result<Admission, RoomError> {
        let mut change = self.change_for(origin, room_id).await?;
        check(origin, room_id, join.event(), Membership::Join)?;
        let signed = change.authorised(origin, join, keys).await?;
        let event_id = signed.event().event_id().to_owned();
        change.take_in(signed, None).await?;
        let view = PeerView {
            view: self.view(room_id).await?,
            server: origin.to_owned(),
            is_in: true,
        };
        let found = view.found(&event_id).await?;
        let before = read_root(&found.status.root_before)?;
        Ok(Admission {
            view,
            found,
            before,
        })
    }

    /// Makes a leave of another server's user part of the room.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>
    ///
    /// # Errors
    /// As [`Rooms::send_join`].
    pub async fn send_leave(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        leave: WellFormed,
        keys: &impl KeyRing,
    ) -> Result<(), RoomError> {
        let change = self.change_for(origin, room_id).await?;
        check(origin, room_id, leave.event(), Membership::Leave)?;
        let leave = leave.verify(keys)?;
        change.take_in(leave, None).await.map(drop)
    }

    /// Invites a user in the name of the user of ours who had invited them by an address: `content` holds what an identity server
    /// says of whose address it is, which the room's rules check.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], [`RoomError::Forbidden`], [`RoomError::Rejected`]; as [`Rooms::invite`].
    pub async fn exchange_third_party_invite(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        inviter: &UserId,
        user: &UserId,
        content: &Map<String, Value>,
    ) -> Result<(), RoomError> {
        drop(self.change_for(origin, room_id).await?);
        if !self.is_local(inviter) {
            return Err(RoomError::Forbidden("the inviter is of another server"));
        }
        self.invite_with(inviter, room_id, user, content)
            .await
            .map(drop)
    }

    /// Makes a knock of another server's user part of the room; answers the events by which they may
    /// know it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>
    ///
    /// # Errors
    /// As [`Rooms::send_join`].
    pub async fn send_knock(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        knock: WellFormed,
        keys: &impl KeyRing,
    ) -> Result<Vec<Event>, RoomError> {
        let change = self.change_for(origin, room_id).await?;
        check(origin, room_id, knock.event(), Membership::Knock)?;
        change.take_in(knock.verify(keys)?, None).await?;
        self.view(room_id).await?.introduction().await
    }
}

impl Admission {
    /// The join, with all its signatures.
    pub fn event(&self) -> &Event {
        &self.found.event
    }

    /// The room, for reading the events of [`Self::state`].
    pub fn view(&self) -> &PeerView {
        &self.view
    }

    /// The servers that were in the room before.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn servers(&self) -> Result<Vec<OwnedServerName>, RoomError> {
        let room = self.view.room();
        let census = room.census_at(room.census().await?, self.before).await?;
        Ok(census.joined().cloned().collect())
    }

    /// The state before the join, and the auth chains of the join and of that state.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state(&self) -> Result<PeerState, RoomError> {
        let state = self.view.room().state_nums(self.before, None).await?;
        let auth_chain = self.view.chain_of(&self.rests_on(&state)).await?;
        Ok(PeerState { state, auth_chain })
    }

    /// The state before the join without its members, apart from those by whom a room without a name
    /// is called; of the auth chains only what isn't in the state.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_without_members(&self) -> Result<PeerState, RoomError> {
        let room = self.view.room();
        let mut state = room.state_nums(self.before, Some(Half::Rest)).await?;
        let named = [("m.room.name", ""), ("m.room.canonical_alias", "")];
        let keys = room.state_keys(&named).await?;
        let named = room.lookup(self.before, &keys).await?;
        if named.iter().all(Option::is_none) {
            let user = self.found.event.sender().as_str();
            state.extend(room.heroes(self.before, user, HEROES).await?);
        }
        let mut auth_chain = self.view.chain_of(&self.rests_on(&state)).await?;
        auth_chain.retain(|num| !state.contains(num));
        Ok(PeerState { state, auth_chain })
    }

    fn rests_on(&self, state: &[crate::num::EventNum]) -> Vec<crate::num::EventNum> {
        let mut events = state.to_vec();
        events.push(self.found.num);
        events
    }
}

impl Change {
    /// Checks the signatures of a join; adds ours where a user of ours authorises it.
    async fn authorised(
        &mut self,
        origin: &ServerName,
        join: WellFormed,
        keys: &impl KeyRing,
    ) -> Result<Signed, RoomError> {
        let event = join.event().clone();
        let content = MemberContent::read(event.content().get());
        let authoriser = content.authoriser();
        let ours =
            authoriser.filter(|user| event.rules().restricted && self.rooms().is_local(user));
        let Some(authoriser) = ours else {
            return Ok(join.verify(keys)?);
        };
        // Whether they may let anybody in is for the rules; whether this user fulfils the room's
        // conditions is for us.
        self.authoriser_of(event.sender()).await?;
        let rooms = self.rooms();
        let intent = JoinIntent {
            room: event.room_id(),
            origin,
            authoriser,
        };
        let signed = rooms
            .0
            .key
            .cosign_join(rooms.server_name(), intent, &join, keys);
        signed.map_err(|error| match error {
            CosignError::Signature(error) => RoomError::Signature(error),
            CosignError::Differs(_) | CosignError::Form => {
                RoomError::Invalid("the event is not the join that is asked for")
            }
        })
    }
}

/// Whether an event is the membership that a request from `origin` is for.
fn check(
    origin: &ServerName,
    room_id: &RoomId,
    event: &Event,
    membership: Membership,
) -> Result<(), RoomError> {
    let content = MemberContent::read(event.content().get());
    if event.room_id() != room_id {
        Err(RoomError::Invalid("the event is of another room"))
    } else if !event.is_state("m.room.member", event.sender().as_str()) {
        Err(RoomError::Invalid(
            "the event is not a membership of its sender",
        ))
    } else if content.membership != Some(membership) {
        Err(RoomError::Invalid("the event is of another membership"))
    } else if event.sender().server_name() != origin {
        Err(RoomError::Forbidden("the sender is of another server"))
    } else {
        Ok(())
    }
}
