//! `POST /user_directory/search`: users by id or name, those whom the searcher may find.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch>

use std::{collections::BTreeSet, ops::ControlFlow};

use axum::extract::State;
use comity_accounts::{Fit, FoundUser, FoundUsers, Limit, UserTerm};
use comity_protocol::id::{OwnedUserId, UserId};
use comity_rooms::Acquaintance;
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, User};

/// Results when the client doesn't say.
const DEFAULT_LIMIT: usize = 10;
/// Results at the most.
const MAX_LIMIT: usize = 50;
/// Matches whose rooms are looked at.
const MOST_LOOKED_AT: usize = 500;
/// Members of the searcher's rooms looked at, for users of other servers.
const MOST_MEMBERS: usize = 50_000;
/// Matches among them kept, at which nobody looks further.
const MOST_MET: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct Asked {
    search_term: String,
    limit: Option<usize>,
}

#[derive(Default, Serialize)]
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
    let term = UserTerm::new(&asked.search_term)?;
    if term.is_empty() {
        return Ok(Json(Answer::default()));
    }
    let FoundUsers { users, cut_short } = api.accounts.search_users(&term).await?;
    let candidates: Vec<OwnedUserId> = users
        .iter()
        .take(MOST_LOOKED_AT)
        .filter_map(|(_, found)| Some(<&UserId>::try_from(found.user_id.as_str()).ok()?.to_owned()))
        .collect();
    // One more tells whether there are more.
    let visible = api.rooms.findable(&user.id, &candidates, limit + 1).await?;
    let mut limited = cut_short || users.len() > MOST_LOOKED_AT;
    let visible: BTreeSet<&str> = visible.iter().map(|id| id.as_str()).collect();
    let mut found = users;
    found.retain(|(_, found)| visible.contains(found.user_id.as_str()));
    let mut met: Vec<(Fit, FoundUser)> = Vec::new();
    let meet = |Acquaintance {
                    user_id,
                    display_name,
                    avatar_url,
                }| {
        let user = FoundUser {
            user_id,
            display_name,
            avatar_url,
        };
        met.extend(term.fit(&user).map(|fit| (fit, user)));
        if met.len() < MOST_MET {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let all = api
        .rooms
        .acquaintances(&user.id, MOST_MEMBERS, meet)
        .await?;
    limited |= !all;
    found.append(&mut met);
    found.sort_by(|(fit, user), (other_fit, other)| {
        (fit, &user.user_id).cmp(&(other_fit, &other.user_id))
    });
    // Whoever is in several rooms is shown by the name that fits best.
    let mut shown_already = BTreeSet::new();
    found.retain(|(_, user)| shown_already.insert(user.user_id.clone()));
    limited |= found.len() > limit;
    let results = found.into_iter().take(limit).map(|(_, user)| shown(user));
    Ok(Json(Answer {
        results: results.collect(),
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
