//! Sliding sync: a client sees a window of its rooms, those active last, and of each as much as it asks for.
//!
//! The engine is that of `/sync`: a room's part is what happened between two positions of the room's lane. What is different is that
//! the client doesn't know all rooms up to the same position, so what it knows of each is kept with its [`connection`]. A request
//! finds the rooms it is about ([`lists`]), compares what is known of each with where it is in memory, and builds what is missing
//! ([`room`], [`extensions`]). An answer that says something gets a position of its own; one that doesn't, or says who types and no
//! more, has the request's, and nothing is written.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md>

mod answer;
mod base;
mod change;
mod connection;
mod extensions;
mod lists;
mod looked;
mod outline;
mod request;
mod required;
mod room;
mod spaces;
mod threads;
mod turns;

use std::collections::BTreeMap;

use comity_storage::{CommitError, Heads, Home, RoomKey};
use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

pub use self::{
    answer::{
        AccountData, E2ee, ExtensionsAnswer, Hero, Messages, RoomAnswer, SlidingAnswer,
        SlidingTimeline,
    },
    request::{
        Extensions, Filters, List, RoomConfig, Scope, SlidingRequest, WantedMessages, WantedThreads,
    },
    required::{Element, Pattern, Required, of_pairs},
    threads::{ThreadUpdate, ThreadUpdates},
};
use self::{
    connection::At,
    extensions::{Extending, Telling},
    lists::Wanted,
    room::Teller,
    turns::Turn,
};
pub(crate) use self::{
    connection::{Kept, OfDevices},
    outline::Outlines,
    spaces::Spaces,
    turns::Turns,
};
use crate::{
    MAX_TIMEOUT, Sync, SyncError,
    tables::{Known, Position},
    token::Ephemeral,
};

/// Rooms built side by side.
const CHUNK: usize = 32;
/// How often a request is answered anew because another of its connection came first.
const ATTEMPTS: usize = 4;
/// Commits of a lane after which an answer that says nothing gets a position of its own all the same, so that the next has not so
/// much to look through.
const FAR: u64 = 10_000;

