//! Asking a room's policy server for its word on what our user is about to say.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event>

use comity_federation_client::PeerError;
use comity_protocol::event::Signed;
use comity_rooms::{PolicyServer, RoomError};

use crate::{OtherServers, trouble::refusal};

/// Characters of a server's reason that the client is told.
const REASON: usize = 500;

impl OtherServers {
    pub(crate) async fn ask_policy(
        &self,
        policy: &PolicyServer,
        event: Signed,
    ) -> Result<Signed, RoomError> {
        let asked = self.0.fetcher.recommended(policy, &event).await;
        asked.map_err(|error| {
            let (event_id, server) = (event.event().event_id(), policy.server());
            tracing::debug!(%event_id, %server, %error, "not recommended");
            not_recommended(&error)
        })
    }
}

/// The server's words are for the client, by the specification; its error code isn't: one that ends a session, or
/// says that the room isn't there, would be believed.
fn not_recommended(error: &PeerError) -> RoomError {
    match (refusal(error), error.refusal()) {
        (Some(wait @ RoomError::LimitExceeded { .. }), _) => wait,
        (_, Some(said)) if said.status < 500 => {
            RoomError::NotRecommended(said.error.chars().take(REASON).collect())
        }
        (_, None) if matches!(error, PeerError::Malformed) => {
            RoomError::NotRecommended("it signs by another key than the room's".to_owned())
        }
        _ => RoomError::PolicyServerSilent,
    }
}
