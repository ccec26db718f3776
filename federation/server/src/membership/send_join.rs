//! `PUT /send_join/{roomId}/{eventId}`: a user of the asking server joins.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>

use axum::{extract::State, response::Response};
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use comity_rooms::Admission;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::send::Membership;
use crate::{
    Api, ApiError, Path, Query, ask_others,
    portions::{Part, answer},
    request::Sent,
};

type Room = (OwnedRoomId, OwnedEventId);

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    omit_members: bool,
}

pub(super) async fn v2(
    State(api): State<Api>,
    Path(path): Path<Room>,
    Query(Asked { omit_members }): Query<Asked>,
    sent: Sent<Box<RawValue>>,
) -> Result<Response, ApiError> {
    let admission = admit(&api, path, sent).await?;
    let state = if omit_members {
        admission.state_without_members().await?
    } else {
        admission.state().await?
    };
    let servers = serde_json::to_string(&admission.servers().await?).map_err(ApiError::internal)?;
    let event = admission.event().json();
    let parts = vec![
        Part::text(format!(
            r#"{{"members_omitted":{omit_members},"servers_in_room":{servers},"event":{event},"auth_chain":["#
        )),
        Part::Events(state.auth_chain),
        Part::text(r#"],"state":["#),
        Part::Events(state.state),
        Part::text("]}"),
    ];
    Ok(answer(admission.view().clone(), parts))
}

/// As older servers ask, and are answered: a pair of status and answer.
pub(super) async fn v1(
    State(api): State<Api>,
    Path(path): Path<Room>,
    sent: Sent<Box<RawValue>>,
) -> Result<Response, ApiError> {
    let admission = admit(&api, path, sent).await?;
    let state = admission.state().await?;
    let event = admission.event().json();
    let parts = vec![
        Part::text(format!(r#"[200,{{"event":{event},"auth_chain":["#)),
        Part::Events(state.auth_chain),
        Part::text(r#"],"state":["#),
        Part::Events(state.state),
        Part::text("]}]"),
    ];
    Ok(answer(admission.view().clone(), parts))
}

async fn admit(
    api: &Api,
    (room_id, event_id): Room,
    Sent { origin, body }: Sent<Box<RawValue>>,
) -> Result<Admission, ApiError> {
    let Membership { event, keys } =
        Membership::read(api, &origin, (&room_id, &event_id), &body).await?;
    let admitted = api.rooms.send_join(&origin, &room_id, event, &keys).await;
    admitted.map_err(ask_others)
}
