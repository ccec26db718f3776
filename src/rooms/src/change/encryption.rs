//! Encryption as a room mode, where events of ours are made: what this server's users may send in the clear, and what not.

use comity_encryption_policy::{ENCRYPTION_EVENT, MODE_EVENT, Mode, Room, Sent, check};

use super::{Change, Intent};
use crate::{error::RoomError, rooms::Rooms};

/// The localpart of the server's own user, which nobody can register: its notices are the server's word, in the clear.
pub const SERVER_LOCALPART: &str = "_server";

impl Change {
    /// Refuses what the tenant's mode and the room's own keep a user of ours from sending. For a message nothing is read.
    pub(super) async fn check_encryption(&mut self, intent: &Intent) -> Result<(), RoomError> {
        if intent.sender.localpart() == SERVER_LOCALPART {
            return Ok(());
        }
        let redacts_encryption = match &intent.redacts {
            Some(target) if intent.state_key.is_none() => {
                self.is_encryption(target.as_str()).await?
            }
            _ => false,
        };
        let summary = &self.live()?.summary;
        let room = Room {
            tenant: self.rooms.0.config.encryption,
            own: summary.encryption_mode,
            algorithm: summary.encryption.as_deref(),
        };
        let sent = Sent {
            event_type: &intent.event_type,
            state_key: intent.state_key.as_deref(),
            content: intent.content.get(),
            redacts_encryption,
        };
        check(room, sent).map_err(|refusal| RoomError::Forbidden(refusal.text()))
    }

    /// Whether this is the event that encrypts the room, or that gives it its mode.
    async fn is_encryption(&mut self, event_id: &str) -> Result<bool, RoomError> {
        for event_type in [ENCRYPTION_EVENT, MODE_EVENT] {
            if let Some((num, ..)) = self.current(event_type, "").await?
                && self.event(num).await?.event_id() == event_id
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Rooms {
    /// The mode of this server's rooms.
    pub fn encryption(&self) -> Mode {
        self.0.config.encryption
    }
}
