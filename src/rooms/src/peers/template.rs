//! Events that another server's user may make: what the `make_…` endpoints answer.
//!
//! A template is the event as we would build it for that user, checked by the room's rules, without
//! hash, id and signature: those are the asking server's to make. [`Rooms::complete`] makes them of
//! another server's template.

use comity_protocol::{
    auth::Membership,
    canonical::{JsonError, Object},
    event::{FormatError, Reference, Signed},
    id::{OwnedUserId, RoomId, ServerName, UserId},
    room_version::RoomVersion,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    change::{Change, Intent},
    error::RoomError,
    rooms::Rooms,
    tables::Mode,
};

/// What is read of another server's template.
#[derive(Deserialize)]
struct Draft {
    room_id: String,
    sender: String,
    state_key: String,
    #[serde(rename = "type")]
    event_type: String,
    content: DraftContent,
    depth: u64,
    prev_events: Vec<Box<RawValue>>,
    auth_events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct DraftContent {
    membership: String,
    #[serde(default)]
    join_authorised_via_users_server: Option<OwnedUserId>,
}

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

    /// Makes a membership of a user of ours from another server's template, and signs it. The template
    /// only says where the event has its place in that room and who authorises it there; it is
    /// compared with what is meant, and what it says otherwise is not looked at (threat C2).
    ///
    /// # Errors
    /// [`RoomError::Invalid`] for a template of anything else; [`RoomError::Build`]. Nothing is signed.
    pub fn complete(
        &self,
        version: RoomVersion,
        template: &RawValue,
        room_id: &RoomId,
        user: &UserId,
        membership: Membership,
        mut content: Map<String, Value>,
    ) -> Result<Signed, RoomError> {
        const OTHER: RoomError = RoomError::Invalid("the template is not what was asked for");
        let draft: Draft = serde_json::from_str(template.get()).map_err(|_| OTHER)?;
        let is_it = draft.room_id == room_id.as_str()
            && draft.sender == user.as_str()
            && draft.state_key == user.as_str()
            && draft.event_type == "m.room.member"
            && draft.content.membership == membership.as_str()
            && self.is_local(user);
        if !is_it {
            return Err(OTHER);
        }
        content.insert("membership".into(), membership.as_str().into());
        content.remove("join_authorised_via_users_server");
        if membership == Membership::Join
            && version.rules().restricted
            && let Some(authoriser) = draft.content.join_authorised_via_users_server
        {
            let authoriser = authoriser.as_str().into();
            content.insert("join_authorised_via_users_server".into(), authoriser);
        }
        let references = |list: &[Box<RawValue>]| {
            let list = list
                .iter()
                .map(|entry| Reference::read(version, entry.get()));
            list.collect::<Option<Vec<Reference>>>().ok_or(OTHER)
        };
        let intent = Intent::state(user, "m.room.member", user.as_str(), &content);
        let unsigned = self.build(
            version,
            Some(room_id.to_owned()),
            &intent,
            references(&draft.prev_events)?,
            references(&draft.auth_events)?,
            draft.depth,
            self.now(),
        )?;
        Ok(self.sign(unsigned)?)
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
