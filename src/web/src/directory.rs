//! The directory of rooms, as both APIs list it.

use comity_protocol::id::ServerName;
use comity_rooms::{DirectoryFilter, RoomError, Rooms};
use serde::{Deserialize, Serialize};

use crate::PublicRoom;

/// Rooms on a page where nobody says.
const PAGE: usize = 100;

/// Which rooms are asked for: the body of `POST /publicRooms`.
#[derive(Default, Deserialize)]
pub struct DirectoryRequest {
    /// Rooms on the page.
    pub limit: Option<usize>,
    /// The token of the page.
    pub since: Option<String>,
    /// Which rooms.
    pub filter: Option<Filter>,
    /// A bridged network, whose rooms alone are wanted.
    pub third_party_instance_id: Option<String>,
}

/// Which rooms are listed.
#[derive(Default, Deserialize)]
pub struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

/// A page of the directory.
#[derive(Serialize)]
pub struct PublicRooms {
    chunk: Vec<PublicRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    total_room_count_estimate: usize,
}

impl DirectoryRequest {
    /// The page that is asked for.
    ///
    /// # Errors
    /// A token that isn't one; the store can't be read.
    pub async fn answer(self, rooms: &Rooms) -> Result<PublicRooms, RoomError> {
        self.answer_of(rooms, None).await
    }

    /// The page of another server's directory, or of ours, that is asked for.
    ///
    /// # Errors
    /// As [`Self::answer`]; the other server can't be asked.
    pub async fn answer_of(
        self,
        rooms: &Rooms,
        server: Option<&ServerName>,
    ) -> Result<PublicRooms, RoomError> {
        if self.third_party_instance_id.is_some() {
            // We have no bridged networks, so there are no rooms of one.
            return Ok(PublicRooms {
                chunk: Vec::new(),
                next_batch: None,
                prev_batch: None,
                total_room_count_estimate: 0,
            });
        }
        let filter = self.filter.unwrap_or_default();
        let filter = DirectoryFilter {
            search_term: filter.generic_search_term.filter(|term| !term.is_empty()),
            room_types: filter.room_types,
        };
        let limit = self.limit.unwrap_or(PAGE);
        let since = self.since.as_deref();
        let found = match server {
            None => rooms.directory(&filter, limit, since).await?,
            Some(server) => rooms.directory_of(server, &filter, limit, since).await?,
        };
        Ok(PublicRooms {
            chunk: found.rooms.into_iter().map(PublicRoom::from).collect(),
            next_batch: found.next,
            prev_batch: found.prev,
            total_room_count_estimate: found.total,
        })
    }
}
