//! Policy servers: a room may want another server's word on what is said in it.
//!
//! Which server that is, and by which key it gives its word, stands in the room's state. The word is a
//! signature of the event. What of ours lacks it is drafted, the room given back, the server asked, and the
//! event brought to the door as others are ([`Change::take_in`]); what of others lacks it the door
//! gives back with the server to be asked, and takes again with its word or without ([`Rooms::receive_with`]).
//! It says nothing of whether an event is allowed, so nobody is asked about one that isn't; only what others send is asked about
//! with what it follows, before all of it is judged.
//!
//! What a new room begins with, an upgrade's last events in the old one, and aliases that the server itself takes out of
//! the state go without: whoever receives them asks.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use comity_protocol::{
    event::{Event, Signed},
    id::{OwnedServerName, ServerName},
    sign::{VerifyKey, is_recommended},
};
use serde::Deserialize;

use crate::{change::Change, error::RoomError, rooms::Rooms};

/// The event that designates a room's policy server. It alone is never the server's to judge, so that a
/// room can always do without.
pub(crate) const POLICY_EVENT: &str = "m.room.policy";

/// A room's policy server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyServer {
    server: OwnedServerName,
    /// None where what stands in the room is no key: nothing is recommended then.
    key: Option<VerifyKey>,
}

/// The server and the key that an event designates, if it has both.
pub(crate) fn designated(event: &Event) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Content {
        via: String,
        public_keys: Keys,
    }
    #[derive(Deserialize)]
    struct Keys {
        ed25519: String,
    }
    let content: Content = event.content_as().ok()?;
    Some((content.via, content.public_keys.ed25519))
}

impl PolicyServer {
    /// Whom to ask.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Whether the server's word on an event is wanted, and isn't there.
    pub fn wants(&self, event: &Event) -> bool {
        let is_there = |key| is_recommended(event, &self.server, key);
        !event.is_state(POLICY_EVENT, "") && !self.key.is_some_and(is_there)
    }

    /// The event with the server's word on it, if that is what this is.
    #[must_use]
    pub fn recommended(&self, event: &Signed, signature: &str) -> Option<Signed> {
        event.recommended(&self.server, self.key?, signature)
    }
}

impl Change {
    /// The policy server whose word an event lacks. Of rooms without one nothing is read.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room>
    pub(crate) async fn unasked(&self, event: &Event) -> Result<Option<PolicyServer>, RoomError> {
        let live = self.live()?;
        let Some((server, key)) = &live.summary.policy else {
            return Ok(None);
        };
        let Ok(server) = OwnedServerName::try_from(server.as_str()) else {
            return Ok(None);
        };
        let policy = PolicyServer {
            server,
            key: VerifyKey::parse(key).ok(),
        };
        if !policy.wants(event) {
            return Ok(None);
        }
        // Who isn't in the room has no say in it, and needn't answer.
        let view = self.rooms().view(&live.room_id).await?;
        let is_in = view.has_server(&policy.server).await?;
        Ok(is_in.then_some(policy))
    }
}

impl Rooms {
    /// An event with a policy server's word on it. No room may be held meanwhile.
    pub(crate) async fn recommended(
        &self,
        policy: &PolicyServer,
        event: Signed,
    ) -> Result<Signed, RoomError> {
        let elsewhere = self.elsewhere("the room's policy server can't be asked")?;
        elsewhere.recommend(policy, event).await
    }
}
