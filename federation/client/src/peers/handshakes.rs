//! Membership through another server: ask for a template, send the event made from it.

use comity_protocol::{
    id::{EventId, OwnedServerName, RoomId, ServerName, UserId},
    room_version::RoomVersion,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Call, PAGE, PeerError, Peers, SMALL, WHOLE, WithStatus};

/// An event that the other server proposes. What of it is taken over is for us to decide (threat C2).
#[derive(Debug, Deserialize)]
pub struct Template {
    /// The room's version, where it is told: one that isn't known here is none of ours to join.
    pub room_version: Option<String>,
    /// The proposed event, without hashes and signatures.
    pub event: Box<RawValue>,
}

/// A room as handed over to one who joins.
#[derive(Debug, Deserialize)]
pub struct Joined {
    /// The join with the other server's signature, where it had to add one.
    pub event: Option<Box<RawValue>>,
    /// The state before the join.
    pub state: Vec<Box<RawValue>>,
    /// The auth chains of that state and of the join.
    pub auth_chain: Vec<Box<RawValue>>,
    /// Whether memberships were left out of `state`.
    #[serde(default)]
    pub members_omitted: bool,
    /// Where they were, the servers in the room.
    pub servers_in_room: Option<Vec<OwnedServerName>>,
}

/// An invite of ours on its way to the invited user's server.
#[derive(Debug)]
pub struct Invite<'a> {
    /// The room.
    pub room_id: &'a RoomId,
    /// The invite's id.
    pub event_id: &'a EventId,
    /// The room's version.
    pub version: RoomVersion,
    /// The invite.
    pub event: &'a RawValue,
    /// What the invited user may know of the room: whole events, or stripped ones of old rooms.
    pub room_state: &'a [Box<RawValue>],
}

#[derive(Serialize)]
struct InviteV2<'a> {
    event: &'a RawValue,
    invite_room_state: &'a [Box<RawValue>],
    room_version: &'a str,
}

#[derive(Serialize)]
struct InviteV1<'a> {
    #[serde(flatten)]
    event: std::collections::BTreeMap<String, Box<RawValue>>,
    unsigned: Unsigned<'a>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    invite_room_state: &'a [Box<RawValue>],
}

#[derive(Deserialize)]
struct Invited {
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct Knocked {
    #[serde(default)]
    knock_room_state: Vec<Box<RawValue>>,
}

fn versions() -> impl Iterator<Item = (&'static str, String)> {
    RoomVersion::ALL
        .iter()
        .map(|version| ("ver", version.to_string()))
}

impl Peers {
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>
    ///
    /// # Errors
    /// [`PeerError`]; `M_INCOMPATIBLE_ROOM_VERSION` carries the room's version.
    pub async fn make_join(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Template, PeerError> {
        let path = [
            "federation",
            "v1",
            "make_join",
            room_id.as_str(),
            user.as_str(),
        ];
        self.call(to, Call::get(&path, SMALL).query(versions()))
            .await
    }

    /// Hands the join over and gets the room, by version 2 of the endpoint or, from a server that
    /// doesn't know it, version 1. With `omit_members` the state may come without memberships.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn send_join(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
        omit_members: bool,
    ) -> Result<Joined, PeerError> {
        let path = [
            "federation",
            "v2",
            "send_join",
            room_id.as_str(),
            event_id.as_str(),
        ];
        let call =
            Call::put(&path, event, WHOLE)?.query([("omit_members", omit_members.to_string())]);
        match self.call(to, call).await {
            Err(error) if error.is_unknown_endpoint() => {}
            answer => return answer,
        }
        let path = [
            "federation",
            "v1",
            "send_join",
            room_id.as_str(),
            event_id.as_str(),
        ];
        let answer = self.call(to, Call::put(&path, event, WHOLE)?).await;
        answer.map(|WithStatus(_, joined)| joined)
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn make_leave(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Template, PeerError> {
        let path = [
            "federation",
            "v1",
            "make_leave",
            room_id.as_str(),
            user.as_str(),
        ];
        self.call(to, Call::get(&path, SMALL)).await
    }

    /// Hands a leave over, by version 2 of the endpoint or version 1.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn send_leave(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<(), PeerError> {
        let path = [
            "federation",
            "v2",
            "send_leave",
            room_id.as_str(),
            event_id.as_str(),
        ];
        match self.exchange(to, Call::put(&path, event, SMALL)?).await {
            Err(error) if error.is_unknown_endpoint() => {}
            answer => return answer.map(drop),
        }
        let path = [
            "federation",
            "v1",
            "send_leave",
            room_id.as_str(),
            event_id.as_str(),
        ];
        self.exchange(to, Call::put(&path, event, SMALL)?)
            .await
            .map(drop)
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid>
    ///
    /// # Errors
    /// [`PeerError`]; `M_INCOMPATIBLE_ROOM_VERSION` carries the room's version.
    pub async fn make_knock(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Template, PeerError> {
        let path = [
            "federation",
            "v1",
            "make_knock",
            room_id.as_str(),
            user.as_str(),
        ];
        self.call(to, Call::get(&path, SMALL).query(versions()))
            .await
    }

    /// Hands a knock over; what comes back is what the one who knocks may know of the room.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn send_knock(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let path = [
            "federation",
            "v1",
            "send_knock",
            room_id.as_str(),
            event_id.as_str(),
        ];
        let answer = self.call(to, Call::put(&path, event, PAGE)?).await;
        answer.map(|knocked: Knocked| knocked.knock_room_state)
    }

    /// Delivers an invite, which comes back with the other server's signature: by version 2 of the
    /// endpoint, or version 1 where the room is of a version that version 1 knows.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn invite(
        &self,
        to: &ServerName,
        invite: &Invite<'_>,
    ) -> Result<Box<RawValue>, PeerError> {
        let (room_id, event_id) = (invite.room_id.as_str(), invite.event_id.as_str());
        let version = invite.version.to_string();
        let body = InviteV2 {
            event: invite.event,
            invite_room_state: invite.room_state,
            room_version: &version,
        };
        let path = ["federation", "v2", "invite", room_id, event_id];
        let answer = self.call(to, Call::put(&path, &body, SMALL)?).await;
        match answer {
            Err(error) if error.is_unknown_endpoint() && invite.version <= RoomVersion::V2 => {}
            answer => return answer.map(|Invited { event }| event),
        }
        let event = serde_json::from_str(invite.event.get()).map_err(|_| PeerError::Request)?;
        let invite_room_state = invite.room_state;
        let body = InviteV1 {
            event,
            unsigned: Unsigned { invite_room_state },
        };
        let path = ["federation", "v1", "invite", room_id, event_id];
        let answer = self.call(to, Call::put(&path, &body, SMALL)?).await;
        answer.map(|WithStatus(_, Invited { event })| event)
    }

    /// Asks the server that holds a third-party invite to turn it into one for our user.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn exchange_third_party_invite(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        event: &RawValue,
    ) -> Result<(), PeerError> {
        let path = [
            "federation",
            "v1",
            "exchange_third_party_invite",
            room_id.as_str(),
        ];
        self.exchange(to, Call::put(&path, event, SMALL)?)
            .await
            .map(drop)
    }
}
