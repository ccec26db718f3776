//! `GET /room_summary/{roomIdOrAlias}`: what a room looks like, one that other servers have too.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>

use axum::extract::State;
use comity_accounts::Limit;
use comity_encryption_policy::Policy;
use comity_protocol::auth::Membership;
use comity_rooms::RoomError;
use serde::Serialize;

use comity_web::RoomSummary;

use crate::{
    Api, ApiError, Json, Path, Query, User,
    named_room::{named_room, via},
};

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    summary: RoomSummary,
    membership: &'static str,
    /// What this server's users may and must do there, where it is the server's to say.
    #[serde(
        rename = "org.comity.encryption_mode",
        skip_serializing_if = "Option::is_none"
    )]
    encryption_mode: Option<&'static str>,
    /// Whether pages written of there are to be previewed by this server: not where it isn't to know what is written (R20.2).
    #[serde(rename = "org.comity.url_previews")]
    url_previews: bool,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Directory, &user.id)?;
    let (room_id, servers) = named_room(&api, &room).await?;
    let via = [via(&query), servers].concat();
    let found = api.rooms.preview_through(&user.id, &room_id, &via).await;
    let (summary, membership) = found.map_err(|error| match error {
        // The same for a room that isn't there and for one that isn't shown (threat E5).
        RoomError::UnknownRoom => ApiError::not_found("There is no such room, or you can't see it"),
        error => error.into(),
    })?;
    let policy = Policy::of(api.rooms.encryption(), summary.encryption_mode);
    let encryption_mode = match api.rooms.view(&room_id).await {
        Ok(_) => Some(policy.mode().as_str()),
        Err(RoomError::UnknownRoom) => None,
        Err(error) => return Err(error.into()),
    };
    let in_the_clear = summary.encryption.is_none() && !policy.must;
    Ok(Json(Answer {
        encryption_mode,
        url_previews: in_the_clear && api.media.previews_pages(),
        summary: summary.into(),
        membership: membership.unwrap_or(Membership::Leave).as_str(),
    }))
}
