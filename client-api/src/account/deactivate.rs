//! `POST /account/deactivate`: the end of an account, for good.
//!
//! Its sessions, devices and profile go in one commit, with a note that it is to leave its rooms; the request is answered when it
//! has, and a crash in between is made up for at the next start.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use axum::extract::State;
use comity_accounts::{Asker, Operation, Stage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Api, ApiError, Json, User, read, uia};

#[derive(Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let Deactivate { erase } = read(body.clone())?;
    let operation = Operation {
        name: "POST /account/deactivate",
        asker: Asker::User(user.id.as_str()),
        body: &body,
    };
    uia::authorise(&api, operation, &[&[Stage::Password]]).await?;
    api.deactivate(user.id.as_str(), erase).await?;
    // There are no third-party identifiers here that an identity server would know.
    Ok(Json(json!({ "id_server_unbind_result": "success" })))
}
