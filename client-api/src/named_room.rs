//! A room by its id or by one of its aliases, as some paths take it.

use comity_protocol::id::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName};

use crate::{Api, ApiError};

/// The room that `name` names, and the servers that an alias says know it.
///
/// # Errors
/// 404 for an alias that leads nowhere; 400 for what is neither an id nor an alias.
pub(crate) async fn named_room(
    api: &Api,
    name: &str,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    let malformed = |_| ApiError::invalid_param("Neither a room id nor a room alias");
    if name.starts_with('#') {
        let alias = RoomAliasId::parse(name).map_err(malformed)?;
        let resolved = api.rooms.resolve_alias(&alias).await?;
        return Ok((resolved.room_id, resolved.servers));
    }
    let room_id = RoomId::parse(name).map_err(malformed)?;
    Ok((room_id, Vec::new()))
}

/// The servers that a query names as knowing a room: `via`, and its older name `server_name`.
pub(crate) fn via(query: &[(String, String)]) -> Vec<OwnedServerName> {
    let named = query
        .iter()
        .filter(|(key, _)| key == "via" || key == "server_name");
    named
        .filter_map(|(_, server)| ServerName::parse(server.as_str()).ok())
        .collect()
}
