//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`: sends a message event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedEventId, OwnedRoomId, RoomId};
use comity_rooms::{Intent, Placed, Transaction};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{Api, ApiError, Json, Path, User, UserOrGuest};

#[derive(Serialize)]
pub(super) struct Answer {
    event_id: OwnedEventId,
    /// The event's sequence number in the room.
    #[serde(rename = "org.comity.seq")]
    seq: i64,
}

impl From<Placed> for Answer {
    fn from(placed: Placed) -> Self {
        Self {
            event_id: placed.event_id,
            seq: placed.seq,
        }
    }
}

pub(super) async fn put(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((room_id, event_type, txn_id)): Path<(OwnedRoomId, String, String)>,
    Json(content): Json<Box<RawValue>>,
) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    let transaction = transaction(&user, format!("send/{event_type}"), txn_id);
    let (content, redacts) = match event_type.as_str() {
        "m.room.redaction" => redaction(&content)?,
        _ => (content, None),
    };
    let intent = Intent {
        sender: user.id.clone(),
        event_type,
        state_key: None,
        content,
        redacts,
    };
    send(&api, &user, &room_id, intent, Some(&transaction)).await
}

/// Takes a redaction's target out of its content: where it stands is the room version's choice.
fn redaction(content: &RawValue) -> Result<(Box<RawValue>, Option<OwnedEventId>), ApiError> {
    let unfit = |_| ApiError::bad_json("The content can't be read");
    let mut content: Map<String, Value> = serde_json::from_str(content.get()).map_err(unfit)?;
    let target = content.remove("redacts");
    let target = target.as_ref().and_then(Value::as_str);
    let target = target.and_then(comity_protocol::id::event_id);
    let target = target.ok_or_else(|| ApiError::invalid_param("redacts is no event id"))?;
    let content = serde_json::value::to_raw_value(&content).map_err(unfit)?;
    Ok((content, Some(target)))
}

/// A client's transaction; `path` tells calls apart.
pub(super) fn transaction(user: &User, path: String, txn: String) -> Transaction {
    Transaction {
        user: user.id.clone(),
        device: user.device.clone(),
        path,
        txn,
    }
}

/// Does what is intended, once for each transaction.
pub(super) async fn send(
    api: &Api,
    user: &User,
    room_id: &RoomId,
    intent: Intent,
    transaction: Option<&Transaction>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Send, &user.id)?;
    let change = api.rooms.change(room_id).await?;
    let done = match transaction {
        Some(transaction) => change.done(transaction).await?,
        None => None,
    };
    let placed = match done {
        Some(done) => {
            // It may have been appended only; it is durable when this is.
            change.commit().await?;
            done
        }
        None => change.send(intent, transaction).await?,
    };
    api.accounts.presence().saw(user.id.as_str(), None, true);
    Ok(Json(placed.into()))
}
