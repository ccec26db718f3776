//! What spaces look like to other servers: what some user of theirs could read or enter.

use comity_protocol::id::{RoomId, ServerName};

use crate::{
    error::RoomError,
    hierarchy::{HierarchyRoom, in_order},
    live::parse_room_id,
    rooms::Rooms,
    tables::{Mode, Summary},
};

/// Children looked at for one answer.
const MAX_CHILDREN: usize = 1_000;

/// A room with those below it, as far as a server may know.
#[derive(Debug, Clone)]
pub struct PeerSpace {
    /// The room.
    pub room: HierarchyRoom,
    /// Its children that are known here and open to the server, in their order.
    pub children: Vec<Summary>,
    /// Those known here to which its users have no way.
    pub inaccessible: Vec<String>,
}

impl Rooms {
    /// A room and its children, for a server that asks for its users.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], also where no user of the server could read or enter it (threat E5).
    pub async fn peer_hierarchy(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<PeerSpace, RoomError> {
        let summary = self.summary(room_id).await?;
        if !self.is_open_to(server, &summary).await? {
            return Err(RoomError::UnknownRoom);
        }
        let below = in_order(self.children(&summary).await?, suggested_only);
        let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
        for child in below.iter().take(MAX_CHILDREN) {
            let Ok(child) = RoomId::parse(child.room_id.as_str()) else {
                continue;
            };
            match self.summary(&child).await {
                Err(RoomError::UnknownRoom) => {}
                summary => {
                    let summary = summary?;
                    if self.is_open_to(server, &summary).await? {
                        children.push(summary);
                    } else {
                        inaccessible.push(child.to_string());
                    }
                }
            }
        }
        let room = HierarchyRoom {
            summary,
            children: below,
        };
        Ok(PeerSpace {
            room,
            children,
            inaccessible,
        })
    }

    /// Whether some user of a server could read or enter a room that we are in.
    async fn is_open_to(&self, server: &ServerName, room: &Summary) -> Result<bool, RoomError> {
        let view = self.view(&parse_room_id(&room.room_id)?).await?;
        if view.head().mode != Mode::Joined || !view.lets_in(server).await? {
            return Ok(false);
        }
        let tally = view.census().await?.of(server);
        let open = ["public", "knock", "knock_restricted"].contains(&room.join_rule());
        if open || room.world_readable() || tally.joined + tally.invited > 0 {
            return Ok(true);
        }
        if room.join_rule() == "restricted" {
            for allowed in room.allowed.iter().take(MAX_CHILDREN) {
                let Ok(allowed) = RoomId::parse(allowed.as_str()) else {
                    continue;
                };
                match self.is_server_in(server, &allowed).await {
                    Err(RoomError::UnknownRoom) => {}
                    Ok(false) => {}
                    found => return found,
                }
            }
        }
        Ok(false)
    }
}
