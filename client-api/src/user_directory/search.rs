//! `POST /user_directory/search`: users of this server by id or name, those whom the searcher may find.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch>

use std::collections::BTreeSet;

use axum::extract::State;
use comity_accounts::{FoundUser, FoundUsers, Limit};
use comity_protocol::id::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, User};

/// Results when the client doesn't say.
const DEFAULT_LIMIT: usize = 10;
/// Results at the most.
const MAX_LIMIT: usize = 50;
/// Matches whose rooms are looked at.
const MOST_LOOKED_AT: usize = 500;

#[derive(Deserialize)]
pub(super) struct Asked {
    search_term: String,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    results: Vec<Found>,
    limited: bool,
}

#[derive(Serialize)]
struct Found {
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Directory, &user.id)?;
    let limit = asked.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let FoundUsers { users, cut_short } = api.accounts.search_users(&asked.search_term).await?;
    let candidates: Vec<OwnedUserId> = users
        .iter()
        .take(MOST_LOOKED_AT)
        .filter_map(|found| Some(<&UserId>::try_from(found.user_id.as_str()).ok()?.to_owned()))
        .collect();
    // One more tells whether there are more.
    let mut visible = api.rooms.findable(&user.id, &candidates, limit + 1).await?;
    let limited = cut_short || users.len() > MOST_LOOKED_AT || visible.len() > limit;
    visible.truncate(limit);
    let visible: BTreeSet<&str> = visible.iter().map(|id| id.as_str()).collect();
    let results = users
        .into_iter()
        .filter(|found| visible.contains(found.user_id.as_str()));
    Ok(Json(Answer {
        results: results.map(shown).collect(),
        limited,
    }))
}

fn shown(found: FoundUser) -> Found {
    Found {
        user_id: found.user_id,
        display_name: found.display_name,
        avatar_url: found.avatar_url,
    }
}
