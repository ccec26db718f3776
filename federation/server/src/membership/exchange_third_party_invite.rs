//! `PUT /exchange_third_party_invite/{roomId}`: an invite by somebody's address has become one of a user, whose server asks us to send it in the
//! name of ours who made it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>

use axum::extract::State;
use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Api, ApiError, Json, Path, ask_others, request::Sent};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "type")]
    event_type: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: ThirdParty,
}

#[derive(Deserialize)]
struct ThirdParty {
    display_name: Option<String>,
    signed: Map<String, Value>,
}

pub(super) async fn put(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Sent { origin, body }: Sent<Asked>,
) -> Result<Json<Value>, ApiError> {
    let is_invite = body.event_type == "m.room.member" && body.content.membership == "invite";
    if !is_invite || body.room_id != room_id {
        return Err(ApiError::invalid_param(
            "The event is no invite to the room that the path names",
        ));
    }
    // Made by us from what proves it, whatever else stood there.
    let ThirdParty {
        display_name,
        signed,
    } = body.content.third_party_invite;
    let proof = json!({ "display_name": display_name.unwrap_or_default(), "signed": signed });
    let content = Map::from_iter([
        ("membership".to_owned(), "invite".into()),
        ("third_party_invite".to_owned(), proof),
    ]);
    let (sender, user) = (&body.sender, &body.state_key);
    api.rooms
        .exchange_third_party_invite(&origin, &room_id, sender, user, &content)
        .await
        .map_err(ask_others)?;
    Ok(Json(json!({})))
}
