//! `POST /keys/signatures/upload`: what one has signed, of one's own keys and of others'.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_keys::SignedObjects;
use comity_protocol::id::OwnedUserId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::patience;
use crate::{Api, ApiError, Json, User};

#[derive(Serialize)]
pub(super) struct Answer {
    failures: BTreeMap<String, BTreeMap<String, ApiError>>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(body): Json<BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>>,
) -> Result<Json<Answer>, ApiError> {
    let me = user.id.as_str();
    let others = body.keys().filter(|other| **other != user.id);
    // No device has an empty id: of others only the master keys are wanted.
    let others = others.map(|other| (other.clone(), vec![String::new()]));
    let others = others.collect();
    let (others, _) = api
        .keys
        .query_all(&others, &user.id, patience(None))
        .await?;
    let objects = body.into_iter();
    let objects: SignedObjects = objects.map(|(user, of)| (user.to_string(), of)).collect();
    let refusals = api.keys.sign(me, &objects, &others).await?;
    let failures = refusals.into_iter().map(|(user, of)| {
        let of = of.into_iter();
        (user, of.map(|(key, why)| (key, why.into())).collect())
    });
    Ok(Json(Answer {
        failures: failures.collect(),
    }))
}
