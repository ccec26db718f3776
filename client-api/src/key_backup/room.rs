//! `GET`, `PUT` and `DELETE /room_keys/keys/{roomId}`: a room's keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid>
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid>
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid>

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use comity_accounts::Limit;
use comity_key_backup::{KeyData, Part, Stored};
use comity_protocol::id::OwnedRoomId;
use serde::Deserialize;

use super::{Of, portions};
use crate::{Api, ApiError, Json, Path, Query, User};

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Query(of): Query<Of>,
) -> Result<Response, ApiError> {
    let pages = api.key_backup.read(&user.id, &of.version, Some(&room_id));
    Ok(portions::sessions(pages.await?))
}

#[derive(Deserialize)]
pub(super) struct Keys {
    pub sessions: BTreeMap<String, KeyData>,
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Query(of): Query<Of>,
    Json(keys): Json<Keys>,
) -> Result<Json<Stored>, ApiError> {
    api.limit(Limit::KeyBackup, &user.id)?;
    let keys = [(room_id, keys.sessions)].into();
    let stored = api.key_backup.put(&user.id, &of.version, keys).await?;
    Ok(Json(stored))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Query(of): Query<Of>,
) -> Result<Json<Stored>, ApiError> {
    api.limit(Limit::KeyBackup, &user.id)?;
    let part = Part::Room(&room_id);
    let removed = api.key_backup.remove(&user.id, &of.version, part);
    Ok(Json(removed.await?))
}
