//! `GET /unstable/io.element.msc4360/thread_updates`: the threads that an answer of sliding sync had no place for.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4360>, a draft

use std::collections::BTreeMap;

use axum::extract::State;
use comity_accounts::Limit;
use comity_sync::{sliding::ThreadUpdate, token::Token};
use serde::{Deserialize, Serialize};

use super::extensions::thread_limit;
use crate::{Api, ApiError, Json, Query, User};

pub(in crate::sync) const PATH: &str = "/_matrix/client/unstable/io.element.msc4360/thread_updates";

#[derive(Deserialize)]
pub(in crate::sync) struct Which {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
}

#[derive(Serialize)]
pub(in crate::sync) struct Answer {
    chunk: BTreeMap<String, BTreeMap<String, ThreadUpdate>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

pub(in crate::sync) async fn get(
    State(api): State<Api>,
    user: User,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::LookUp, &user.id)?;
    if which.dir.as_deref() != Some("b") {
        return Err(ApiError::invalid_param("dir is b"));
    }
    let limit = thread_limit(which.limit)?;
    let from = match token(which.from.as_deref())? {
        None => None,
        Some(Token::Place(from)) => Some(from),
        Some(Token::Sync(_)) => {
            return Err(ApiError::invalid_param("from is where an answer ended"));
        }
    };
    let since = match token(which.to.as_deref())? {
        None => None,
        Some(Token::Sync(to)) => Some(api.sync.clamp(&to).heads),
        Some(Token::Place(_)) => {
            return Err(ApiError::invalid_param("to is a position of a sync"));
        }
    };
    let (since, from) = (since.as_ref(), from.as_ref());
    let updates = api
        .sync
        .thread_updates(&user.id, &user.device, since, from, limit)
        .await?;
    Ok(Json(Answer {
        chunk: updates.rooms,
        next_batch: updates.more.map(|more| more.to_string()),
    }))
}

fn token(text: Option<&str>) -> Result<Option<Token>, ApiError> {
    let token = text.map(str::parse::<Token>).transpose();
    token.map_err(|_| ApiError::invalid_param("This is not a token that the server gave out"))
}
