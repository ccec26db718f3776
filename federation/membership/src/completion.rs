//! Completing rooms that were joined without their members: a job a room, as long as its row is there.
//!
//! One server after the other is asked, the one that let us in first; after each round the job waits, longer
//! each time, and goes on with others. It ends when the room's state is whole or we have left, and is taken
//! up again by the next start. Nothing is kept here: the rooms say what is lacking.
//!
//! Whoever is asked says who is in the room, and is believed. Whom we came in by is believed already, so while that
//! server doesn't answer it is waited for, some rounds long, before others are asked: whoever can silence it
//! doesn't take its place by that.

use std::{sync::Weak, time::Duration};

use comity_federation_client::PerServer;
use comity_federation_receiver::{Completion, Patience};
use comity_protocol::id::{OwnedRoomId, OwnedServerName, RoomId};
use comity_rooms::RoomError;
use comity_storage::ReadError;
use tokio::{sync::Semaphore, time::Instant};

use crate::{Inner, OtherServers};

/// Servers asked in one round.
const SERVERS: usize = 10;
/// How long to wait after the first round; doubled each time.
const WAIT: Duration = Duration::from_secs(10);
/// The longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// Rounds in which nobody else is asked as long as the server that let us in doesn't answer.
const ALONE: usize = 3;
/// Rounds in which what can't be checked yet is waited for, ten minutes in all: as long as a server may be away that
/// wants to be known. A state that lacks what the others' has is another for good.
const FOR_KEYS: usize = 5;
/// How long a round may take; whoever is slow holds up others no longer.
const ROUND: Duration = Duration::from_secs(15 * 60);
/// Rooms completed at a time: each may hold a whole state.
const ALL: usize = 8;
/// Of these those that one server let us into.
const OF_ONE: usize = 2;

/// Leave to complete rooms.
pub(crate) struct Turns {
    all: Semaphore,
    of_one: PerServer,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Semaphore::new(ALL),
            of_one: PerServer::new(OF_ONE),
        }
    }
}

impl OtherServers {
    /// Takes up the joins that had no answer and the rooms that were not completed when the server last stopped.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn resume(&self) -> Result<(), ReadError> {
        if let Some(rooms) = self.0.rooms.upgrade() {
            self.resume_joins(&rooms).await?;
            for room_id in rooms.incomplete_rooms().await? {
                self.begin_completion(room_id);
            }
        }
        Ok(())
    }

    /// Begins to complete a room.
    pub(crate) fn begin_completion(&self, room_id: OwnedRoomId) {
        let work = work(std::sync::Arc::downgrade(&self.0), room_id);
        drop(self.0.runtime.spawn("room completion", work));
    }

    /// Asks some servers for what a room lacks; whether nothing is lacking any more.
    async fn complete_room(&self, room_id: &RoomId, round: usize) -> Result<bool, RoomError> {
        let rooms = self.rooms()?;
        let Some(lacks) = rooms.incomplete(room_id).await? else {
            return Ok(true);
        };
        let resident = lacks.servers.first();
        let turns = &self.0.completing;
        // Who waits for its server's turn takes none of the others'.
        let _of_one = match resident {
            Some(resident) => turns.of_one.turn(resident).await,
            None => None,
        };
        let _of_all = turns.all.acquire().await.ok();
        let until = Instant::now() + ROUND;
        for server in in_round(&lacks.servers, round) {
            let fetcher = &self.0.fetcher;
            let patience = match round {
                0 => Patience::ForAll,
                1..=FOR_KEYS => Patience::ForKeys,
                _ => Patience::None,
            };
            let completed = fetcher.complete(&rooms, room_id, &lacks, server, until, patience);
            match Box::pin(completed).await {
                Ok(Completion::Whole) => return Ok(true),
                Ok(Completion::Silent) if round < ALONE && Some(server) == resident => break,
                // By what others say it would be the same; of others, who knows.
                Ok(Completion::Unchecked) if Some(server) == resident => break,
                Ok(Completion::Silent | Completion::Unchecked | Completion::Useless) => {}
                Err(RoomError::Invalid(what)) => {
                    tracing::warn!(%server, %room_id, what, "a room's state is not believed");
                }
                Err(error) => return Err(error),
            }
        }
        // Somebody may have left in the meantime.
        Ok(rooms.incomplete(room_id).await?.is_none())
    }
}

async fn work(others: Weak<Inner>, room_id: OwnedRoomId) {
    let mut wait = WAIT;
    let mut round = 0;
    loop {
        let Some(inner) = others.upgrade() else {
            return;
        };
        let this = OtherServers(inner);
        match this.complete_room(&room_id, round).await {
            Ok(true) => return,
            Ok(false) => tracing::debug!(%room_id, "a room could not be completed yet"),
            Err(error) => tracing::warn!(%room_id, %error, "a room could not be completed yet"),
        }
        let spread = this.0.runtime.random().below(1_000);
        drop(this);
        tokio::time::sleep(wait + Duration::from_millis(spread)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        round += 1;
    }
}

/// The servers whose turn it is: the one that let us in each time, and others one after the other.
fn in_round(servers: &[OwnedServerName], round: usize) -> impl Iterator<Item = &OwnedServerName> {
    let (first, others) = servers.split_at(servers.len().min(1));
    let most = SERVERS - 1;
    let from = (round * most).checked_rem(others.len()).unwrap_or_default();
    let others = others
        .iter()
        .cycle()
        .skip(from)
        .take(most.min(others.len()));
    first.iter().chain(others)
}
