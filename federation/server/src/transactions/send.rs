//! `PUT /send/{txnId}`: events and EDUs. Answered once they are durable.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use comity_federation_receiver::{Transaction, TransactionError};
use http::header::CONTENT_TYPE;

use crate::{Api, ApiError, Path, request::Sent};

/// The largest transaction, in bytes: 50 events and 100 EDUs of 64 KiB each, with room for blanks.
pub const MAX_TRANSACTION: usize = 10 << 20;

pub(super) async fn put(
    State(api): State<Api>,
    Path(txn_id): Path<String>,
    sent: Sent<Transaction, MAX_TRANSACTION>,
) -> Result<Response, ApiError> {
    let Sent { origin, body } = sent;
    let answer = api.receiver.transaction(&origin, &txn_id, body).await;
    let answer = answer.map_err(|error| match error {
        TransactionError::TooMany => ApiError::too_large(error.to_string()),
        TransactionError::Busy => ApiError::unavailable(error),
        TransactionError::Room(error) => error.into(),
        TransactionError::Read(error) => error.into(),
        TransactionError::Commit(error) => error.into(),
    })?;
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}
