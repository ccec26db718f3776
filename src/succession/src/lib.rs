//! What users made of a room goes with them to the one that replaces it: tags, push rules, direct chats.
//!
//! Whoever enters a room that replaces another takes it along as they enter. Whoever is in it already when the
//! old room comes to say so (by hand, or by another server whose tombstone is late) gets it then: the logs are
//! followed for that, over restarts ([`follow`]).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-19>

mod follow;
pub mod tables;

use std::sync::Arc;

use comity_accounts::{AccountError, Accounts};
use comity_protocol::id::{RoomId, UserId};
use comity_rooms::{RoomError, Rooms};
use comity_storage::{CommitError, Heads};
use parking_lot::Mutex;

/// Carries over what users made of rooms, as long as it is held. Cheap to clone.
#[derive(Clone)]
pub struct Succession(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    accounts: Accounts,
    /// How far the logs have been followed, and what of that is stored.
    followed: Mutex<Heads>,
    saved: tokio::sync::Mutex<Heads>,
}

/// Something could not be carried over.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// The rooms can't be read.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// What the user made of the old room can't be read, or be written for the new one.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl Succession {
    /// Goes on from where the last run stopped; a store that was never followed is from where it stands.
    ///
    /// # Errors
    /// The store's.
    pub async fn start(rooms: Rooms, accounts: Accounts) -> Result<Self, CommitError> {
        let from = follow::load(rooms.tenant()).await?;
        let inner = Arc::new(Inner {
            rooms,
            accounts,
            followed: Mutex::new(from.clone()),
            saved: tokio::sync::Mutex::new(from.clone()),
        });
        follow::begin(&inner, from);
        Ok(Self(inner))
    }

    /// Carries over what a user made of the room that this one replaces, if both say so. Done twice, it is done
    /// once.
    ///
    /// # Errors
    /// The rooms' and the accounts'.
    pub async fn carry_over(&self, user: &UserId, room_id: &RoomId) -> Result<(), SuccessionError> {
        self.0.carry_over(user, room_id).await
    }
}

impl Inner {
    async fn carry_over(&self, user: &UserId, room_id: &RoomId) -> Result<(), SuccessionError> {
        if let Some(before) = self.rooms.replaces(room_id).await? {
            let (before, now) = (before.as_str(), room_id.as_str());
            self.accounts.carry_over(user.as_str(), before, now).await?;
        }
        Ok(())
    }
}
