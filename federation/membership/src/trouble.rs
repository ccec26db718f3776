//! What goes wrong with other servers, and what of it the client is told.

use comity_federation_client::PeerError;
use comity_rooms::RoomError;

use crate::template::TemplateError;

/// How long a server may tell a client to wait, at the least and at the most, in milliseconds.
const WAITS: (u64, u64) = (1_000, 60 * 60 * 1_000);

/// No server could be reached, or none was sensible.
pub(crate) const NOBODY: RoomError =
    RoomError::OtherServer("none of the room's servers could be reached");

/// An attempt with one server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It refused, or could not be reached.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// It was handed an event and never said what became of it.
    #[error("no answer came: {0}")]
    Unanswered(PeerError),
    /// It let the user into a room that can't be checked yet: who made that doesn't tell their keys.
    #[error("the room's creator doesn't tell their keys")]
    Unchecked,
    /// Its template is none for us.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It let the user in, and by the state that it sent with that the room's rules forbid it.
    #[error("the join is not allowed by the state that came with it")]
    NotAllowed,
    /// Its answer is not what was asked for.
    #[error("{0}")]
    Answer(&'static str),
    /// The fault is here: no other server helps.
    #[error(transparent)]
    Ours(RoomError),
}

impl Trouble {
    /// What a server's refusal says to the client; nothing, where it says nothing of the room. Its own
    /// words aren't passed on.
    pub fn refusal(&self) -> Option<RoomError> {
        match self {
            Self::Peer(error) => refusal(error),
            Self::NotAllowed => Some(RoomError::Forbidden("the room's rules forbid it")),
            Self::Template(TemplateError::Version) => Some(RoomError::UnsupportedVersion),
            Self::Unanswered(_)
            | Self::Unchecked
            | Self::Template(_)
            | Self::Answer(_)
            | Self::Ours(_) => None,
        }
    }

    /// Whether an event that was handed over may be part of the room all the same.
    pub fn may_be_in(&self) -> bool {
        matches!(
            self,
            Self::Unanswered(_) | Self::Unchecked | Self::Ours(RoomError::Incomplete)
        )
    }
}

/// What a server's refusal says to the client.
pub(crate) fn refusal(error: &PeerError) -> Option<RoomError> {
    let refusal = error.refusal()?;
    Some(match refusal.errcode.as_str() {
        "M_FORBIDDEN" => RoomError::Forbidden("the room's server refused it"),
        "M_NOT_FOUND" => RoomError::OtherServer("the other server does not know it"),
        "M_UNABLE_TO_AUTHORISE_JOIN" => RoomError::UnableToAuthoriseJoin,
        "M_UNABLE_TO_GRANT_JOIN" => RoomError::UnableToGrantJoin,
        "M_INVITE_BLOCKED" => RoomError::InviteBlocked,
        "M_LIMIT_EXCEEDED" => {
            let wait = error.retry_after().unwrap_or_default().as_millis();
            let wait = u64::try_from(wait).unwrap_or(u64::MAX);
            RoomError::LimitExceeded {
                retry_after_ms: wait.clamp(WAITS.0, WAITS.1),
            }
        }
        "M_INCOMPATIBLE_ROOM_VERSION" | "M_UNSUPPORTED_ROOM_VERSION" => {
            RoomError::UnsupportedVersion
        }
        _ => return None,
    })
}
