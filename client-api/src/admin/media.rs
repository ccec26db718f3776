//! `/_synapse/admin/v1/media…`: files that administrators quarantine or remove, as Synapse's administration tools ask for it.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/media_admin_api.html>

use axum::extract::State;
use comity_media::Mxc;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, Query, User};

/// Files removed by one request, at most, and unless it says otherwise.
const MOST: usize = 1_000;
const USUALLY: usize = 100;

type Named = (String, String);

#[derive(Deserialize)]
pub(super) struct Asked {
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Removed {
    total: usize,
    deleted_media: Vec<String>,
}

impl From<Vec<String>> for Removed {
    fn from(deleted_media: Vec<String>) -> Self {
        Self {
            total: deleted_media.len(),
            deleted_media,
        }
    }
}

pub(super) async fn quarantine(
    State(api): State<Api>,
    user: User,
    Path(named): Path<Named>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    set_quarantined(&api, &user, &named, true).await
}

pub(super) async fn unquarantine(
    State(api): State<Api>,
    user: User,
    Path(named): Path<Named>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    set_quarantined(&api, &user, &named, false).await
}

async fn set_quarantined(
    api: &Api,
    user: &User,
    named: &Named,
    quarantined: bool,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let mxc = mxc(user, named)?;
    api.media.quarantine(&mxc, quarantined).await?;
    tracing::info!(by = %user.id, %mxc, quarantined, "media was judged");
    Ok(Json(Map::new()))
}

/// Removes a file of ours.
pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path(named): Path<Named>,
) -> Result<Json<Removed>, ApiError> {
    let mxc = mxc(&user, &named)?;
    api.media.remove(&mxc).await?;
    tracing::info!(by = %user.id, %mxc, "media was removed");
    Ok(Json(vec![mxc.id().to_owned()].into()))
}

/// Removes files of a user of ours, a hundred of them unless more are asked for.
///
/// <https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#delete-media-uploaded-by-a-user>
pub(super) async fn delete_of_user(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
    Query(asked): Query<Asked>,
) -> Result<Json<Removed>, ApiError> {
    user.must_be_admin()?;
    if of.server_name() != api.rooms.server_name() {
        return Err(ApiError::invalid_param("The user is of another server"));
    }
    let most = asked.limit.unwrap_or(USUALLY).min(MOST);
    let removed = api.media.remove_of(&of, most).await?;
    tracing::info!(by = %user.id, %of, files = removed.len(), "media was removed");
    Ok(Json(removed.into()))
}

/// Who asks is looked at before what they ask for.
fn mxc(user: &User, (server, media): &Named) -> Result<Mxc, ApiError> {
    user.must_be_admin()?;
    Mxc::new(server, media).ok_or_else(|| ApiError::not_found("There is no such media"))
}
