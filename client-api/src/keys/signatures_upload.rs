//! `POST /keys/signatures/upload`: what one has signed, of one's own keys and of others'.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_accounts::Limit;
use comity_keys::SignedObjects;
use serde::Serialize;

use super::patience;
use crate::{Api, ApiError, Json, User};

#[derive(Serialize)]
pub(super) struct Answer {
    failures: BTreeMap<String, BTreeMap<String, ApiError>>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(objects): Json<SignedObjects>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Keys, &user.id)?;
    let servers = objects.keys().map(|of| of.server_name()).collect();
    api.limit_strangers(&user.id, servers).await?;
    let refusals = api.keys.sign(&user.id, &objects, patience(None)).await?;
    let failures = refusals.into_iter().map(|(user, of)| {
        let of = of.into_iter();
        (user, of.map(|(key, why)| (key, why.into())).collect())
    });
    Ok(Json(Answer {
        failures: failures.collect(),
    }))
}
