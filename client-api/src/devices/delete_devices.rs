//! `POST /delete_devices`: several devices' end.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices>

use axum::extract::State;
use comity_accounts::{Asker, Operation, Stage};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, User, read, uia};

/// Devices removed by one request at the most: one commit removes them.
const MOST: usize = 1_000;

#[derive(Deserialize)]
struct Delete {
    devices: Vec<String>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let Delete { devices } = read(body.clone())?;
    if devices.len() > MOST {
        return Err(ApiError::invalid_param("Too many devices at once"));
    }
    let operation = Operation {
        name: "POST /delete_devices",
        asker: Asker::User(user.id.as_str()),
        body: &body,
    };
    uia::authorise(&api, operation, &[&[Stage::Password]]).await?;
    api.accounts
        .delete_devices(user.id.as_str(), &devices)
        .await?;
    Ok(Json(Map::new()))
}
