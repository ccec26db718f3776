//! A room by its id or by one of its aliases, as some paths take it.

use comity_protocol::id::{OwnedRoomId, RoomAliasId, RoomId};

use crate::{Api, ApiError};

/// The room that `name` names.
///
/// # Errors
/// 404 for an alias that leads nowhere; 400 for what is neither an id nor an alias.
pub(crate) async fn named_room(api: &Api, name: &str) -> Result<OwnedRoomId, ApiError> {
    let malformed = |_| ApiError::invalid_param("Neither a room id nor a room alias");
    if name.starts_with('#') {
        let alias = RoomAliasId::parse(name).map_err(malformed)?;
        return Ok(api.rooms.resolve_alias(&alias).await?.room_id);
    }
    RoomId::parse(name).map_err(malformed)
}
