//! `POST /keys/device_signing/upload`: one's cross-signing keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>

use axum::extract::State;
use comity_accounts::{Asker, Limit, Operation, Stage};
use comity_keys::{CrossSigningUpload, Need};
use serde_json::{Map, Value, value::RawValue};

use crate::{Api, ApiError, Json, User, uia};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    let upload = CrossSigningUpload {
        master_key: raw(&body, "master_key")?,
        self_signing_key: raw(&body, "self_signing_key")?,
        user_signing_key: raw(&body, "user_signing_key")?,
    };
    let need = api.keys.need_of(user.id.as_str(), &upload).await?;
    if need == Need::Proof {
        let operation = Operation {
            name: "POST /keys/device_signing/upload",
            asker: Asker::User(user.id.as_str()),
            body: &body,
        };
        uia::authorise(&api, operation, &[&[Stage::Password]]).await?;
    }
    let proved = need == Need::Proof;
    api.keys
        .upload_cross_signing(user.id.as_str(), &upload, proved)
        .await?;
    Ok(Json(Map::new()))
}

fn raw(body: &Map<String, Value>, name: &str) -> Result<Option<Box<RawValue>>, ApiError> {
    let value = body.get(name).filter(|value| !value.is_null());
    let raw = value.map(serde_json::value::to_raw_value).transpose();
    raw.map_err(ApiError::internal)
}
