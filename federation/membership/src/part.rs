//! Knocking, and telling a room's servers that an invite is declined or a knock taken back.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>

use std::time::Duration;

use comity_protocol::{
    event::Signed,
    id::{OwnedServerName, RoomId, UserId},
};
use comity_rooms::RoomError;
use serde_json::{Map, Value};

use crate::{
    OtherServers,
    handshake::sent,
    template::Intent,
    trouble::{NOBODY, Trouble},
};

/// How long all attempts together may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl OtherServers {
    pub(crate) async fn knock_via(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        let intent = Intent {
            user: user.to_owned(),
            room_id: room_id.to_owned(),
            membership: "knock",
            content,
        };
        let attempt = |server| self.knock_through(&intent, server);
        self.through(via, PATIENCE, attempt).await
    }

    async fn knock_through(&self, intent: &Intent, server: OwnedServerName) -> Result<(), Trouble> {
        let peers = &self.0.fetcher.peers;
        let made = peers.make_knock(&server, &intent.room_id, &intent.user);
        let made = made.await?;
        let version = made.room_version.as_deref();
        let knock = self.complete(intent, version, &made.event, &server)?;
        let (event_id, pdu) = sent(&knock)?;
        let room_state = peers.send_knock(&server, &intent.room_id, &event_id, &pdu);
        let room_state = room_state.await?;
        let rooms = self.rooms().map_err(Trouble::Ours)?;
        let kept = rooms.keep_knock(&knock, &room_state, &[server]).await;
        kept.map_err(Trouble::Ours)
    }

    pub(crate) async fn leave_via(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<Signed, RoomError> {
        let intent = Intent {
            user: user.to_owned(),
            room_id: room_id.to_owned(),
            membership: "leave",
            content,
        };
        // Whoever waits for it may not wait long, and the room is to hear of it all the same.
        let (this, via) = (self.clone(), via.to_vec());
        let told = self.0.runtime.carry_on("leave", async move {
            let attempt = |server| this.leave_through(&intent, server);
            this.through(&via, PATIENCE, attempt).await
        });
        told.await.unwrap_or(Err(NOBODY))
    }

    async fn leave_through(
        &self,
        intent: &Intent,
        server: OwnedServerName,
    ) -> Result<Signed, Trouble> {
        let peers = &self.0.fetcher.peers;
        let made = peers.make_leave(&server, &intent.room_id, &intent.user);
        let made = made.await?;
        let version = made.room_version.as_deref();
        let leave = self.complete(intent, version, &made.event, &server)?;
        let (event_id, pdu) = sent(&leave)?;
        let left = peers.send_leave(&server, &intent.room_id, &event_id, &pdu);
        left.await?;
        Ok(leave)
    }
}
