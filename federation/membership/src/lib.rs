//! What our users do through other servers: joining, knocking, declining, inviting, looking things
//! up.
//!
//! [`OtherServers`] is the rooms' [`Elsewhere`]. Everything that comes back as an event passes the
//! same [`Checks`](comity_federation_receiver::Checks) as what is sent to us, and everything that we sign on the way is compared with what
//! our user wants ([`template`]). Each operation asks a bounded number of servers, one after the
//! other, and ends in bounded time.
// An answer of another server is awaited through many layers.
#![recursion_limit = "256"]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod completion;
mod handed;
mod handshake;
mod invite;
mod join;
mod lookup;
mod part;
mod policy;
pub mod tables;
mod template;
mod trouble;

use std::sync::Arc;

use async_trait::async_trait;
use comity_federation_receiver::Fetcher;
use comity_protocol::{
    event::{Event, Signed},
    id::{OwnedEventId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId},
    sign::SigningKey,
};
use comity_rooms::{
    DirectoryFilter, DirectoryPage, Elsewhere, Hole, PolicyServer, Remote, Resolved, RoomError,
    Rooms, WeakRooms,
};
use comity_runtime::Runtime;
use serde_json::{Map, Value};

use crate::completion::Turns;

/// Other servers, for the rooms. Cheap to clone.
#[derive(Clone)]
pub struct OtherServers(Arc<Inner>);

struct Inner {
    /// The rooms hold this, so this doesn't hold them.
    rooms: WeakRooms,
    fetcher: Fetcher,
    key: Arc<SigningKey>,
    runtime: Runtime,
    completing: Turns,
}

impl OtherServers {
    /// Asks others for these rooms, signing with `key`.
    pub fn new(rooms: &Rooms, fetcher: Fetcher, key: Arc<SigningKey>) -> Self {
        Self(Arc::new(Inner {
            rooms: rooms.downgrade(),
            // Somebody waits for what is asked here.
            fetcher: Fetcher {
                peers: fetcher.peers.urgent(),
                ..fetcher
            },
            key,
            runtime: rooms.tenant().runtime().clone(),
            completing: Turns::default(),
        }))
    }

    fn rooms(&self) -> Result<Rooms, RoomError> {
        let rooms = self.0.rooms.upgrade();
        rooms.ok_or(RoomError::OtherServer("the server is stopping"))
    }
}

#[async_trait]
impl Elsewhere for OtherServers {
    async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        self.join_via(user, room_id, via, content).await
    }

    async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        self.knock_via(user, room_id, via, content).await
    }

    async fn leave(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<Signed, RoomError> {
        self.leave_via(user, room_id, via, content).await
    }

    async fn invite(&self, invite: Signed, room_state: Vec<Event>) -> Result<Signed, RoomError> {
        self.hand_over(invite, room_state).await
    }

    async fn recommend(&self, policy: &PolicyServer, event: Signed) -> Result<Signed, RoomError> {
        self.ask_policy(policy, event).await
    }

    async fn backfill(&self, room_id: &RoomId, hole: &Hole) -> Result<(), RoomError> {
        let rooms = self.rooms()?;
        Box::pin(self.0.fetcher.backfill(&rooms, room_id, hole)).await
    }

    async fn profile(
        &self,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, RoomError> {
        self.look_up_profile(user, field).await
    }

    async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Resolved, RoomError> {
        self.look_up_alias(alias).await
    }

    async fn directory(
        &self,
        server: &ServerName,
        filter: &DirectoryFilter,
        limit: usize,
        since: Option<&str>,
    ) -> Result<DirectoryPage, RoomError> {
        self.look_up_directory(server, filter, limit, since).await
    }

    async fn hierarchy(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Result<Remote, RoomError> {
        self.look_up_hierarchy(room_id, via, suggested_only).await
    }

    async fn near(
        &self,
        room_id: &RoomId,
        ts: i64,
        backwards: bool,
        servers: &[OwnedServerName],
    ) -> Result<Option<(OwnedEventId, i64)>, RoomError> {
        self.look_up_near(room_id, ts, backwards, servers).await
    }
}
