//! Events that another server's user may make: what the `make_…` endpoints answer.
//!
//! A template is the event as we would build it for that user, checked by the room's rules, without
//! hash, id and signature: those are the asking server's to make.

use comity_protocol::{
    auth::Membership,
    canonical::{JsonError, Object},
    event::FormatError,
    id::{RoomId, ServerName, UserId},
    room_version::RoomVersion,
};
use serde_json::{Map, value::RawValue};

use crate::{
    change::{Change, Intent},
    error::RoomError,
    rooms::Rooms,
    tables::Mode,
};

/// An event to be completed by the server that asked for it.
#[derive(Debug, Clone)]
pub struct Template {
    /// The room's version.
    pub version: RoomVersion,
    /// The event.
    pub event: Box<RawValue>,
}

impl Rooms {
    /// The version of a room that we are in.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn room_version(&self, room_id: &RoomId) -> Result<RoomVersion, RoomError> {
        let view = self.view(room_id).await?;
        if view.head().mode == Mode::Joined {
            Ok(view.version())
        } else {
            Err(RoomError::UnknownRoom)
        }
    }

    /// An event by which a user of the asking server joins, leaves or knocks. `versions` are the
    /// room versions that it knows; of a leave it isn't asked.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], [`RoomError::IncompatibleVersion`], [`RoomError::Forbidden`] and
    /// [`RoomError::Rejected`]; of a restricted room [`RoomError::UnableToAuthoriseJoin`] and
    /// [`RoomError::UnableToGrantJoin`].
    pub async fn template(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        membership: Membership,
        versions: Option<&[String]>,
    ) -> Result<Template, RoomError> {
        if user.server_name() != origin {
            return Err(RoomError::Forbidden("the user is of another server"));
        }
        let mut change = self.change_for(origin, room_id).await?;
        let version = change.version()?;
        if versions.is_some_and(|known| !known.iter().any(|known| known == version.as_str())) {
            return Err(RoomError::IncompatibleVersion(version));
        }
        let mut content = Map::new();
        content.insert("membership".into(), membership.as_str().into());
        if membership == Membership::Join
            && let Some(authoriser) = change.authoriser_of(user).await?
        {
            content.insert("join_authorised_via_users_server".into(), authoriser.into());
        }
        let intent = Intent::state(user, "m.room.member", user.as_str(), &content);
        let draft = change.draft(&intent).await?;
        let mut event = Object::parse(draft.unsigned.event().json()).map_err(FormatError::from)?;
        for key in ["event_id", "hashes", "signatures"] {
            event.remove(key);
        }
        // Asked for by the endpoints, though no room version knows it any more.
        event
            .set("origin", self.server_name())
            .map_err(FormatError::from)?;
        let event = event
            .write()
            .and_then(|event| RawValue::from_string(event).map_err(|_| JsonError::Unwritable));
        let event = event.map_err(FormatError::from)?;
        Ok(Template { version, event })
    }

    /// Takes a room that we are in for what another server asks.
    pub(super) async fn change_for(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
    ) -> Result<Change, RoomError> {
        if !self.lets_in(origin, room_id).await? {
            return Err(RoomError::Forbidden("the room shuts the server out"));
        }
        let change = self.change(room_id).await?;
        if change.live()?.head.mode == Mode::Joined {
            Ok(change)
        } else {
            Err(RoomError::UnknownRoom)
        }
    }
}

impl Change {
    /// Who of ours lets a user into a restricted room; `None` where that isn't needed.
    pub(super) async fn authoriser_of(
        &mut self,
        user: &UserId,
    ) -> Result<Option<String>, RoomError> {
        match self.membership(user).await? {
            Membership::Join | Membership::Invite => Ok(None),
            _ => {
                let rooms = self.rooms().clone();
                rooms.authoriser(self, user).await
            }
        }
    }
}
