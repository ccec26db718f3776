//! What other servers tell of their rooms, aliases and users.

use comity_protocol::id::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Call, PAGE, PeerError, Peers, SMALL};

/// Where an alias leads.
#[derive(Debug, Deserialize)]
pub struct AliasTarget {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    pub servers: Vec<OwnedServerName>,
}

/// A room of a space with its children, as summaries.
#[derive(Debug, Deserialize)]
pub struct Hierarchy {
    /// The room.
    pub room: Map<String, Value>,
    /// Children that the answering server can see.
    pub children: Vec<Map<String, Value>>,
    /// Children that we couldn't join or see.
    #[serde(default)]
    pub inaccessible_children: Vec<OwnedRoomId>,
}

impl Peers {
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn directory(
        &self,
        to: &ServerName,
        alias: &RoomAliasId,
    ) -> Result<AliasTarget, PeerError> {
        let path = ["federation", "v1", "query", "directory"];
        let call = Call::get(&path, SMALL).query([("room_alias", alias.to_string())]);
        self.call(to, call).await
    }

    /// A user's profile, or one field of it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn profile(
        &self,
        to: &ServerName,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, PeerError> {
        let path = ["federation", "v1", "query", "profile"];
        let field = field.map(|field| ("field", field.to_owned()));
        let query = [("user_id", user.to_string())].into_iter().chain(field);
        self.call(to, Call::get(&path, SMALL).query(query)).await
    }

    /// A page of the directory; `request` is the body that the specification describes.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn public_rooms<B: Serialize + Sync>(
        &self,
        to: &ServerName,
        request: &B,
    ) -> Result<Map<String, Value>, PeerError> {
        let path = ["federation", "v1", "publicRooms"];
        self.call(to, Call::post(&path, request, PAGE)?).await
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn hierarchy(
        &self,
        to: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<Hierarchy, PeerError> {
        let path = ["federation", "v1", "hierarchy", room_id.as_str()];
        let call = Call::get(&path, PAGE).query([("suggested_only", suggested_only.to_string())]);
        self.call(to, call).await
    }

    /// What software a server runs.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn version(&self, to: &ServerName) -> Result<Map<String, Value>, PeerError> {
        let call = Call::get(&["federation", "v1", "version"], SMALL);
        self.call(to, call.unsigned()).await
    }
}