/// A request of sliding sync can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum SlidingError {
    /// The position was not given to this device, or is forgotten (`M_UNKNOWN_POS`): the connection has to begin anew.
    #[error("the position is unknown")]
    UnknownPos,
    /// The lists and subscriptions of the request come to more combinations of wanted state than a connection can remember.
    #[error("the lists overlap in too many ways")]
    TooMuch,
    /// Something can't be read.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// What was told can't be kept.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Sync {
    /// Answers as soon as there is something to say, or when the time is up; at once where the connection begins.
    ///
    /// # Errors
    /// [`SlidingError::UnknownPos`]; [`SlidingError::TooMuch`]; the store's.
    pub async fn slide(&self, request: &SlidingRequest) -> Result<SlidingAnswer, SlidingError> {
        let deadline = tokio::time::Instant::now() + request.timeout.min(MAX_TIMEOUT);
        let mut wake = self.0.index.user(&self.0.rooms, &request.user).await?;
        let turn = self.0.turns.begin(request.of());
        let (mut is_first, mut time_is_up) = (true, request.timeout.is_zero());
        let mut attempts = 0;
        loop {
            wake.mark_unchanged();
            // Apart, so that whoever waits holds nothing of what looking takes.
            let look = Box::pin(self.look(request, &turn, is_first, time_is_up));
            is_first = false;
            match look.await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {
                    tokio::select! {
                        biased;
                        () = turn.over() => {}
                        changed = wake.changed() => time_is_up = changed.is_err(),
                        () = tokio::time::sleep_until(deadline) => time_is_up = true,
                    }
                }
                Err(SlidingError::Commit(CommitError::Conflict(_))) if attempts < ATTEMPTS => {
                    attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer as things stand; `None` if there is nothing to say and time to wait. A conflict means that another request of the
    /// connection came first.
    async fn look(
        &self,
        request: &SlidingRequest,
        turn: &Turn<'_>,
        is_first: bool,
        time_is_up: bool,
    ) -> Result<Option<SlidingAnswer>, SlidingError> {
        let ephemeral = self.ephemeral();
        let heads = self.0.rooms.tenant().heads();
        self.0.index.reached(&heads).await;
        let mut at = self.connection(request).await?;
        if is_first {
            let serial = at.position.as_ref().map_or(0, |position| position.serial);
            self.0
                .sent
                .back_at(request.user.as_str(), &request.told_by(), serial);
        }
        let next = self.next(request, &at, &heads, ephemeral);
        let (mut answer, told) = self.answer_from(request, &mut at, &next).await?;
        // Nobody waits for this any more; whoever does all the same asks again.
        if turn.is_over() {
            let position = at.position.ok_or(SlidingError::UnknownPos)?;
            return Ok(Some(SlidingAnswer {
                pos: position.text(),
                ..SlidingAnswer::default()
            }));
        }
        if let Some(position) = at.position.as_ref().filter(|_| answer.is_empty()) {
            if !time_is_up {
                return Ok(None);
            }
            if !is_far(position, &heads) {
                answer.pos = position.text();
                return Ok(Some(answer));
            }
        }
        let passing = match answer.is_quiet() && !answer.is_empty() {
            true => at.passing(&told, ephemeral),
            false => None,
        };
        if let Some(position) = passing.filter(|position| !is_far(position, &heads)) {
            answer.pos = position.text();
            return Ok(Some(answer));
        }
        answer.pos = next.text();
        self.keep(at, next, told).await?;
        Ok(Some(answer))
    }

    /// The position of an answer up to these heads.
    fn next(
        &self,
        request: &SlidingRequest,
        at: &At,
        heads: &Heads,
        ephemeral: Ephemeral,
    ) -> Position {
        let tenant = self.0.rooms.tenant();
        let lane = tenant.lanes().of(Home::User(request.user.as_str()).slot());
        let position = at.position.as_ref();
        let data = match request.extensions.account_data {
            Some(_) => Some(heads.get(lane)),
            None => position.and_then(|position| position.data),
        };
        Position {
            id: tenant.runtime().random().u64(),
            serial: position.map_or(0, |position| position.serial) + 1,
            incarnation: tenant.birth().incarnation,
            heads: heads.positions().to_vec(),
            ephemeral,
            data,
        }
    }

    /// What there is to say, and what the client knows of rooms then.
    async fn answer_from(
        &self,
        request: &SlidingRequest,
        at: &mut At,
        next: &Position,
    ) -> Result<(SlidingAnswer, BTreeMap<RoomKey, Known>), SlidingError> {
        let heads = Heads::new(next.heads.clone());
        let reader = self.0.rooms.tenant().reader().at(heads);
        let interest = self.interest(request, &reader, at).await?;
        let ignored = OnceCell::new();
        let teller = Teller {
            sync: self,
            request,
            at,
            reader: &reader,
            ignored: &ignored,
            serial: next.serial,
        };
        let mut answer = SlidingAnswer {
            lists: interest.counts,
            ..SlidingAnswer::default()
        };
        let mut telling: BTreeMap<RoomKey, Telling> = BTreeMap::new();
        let mut required = BTreeMap::new();
        let is_direct = |wanted: &Wanted| {
            let room_id = &*wanted.listed.place.room_id;
            interest.direct.contains(room_id)
        };
        // Of all the others nothing is so much as begun.
        let moved = interest.wanted.iter();
        let moved = moved.filter(|wanted| teller.may_tell(wanted, is_direct(wanted)));
        let moved: Vec<&Wanted> = moved.collect();
        for (n, chunk) in moved.chunks(CHUNK).enumerate() {
            if n > 0 {
                // A long answer lets others have their turn.
                tokio::task::yield_now().await;
            }
            let parts = chunk
                .iter()
                .map(|wanted| teller.tell(wanted, is_direct(wanted)));
            for (wanted, told) in chunk.iter().zip(try_join_all(parts).await?) {
                let Some(told) = told else { continue };
                let room = wanted.listed.room;
                let room_id = wanted.listed.place.room_id.to_string();
                answer.rooms.insert(room_id, told.answer);
                telling.insert(room, told.telling);
                required.insert(room, &wanted.config.required);
            }
        }
        let extending = Extending {
            sync: self,
            request,
            at,
            reader: &reader,
            ephemeral: next.ephemeral,
            wanted: &interest.wanted,
        };
        answer.extensions = extending.answer(&mut telling).await?;
        let mut told: BTreeMap<RoomKey, Known> = BTreeMap::new();
        for (room, Telling { mut known, .. }) in telling {
            if let Some(required) = required.get(&room) {
                known.required = at.number(required, &told)?;
            }
            told.insert(room, known);
        }
        Ok((answer, told))
    }
}

/// Whether so much happened since a position that the next request had better begin further on.
fn is_far(position: &Position, heads: &Heads) -> bool {
    let then = position.heads.iter();
    let mut both = then.zip(heads.positions());
    both.any(|(then, now)| now.saturating_sub(*then) > FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law 11: what is far behind is moved on, what isn't costs no write.
    #[test]
    fn a_position_far_behind_is_moved_on() {
        let position = Position {
            id: 1,
            serial: 1,
            incarnation: 0,
            heads: vec![10, 20],
            ephemeral: Ephemeral::default(),
            data: None,
        };
        assert!(!is_far(&position, &Heads::new(vec![10, 20 + FAR])));
        assert!(is_far(&position, &Heads::new(vec![10, 21 + FAR])));
    }
}
