//! `GET /backfill/{roomId}`: events and what came before them.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};

use crate::{
    Api, ApiError, Json, Path, Query,
    pdu::{Transaction, pdus},
    request::Origin,
};

pub(super) async fn get(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Query(asked): Query<Vec<(String, String)>>,
    Origin(origin): Origin,
) -> Result<Json<Transaction>, ApiError> {
    let view = api.rooms.peer_view(&origin, &room_id).await?;
    let (from, limit) = read(asked)?;
    let events = view.backfill(&from, limit).await?;
    Ok(Json(Transaction::of(&api, pdus(&events)?)))
}

/// `v`, once an event, and `limit`.
fn read(asked: Vec<(String, String)>) -> Result<(Vec<OwnedEventId>, usize), ApiError> {
    let (mut from, mut limit) = (Vec::new(), None);
    for (name, value) in asked {
        match name.as_str() {
            "v" => from.push(
                OwnedEventId::try_from(value)
                    .map_err(|_| ApiError::invalid_param("v is not an event id"))?,
            ),
            "limit" => {
                let number = value.parse();
                limit = Some(
                    number.map_err(|_| ApiError::invalid_param("limit is not a whole number"))?,
                );
            }
            _ => {}
        }
    }
    if from.is_empty() {
        return Err(ApiError::missing_param("v is missing"));
    }
    let limit = limit.ok_or_else(|| ApiError::missing_param("limit is missing"))?;
    Ok((from, limit))
}
