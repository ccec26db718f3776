//! `/_matrix/key/v2/query`: other servers' keys, with our signature beside their own.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername>,
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_protocol::id::OwnedServerName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, Path, Query};

/// Servers that one request may ask about: for each that isn't known we ask around.
const MOST: usize = 50;

#[derive(Default, Deserialize)]
pub(super) struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    server_keys: Vec<Box<RawValue>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(server): Path<OwnedServerName>,
    Query(criteria): Query<Criteria>,
) -> Result<Json<Answer>, ApiError> {
    let until = criteria
        .minimum_valid_until_ts
        .unwrap_or_else(|| api.now_ms());
    answer(&api, [(server, until)]).await
}

#[derive(Deserialize)]
pub(super) struct Asked {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

pub(super) async fn post(
    State(api): State<Api>,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, ApiError> {
    if asked.server_keys.len() > MOST {
        return Err(ApiError::invalid_param("Too many servers at once"));
    }
    let now = api.now_ms();
    let servers = asked.server_keys.into_iter().map(|(server, keys)| {
        let untils = keys.values().filter_map(|key| key.minimum_valid_until_ts);
        (server, untils.max().unwrap_or(now))
    });
    answer(&api, servers).await
}

async fn answer(
    api: &Api,
    servers: impl IntoIterator<Item = (OwnedServerName, u64)>,
) -> Result<Json<Answer>, ApiError> {
    let us = api.rooms.server_name();
    let mut server_keys = Vec::new();
    for (server, until) in servers {
        let json = if server == us {
            api.published_keys()?
        } else {
            let known = api.keyring.answer_of(&server, until).await;
            match known.map_err(ApiError::internal)? {
                // What carries signatures that can't be added to is as good as none.
                Some(keys) => match api.keys.key.vouch_for_keys(us, &keys) {
                    Ok(json) => json,
                    Err(_) => continue,
                },
                None => continue,
            }
        };
        server_keys.push(RawValue::from_string(json).map_err(ApiError::internal)?);
    }
    Ok(Json(Answer { server_keys }))
}
