//! `PUT /sendToDevice/{eventType}/{txnId}`: sends messages to devices.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid>

use axum::extract::State;
use comity_accounts::Limit;
use comity_to_device::{Contents, Transaction};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Send {
    messages: Contents,
}

pub(super) async fn put(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((event_type, txn)): Path<(String, String)>,
    Json(send): Json<Send>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.may_act()?;
    api.limit(Limit::SendToDevice, &user.id)?;
    let servers = send.messages.keys().map(|to| to.server_name()).collect();
    api.limit_strangers(&user.id, servers).await?;
    let transaction = Transaction {
        sender: &user.id,
        device: &user.device,
        event_type: &event_type,
        txn: &txn,
    };
    api.to_device.send(transaction, send.messages).await?;
    Ok(Json(Map::new()))
}
