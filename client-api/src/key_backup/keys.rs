//! `GET`, `PUT` and `DELETE /room_keys/keys`: keys of any room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys>
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys>
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys>

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use comity_accounts::Limit;
use comity_key_backup::{Part, Stored};
use comity_protocol::id::OwnedRoomId;
use serde::Deserialize;

use super::{Of, portions, room::Keys};
use crate::{Api, ApiError, Json, Query, User};

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Query(of): Query<Of>,
) -> Result<Response, ApiError> {
    let pages = api.key_backup.read(&user.id, &of.version, None).await?;
    Ok(portions::rooms(pages))
}

#[derive(Deserialize)]
pub(super) struct Rooms {
    rooms: BTreeMap<OwnedRoomId, Keys>,
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Query(of): Query<Of>,
    Json(body): Json<Rooms>,
) -> Result<Json<Stored>, ApiError> {
    api.limit(Limit::KeyBackup, &user.id)?;
    let keys = body.rooms.into_iter();
    let keys = keys.map(|(room, keys)| (room, keys.sessions)).collect();
    let stored = api.key_backup.put(&user.id, &of.version, keys).await?;
    Ok(Json(stored))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Query(of): Query<Of>,
) -> Result<Json<Stored>, ApiError> {
    api.limit(Limit::KeyBackup, &user.id)?;
    let removed = api.key_backup.remove(&user.id, &of.version, Part::All);
    Ok(Json(removed.await?))
}
