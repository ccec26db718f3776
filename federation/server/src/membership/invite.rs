//! `PUT /invite/{roomId}/{eventId}`: another server invites one of our users, and has their server's signature to it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>,
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid>

use axum::extract::State;
use comity_accounts::{InviteVerdict, Limit};
use comity_protocol::{
    event::Event,
    id::{OwnedEventId, OwnedRoomId, UserId},
    room_version::RoomVersion,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::send::Membership;
use crate::{Api, ApiError, Json, Path, pdu::pdu, request::Sent};

type Room = (OwnedRoomId, OwnedEventId);

#[derive(Deserialize)]
pub(super) struct Asked {
    room_version: String,
    event: Box<RawValue>,
    invite_room_state: Option<Box<RawValue>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    event: Box<RawValue>,
}

pub(super) async fn v2(
    State(api): State<Api>,
    Path(path): Path<Room>,
    Sent { origin, body }: Sent<Asked>,
) -> Result<Json<Answer>, ApiError> {
    let version = RoomVersion::parse(&body.room_version).ok_or_else(|| {
        ApiError::bad(
            "M_INCOMPATIBLE_ROOM_VERSION",
            "This server does not know rooms of that version",
        )
        .with("room_version", body.room_version)
    })?;
    let invite = Invite {
        version,
        event: body.event,
        room_state: body.invite_room_state,
    };
    let sent = Sent {
        origin,
        body: invite,
    };
    receive(&api, path, sent).await.map(Json)
}

/// As servers of the first room versions ask: the event is the body, and the room's state stands in its `unsigned`.
pub(super) async fn v1(
    State(api): State<Api>,
    Path(path): Path<Room>,
    Sent { origin, body }: Sent<Box<RawValue>>,
) -> Result<Json<(u16, Answer)>, ApiError> {
    #[derive(Default, Deserialize)]
    struct Event {
        #[serde(default)]
        unsigned: Unsigned,
    }
    #[derive(Default, Deserialize)]
    struct Unsigned {
        invite_room_state: Option<Box<RawValue>>,
    }
    let Event { unsigned } = serde_json::from_str(body.get()).unwrap_or_default();
    let invite = Invite {
        version: RoomVersion::V1,
        event: body,
        room_state: unsigned.invite_room_state,
    };
    let sent = Sent {
        origin,
        body: invite,
    };
    Ok(Json((200, receive(&api, path, sent).await?)))
}

struct Invite {
    version: RoomVersion,
    event: Box<RawValue>,
    room_state: Option<Box<RawValue>>,
}

async fn receive(
    api: &Api,
    (room_id, event_id): Room,
    Sent { origin, body }: Sent<Invite>,
) -> Result<Answer, ApiError> {
    let Membership { event, keys } =
        Membership::of_version(api, &origin, body.version, &event_id, &body.event).await?;
    welcomed(api, event.event()).await?;
    // Anything but a list is as good as none; what none means is the room version's to say.
    let room_state: Vec<Box<RawValue>> = body
        .room_state
        .and_then(|state| serde_json::from_str(state.get()).ok())
        .unwrap_or_default();
    let signed = api
        .rooms
        .receive_invite(&origin, &room_id, event, &room_state, &keys)
        .await?;
    Ok(Answer {
        event: pdu(signed.event())?,
    })
}

/// Whether the invited user is here and takes the invite (threat C11).
async fn welcomed(api: &Api, invite: &Event) -> Result<(), ApiError> {
    let invitee = invite
        .state_key()
        .and_then(|user| <&UserId>::try_from(user).ok());
    let invitee = invitee.filter(|user| user.server_name() == api.rooms.server_name());
    let invitee = invitee
        .ok_or_else(|| ApiError::invalid_param("The event is no invite for a user of this server"))?
        .as_str();
    let limits = api.accounts.limits();
    limits.take(Limit::InviteByReceiver, invitee)?;
    limits.take(Limit::InviteBySender, invite.sender().as_str())?;
    let user = api.accounts.user(invitee).await?;
    if user.is_none_or(|user| user.deactivated) {
        return Err(ApiError::forbidden("There is no such user"));
    }
    let invites = api.accounts.invites(invitee).await?;
    if invites.by(invite.sender()) == InviteVerdict::Block {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "M_INVITE_BLOCKED",
            "The user doesn't take the invite",
        ));
    }
    Ok(())
}
