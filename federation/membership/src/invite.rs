//! Handing an invite to the server of the user it is for.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::time::Duration;

use comity_federation_client::peers::Invite;
use comity_protocol::{
    event::{Event, Signed},
    id::UserId,
};
use comity_rooms::RoomError;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{
    OtherServers,
    trouble::{NOBODY, refusal},
};

/// How long the other server may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl OtherServers {
    pub(crate) async fn hand_over(
        &self,
        invite: Signed,
        room_state: Vec<Event>,
    ) -> Result<Signed, RoomError> {
        let event = invite.event();
        let invited = event.state_key().and_then(|user| UserId::parse(user).ok());
        let invited = invited.ok_or(RoomError::Invalid("an invite is for a user"))?;
        let server = invited.server_name();
        let raw = |event: &Event| RawValue::from_string(event.json().to_owned());
        let state = room_state.iter().map(raw).collect::<Result<Vec<_>, _>>();
        let (Ok(pdu), Ok(room_state)) = (raw(event), state) else {
            return Err(RoomError::Invalid("the invite is no JSON"));
        };
        let invite = Invite {
            room_id: event.room_id(),
            event_id: event.event_id(),
            version: event.version(),
            event: &pdu,
            room_state: &room_state,
        };
        let request = self.0.fetcher.peers.invite(server, &invite);
        let answer = match timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(%server, %error, "an invite was not taken");
                return Err(refusal(&error).unwrap_or(NOBODY));
            }
            Err(_) => return Err(NOBODY),
        };
        // What comes back is ours with their signature, or isn't ours.
        let signed = self
            .0
            .fetcher
            .checks
            .countersigned(event, &answer, server)
            .await;
        signed.ok_or(RoomError::OtherServer(
            "the other server did not sign the invite",
        ))
    }
}
