//! `GET /rooms/{roomId}/members`: the member events, now or at a token.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>

use axum::extract::State;
use comity_protocol::{
    auth::{MemberContent, Membership},
    id::{OwnedRoomId, UserId},
};
use comity_rooms::{Found, RoomError, state::Half};
use comity_sync::token::Token;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Access;
use crate::{Api, ApiError, Json, Path, Query, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Which {
    at: Option<String>,
    membership: Option<String>,
    not_membership: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    chunk: Vec<Box<RawValue>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room_id): Path<OwnedRoomId>,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    let mut access = Access::of_whole(&api, &user.id, &room_id).await?;
    if let Some(at) = &which.at {
        go_back(&api, &mut access, &user.id, at).await?;
    }
    let is = named(which.membership.as_deref())?;
    let is_not = named(which.not_membership.as_deref())?;
    let wanted = |found: &Found| {
        let membership = MemberContent::read(found.event.content().get()).membership;
        match (is, is_not) {
            (None, None) => true,
            // With both, either will do.
            _ => (is.is_some() && membership == is) || (is_not.is_some() && membership != is_not),
        }
    };
    let mut members = access.state(Some(Half::Members)).await?;
    members.retain(wanted);
    let chunk = access.render(&members, &user).await?;
    Ok(Json(Answer { chunk }))
}

fn named(membership: Option<&str>) -> Result<Option<Membership>, ApiError> {
    membership
        .map(|name| {
            Membership::from_name(name)
                .ok_or_else(|| ApiError::invalid_param("There is no such membership"))
        })
        .transpose()
}

/// The state as it was for a sync that gave out the token: where everything stood then, not where the token's place is in the order.
async fn go_back(api: &Api, access: &mut Access, user: &UserId, at: &str) -> Result<(), ApiError> {
    let bad = |_| ApiError::invalid_param("at is no token that the server gave out");
    let heads = match at.parse::<Token>().map_err(bad)? {
        Token::Sync(token) => api.sync.clamp(&token).heads,
        Token::Place(token) => token.heads.min(&api.rooms.tenant().heads()),
    };
    let reader = access.view.reader().at(heads);
    match api.rooms.view_at(&reader, access.view.room_id()).await {
        // Whoever had left by then has the members of that moment.
        Ok(then) if access.left.is_some_and(|left| left <= then.seq()) => Ok(()),
        Ok(then) => {
            // The members of a time that the asker could not see are none of theirs (E3). The state decides, not the
            // event at that place: one that made the room stricter is shown itself to who may see nothing after it.
            let (root, seq) = (then.root(), then.seq());
            if !access.view.state_visible(root, seq, user).await? {
                return Err(ApiError::forbidden(
                    "The room as it was then is not yours to see",
                ));
            }
            // Of a time at which the members weren't known here, those that are now.
            if !then.root().is_partial() {
                access.root = then.root();
            }
            Ok(())
        }
        Err(RoomError::UnknownRoom) => Err(ApiError::invalid_param("The room began later")),
        Err(error) => Err(error.into()),
    }
}
