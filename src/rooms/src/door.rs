//! The one door: events that come from outside, by whichever way, are judged here and nowhere else
//! (law 8).
//!
//! What comes in is [`Signed`]: its format and its signatures have been checked. The room's writer
//! takes the events parents first, one at a time, and commits each with its verdict in a batch of
//! its own, which is conditional on the status that was read. What an event needs and the room
//! doesn't have is named and not waited for: whoever called fetches it and comes again. So nothing
//! here asks the network, and an event that rests on a million others costs what it names itself.
//!
//! The checks are those of <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>
//! in their order.

mod complete;
mod enter;
mod fill;
mod judge;
mod order;
mod verdict;

use std::collections::BTreeSet;

use comity_protocol::{
    event::Signed,
    id::{OwnedEventId, RoomId},
};

pub use complete::{Claim, Completed, Incomplete};
pub use enter::{Entered, Entry};
pub use fill::{Filled, Hole, Run};

use crate::{error::RoomError, policy::PolicyServer, rooms::Rooms, tables::Verdict};

/// An event from outside.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event.
    pub event: Signed,
    /// How it came.
    pub way: Way,
}

/// The way by which an event came, which says what is checked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// As news, or as what news followed. All checks.
    New,
    /// As news whose parents can't all be had. In place of those that are missing stands the state
    /// that another server says the room had after them, by its events. All checks.
    Beyond(Vec<OwnedEventId>),
    /// As part of another event's state or auth chain. It is checked by its auth events alone and
    /// gets no place in the graph.
    Outlier,
    /// As part of the room's past, for a hole in it ([`Rooms::fill`]): all checks but that by the
    /// current state. In place of parents that are missing stands this state.
    History(Vec<OwnedEventId>),
    /// As a membership that is asked of us to be made part of the room: the body of a handshake, an
    /// invite that came back signed. All checks, and what isn't accepted isn't stored.
    Handshake,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored with this verdict, now or since before.
    Settled(Verdict),
    /// It can't be judged before these are here; nothing is stored.
    Wanted(Wanted),
    /// It lacks the word of the room's policy server, which is to be asked; nothing is stored.
    Unasked(PolicyServer),
    /// It is no event of this room; nothing is stored.
    Refused(Refusal),
}

/// Events that another one needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Parents without a place in the graph, to come as [`Way::New`].
    pub prev: Vec<OwnedEventId>,
    /// Auth events or events of a state, to come as [`Way::Outlier`].
    pub auth: Vec<OwnedEventId>,
}

/// Why an event is dropped before it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another room, or to one of another version.
    #[error("the event is of another room")]
    OtherRoom,
    /// A new event with more parents or auth events than it may have.
    #[error("the event has too many parents or auth events")]
    TooManyParents,
    /// It follows itself, or is authorised by itself, maybe by way of others.
    #[error("the event rests on itself")]
    Cycle,
    /// What a handshake asks for is against the room's rules.
    #[error("the room's rules forbid the event")]
    Forbidden,
}

impl Rooms {
    /// Judges events of one room, in any order, and stores them with their verdicts. Each is
    /// answered once, parents first; what had been settled before stays as it was.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], also of a room that isn't heard any more ([`crate::tables::Head::is_heard`]), and those of the
    /// store. Asking again repeats nothing.
    pub async fn receive(
        &self,
        room_id: &RoomId,
        arrivals: Vec<Arrival>,
    ) -> Result<Vec<(OwnedEventId, Outcome)>, RoomError> {
        self.receive_with(room_id, arrivals, &BTreeSet::new()).await
    }

    /// [`Self::receive`] of events of which the room's policy server, which was asked, doesn't recommend these: they are
    /// soft-failed.
    ///
    /// # Errors
    /// As there.
    pub async fn receive_with(
        &self,
        room_id: &RoomId,
        arrivals: Vec<Arrival>,
        refused: &BTreeSet<OwnedEventId>,
    ) -> Result<Vec<(OwnedEventId, Outcome)>, RoomError> {
        let (ordered, cyclic) = order::parents_first(arrivals);
        let mut outcomes = Vec::with_capacity(ordered.len() + cyclic.len());
        let mut appending = Vec::new();
        for arrival in ordered {
            let event_id = arrival.event.event().event_id().to_owned();
            // The room is given back in between: whoever waits to send isn't kept waiting.
            let mut change = self.change(room_id).await?;
            if !change.live()?.head.is_heard() {
                return Err(RoomError::UnknownRoom);
            }
            let is_refused = refused.contains(&event_id);
            let outcome = Box::pin(change.judge(arrival, None, is_refused)).await?;
            // What is still to be asked about leaves nothing behind.
            if change.has_moved() && !matches!(outcome, Outcome::Unasked(_)) {
                appending.push(change.append().await?);
            }
            outcomes.push((event_id, outcome));
        }
        for appending in appending {
            appending.durable().await?;
        }
        outcomes.extend(cyclic.into_iter().map(|arrival| {
            let event_id = arrival.event.event().event_id().to_owned();
            (event_id, Outcome::Refused(Refusal::Cycle))
        }));
        Ok(outcomes)
    }
}
