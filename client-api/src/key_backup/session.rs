//! `GET`, `PUT` and `DELETE /room_keys/keys/{roomId}/{sessionId}`: one session's key.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid>
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid>
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid>

use axum::extract::State;
use comity_accounts::Limit;
use comity_key_backup::{KeyData, Part, Stored};
use comity_protocol::id::OwnedRoomId;

use super::{Of, portions::Key};
use crate::{Api, ApiError, Json, Path, Query, User};

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((room_id, session_id)): Path<(OwnedRoomId, String)>,
    Query(of): Query<Of>,
) -> Result<Json<Key>, ApiError> {
    let backups = &api.key_backup;
    let session = backups
        .session(&user.id, &of.version, &room_id, &session_id)
        .await?;
    Key::of(&session)
        .map(Json)
        .ok_or_else(|| ApiError::internal("a stored key is no JSON"))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((room_id, session_id)): Path<(OwnedRoomId, String)>,
    Query(of): Query<Of>,
    Json(key): Json<KeyData>,
) -> Result<Json<Stored>, ApiError> {
    api.limit(Limit::KeyBackup, &user.id)?;
    let keys = [(room_id, [(session_id, key)].into())].into();
    let stored = api.key_backup.put(&user.id, &of.version, keys).await?;
    Ok(Json(stored))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path((room_id, session_id)): Path<(OwnedRoomId, String)>,
    Query(of): Query<Of>,
) -> Result<Json<Stored>, ApiError> {
    api.limit(Limit::KeyBackup, &user.id)?;
    let part = Part::Session(&room_id, &session_id);
    let removed = api.key_backup.remove(&user.id, &of.version, part);
    Ok(Json(removed.await?))
}
