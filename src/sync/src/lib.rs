//! Delivery: what changed for a user since a token.
//!
//! One engine: `(reads up to the heads, cursor, request) → (answer, cursor)`. A request registers to
//! be woken, reads the published heads, finds the rooms that changed by comparing positions held in
//! memory ([`index`]) with its token, and builds the answer from rows up to those heads. Where there
//! is nothing to say it sleeps until something happens to one of its rooms or its user. A quiet room
//! costs a comparison and no read.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod answer;
mod build;
pub mod check;
mod device_lists;
mod ephemeral;
mod fields;
pub mod filter;
mod index;
mod members;
mod neighbours;
mod recent_lists;
mod recent_rooms;
mod room;
pub mod sliding;
mod supplies;
pub mod tables;
mod tastes;
pub mod token;

use std::{sync::Arc, time::Duration};

use comity_accounts::{AccountError, Accounts};
use comity_keys::Keys;
use comity_protocol::id::OwnedUserId;
use comity_rooms::{RoomError, Rooms};
use comity_storage::{Heads, Pos, ReadError};
use comity_to_device::ToDevice;

pub use self::answer::{Answer, DeviceLists};
use self::{
    filter::Filter,
    index::Index,
    members::SentMembers,
    neighbours::OfRooms,
    sliding::{Kept, OfDevices, Outlines, Spaces, Turns},
    supplies::Supplies,
    tastes::Tastes,
    token::{Ephemeral, SyncToken},
};

/// The longest that a request sleeps (threat G8).
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// What a client asks of `/sync`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who.
    pub user: OwnedUserId,
    /// With which device.
    pub device: String,
    /// Whether messages to the device are given, and those that the token says it has are removed.
    pub to_device: bool,
    /// What is wanted.
    pub filter: Filter,
    /// Where the last answer ended; everything where there is none.
    pub since: Option<SyncToken>,
    /// All state, not only what changed.
    pub full_state: bool,
    /// The state after the timeline rather than before it.
    pub use_state_after: bool,
    /// How long to wait for something to say.
    pub timeout: Duration,
}

/// A sync can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A room can't be read.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The account can't be read.
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// The delivery of one tenant. Cheap to clone.
#[derive(Clone)]
pub struct Sync(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    accounts: Accounts,
    keys: Keys,
    to_device: ToDevice,
    index: Arc<Index>,
    sent: SentMembers,
    supplies: Supplies,
    outlines: Outlines,
    spaces: Spaces,
    turns: Turns,
    connections: Kept,
}

impl Sync {
    /// Starts to follow the tenant's logs. From now on the rooms count by the accounts' push rules.
    pub fn new(rooms: Rooms, accounts: Accounts, keys: Keys, to_device: ToDevice) -> Self {
        rooms.use_push_rules(Tastes::follow(accounts.clone()));
        accounts.keep_with_devices(Arc::new(OfDevices));
        keys.use_neighbours(Arc::new(OfRooms(rooms.clone())));
        let index = Index::follow(&rooms, &accounts);
        Self(Arc::new(Inner {
            rooms,
            accounts,
            keys,
            to_device,
            index,
            sent: SentMembers::default(),
            supplies: Supplies::default(),
            outlines: Outlines::default(),
            spaces: Spaces::default(),
            turns: Turns::default(),
            connections: Kept::default(),
        }))
    }

    /// The tenant's rooms.
    pub fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// Where everything stands now, as a token. It says of no message to a device that the device has it.
    pub fn now(&self) -> SyncToken {
        self.token(self.0.rooms.tenant().heads(), self.ephemeral(), 0)
    }

    /// Answers as soon as there is something to say, or when the time is up.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn sync(&self, request: &Request) -> Result<Answer, SyncError> {
        let deadline = tokio::time::Instant::now() + request.timeout.min(MAX_TIMEOUT);
        let since = request.since.as_ref().map(|since| self.kept(since));
        let mut wake = self.0.index.user(&self.0.rooms, &request.user).await?;
        loop {
            wake.mark_unchanged();
            let ephemeral = self.ephemeral();
            let heads = self.0.rooms.tenant().heads();
            self.0.index.reached(&heads).await;
            let had = since.as_ref().map_or(0, |since| since.to_device);
            let next = self.token(heads, ephemeral, had);
            // Apart, so that whoever waits doesn't hold what building takes.
            let answer = Box::pin(self.build(request, since.as_ref(), next)).await?;
            if since.is_none() || request.full_state || !answer.is_empty() {
                return Ok(answer);
            }
            tokio::select! {
                biased;
                changed = wake.changed() => if changed.is_err() { return Ok(answer) },
                () = tokio::time::sleep_until(deadline) => return Ok(answer),
            }
        }
    }

    /// What the client has that is still so. Of a lane that lost something of what the token covers, nothing is: what was told
    /// can't be taken back piece by piece, so its rooms are told anew. So are all, if the store lost something twice since,
    /// for only the last loss is recorded.
    fn kept(&self, since: &SyncToken) -> SyncToken {
        let tenant = self.0.rooms.tenant();
        let mut clamped = self.clamp(since);
        let losses = tenant.birth().incarnation.saturating_sub(since.incarnation);
        for lane in tenant.lanes().all() {
            if losses > 1 || since.heads.get(lane) > clamped.heads.get(lane) {
                clamped.heads = clamped.heads.with(lane, 0);
            }
        }
        clamped
    }

    /// A token of an older incarnation counts up to where that one ended; one from the future,
    /// which nobody was given, up to now.
    pub fn clamp(&self, since: &SyncToken) -> SyncToken {
        let tenant = self.0.rooms.tenant();
        let mut heads = since.heads.min(&tenant.heads());
        if since.incarnation != tenant.birth().incarnation {
            let recorded: Vec<u64> = tenant.birth().recorded.clone();
            heads = heads.min(&Heads::new(recorded));
        }
        SyncToken {
            heads,
            ..since.clone()
        }
    }

    fn token(&self, heads: Heads, ephemeral: Ephemeral, to_device: Pos) -> SyncToken {
        let incarnation = self.0.rooms.tenant().birth().incarnation;
        SyncToken {
            incarnation,
            heads,
            ephemeral,
            to_device,
            typing_in: Vec::new(),
        }
    }
}
