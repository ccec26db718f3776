//! `GET /rooms/{roomId}/joined_members`: who is joined, by their profiles in the room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_protocol::{
    auth::{MemberContent, Membership},
    id::OwnedRoomId,
};
use comity_rooms::state::Half;
use serde::Serialize;

use super::Access;
use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Answer {
    joined: BTreeMap<String, Member>,
}

/// Both keys are always there: clients look for them.
#[derive(Serialize)]
struct Member {
    display_name: Option<String>,
    avatar_url: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Answer>, ApiError> {
    let access = Access::of_whole(&api, &user.id, &room_id).await?;
    if access.membership != Membership::Join {
        return Err(ApiError::forbidden("You are not in this room"));
    }
    let mut joined = BTreeMap::new();
    for found in access.state(Some(Half::Members)).await? {
        let event = &found.event;
        let membership = MemberContent::read(event.content().get()).membership;
        if let (Some(Membership::Join), Some(user)) = (membership, event.state_key()) {
            let text = |key| event.content_string(key).map(std::borrow::Cow::into_owned);
            let (display_name, avatar_url) = (text("displayname"), text("avatar_url"));
            joined.insert(
                user.to_owned(),
                Member {
                    display_name,
                    avatar_url,
                },
            );
        }
    }
    Ok(Json(Answer { joined }))
}
