//! What only other servers can do, as the rooms ask for it.
//!
//! The rooms speak to no network: where another server is needed they ask whoever was put here at the
//! start ([`Rooms::use_elsewhere`](crate::Rooms::use_elsewhere)). What comes back has been checked as
//! far as one server can be (format, hashes, signatures); what it means for the room is decided by the
//! same door as everything else. Nothing here is called while a room is held.

use async_trait::async_trait;
use comity_protocol::{
    event::{Event, Signed},
    id::{OwnedEventId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId},
};
use serde_json::{Map, Value};

use crate::{
    aliases::Resolved,
    directory::{DirectoryFilter, DirectoryPage},
    door::Hole,
    error::RoomError,
    hierarchy::HierarchyRoom,
    policy::PolicyServer,
    tables::Summary,
};

/// A room of a space as another server tells of it.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The room that was asked for.
    pub room: HierarchyRoom,
    /// Its children, as far as that server knows them, by their ids' order.
    pub children: Vec<Summary>,
}

/// Other servers. Errors are [`RoomError`]s that the client can be told; where no server could be
/// reached, [`RoomError::OtherServer`].
#[async_trait]
pub trait Elsewhere: Send + Sync {
    /// Makes a user a member through one of these servers: afterwards the room is here
    /// ([`Rooms::enter`](crate::Rooms::enter)). `content` is that of the member event, without what
    /// the room's servers put there.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>
    async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError>;

    /// Knocks through one of these servers, and keeps the knock.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>
    async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError>;

    /// Tells one of these servers that a user declines an invite or takes a knock back; the leave as
    /// the room has it now.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>
    async fn leave(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<Signed, RoomError>;

    /// Gives an invite of ours to the invited user's server, with what they may know of the room; the
    /// event comes back with its signature.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>
    async fn invite(&self, invite: Signed, room_state: Vec<Event>) -> Result<Signed, RoomError>;

    /// Asks a room's policy server for its word on an event; the event with it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign>
    async fn recommend(&self, policy: &PolicyServer, event: Signed) -> Result<Signed, RoomError>;

    /// Fetches what comes before a hole and gives it to [`Rooms::fill`](crate::Rooms::fill).
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>
    async fn backfill(&self, room_id: &RoomId, hole: &Hole) -> Result<(), RoomError>;

    /// What another server's user shows of themselves: all, or one field.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>
    async fn profile(
        &self,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, RoomError>;

    /// Where an alias of another server leads.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>
    async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Resolved, RoomError>;

    /// A page of another server's directory.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms>
    async fn directory(
        &self,
        server: &ServerName,
        filter: &DirectoryFilter,
        limit: usize,
        since: Option<&str>,
    ) -> Result<DirectoryPage, RoomError>;

    /// A room that isn't here, with its children, from one of these servers.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>
    async fn hierarchy(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Result<Remote, RoomError>;

    /// The event next to a time, as these servers know it, and its time.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>
    async fn near(
        &self,
        room_id: &RoomId,
        ts: i64,
        backwards: bool,
        servers: &[OwnedServerName],
    ) -> Result<Option<(OwnedEventId, i64)>, RoomError>;
}
