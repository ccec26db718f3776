//! One event through the door, with the word of the room's policy server, and durable.

use comity_protocol::event::Signed;

use super::{Change, Placed, Transaction};
use crate::{
    door::{Arrival, Outcome, Refusal, Way},
    error::RoomError,
    tables::Verdict,
};

/// Policy servers asked about one event, one after the other.
const ASKED: usize = 3;

impl Change {
    /// Lets an event through the door that is to be part of the room, ours or one that another server hands over, and waits
    /// until it is durable. Where the room's policy server hasn't given its word on it, the room is given back, the
    /// server asked, and the event comes again.
    ///
    /// Answers its place, unless it had that before.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`], [`RoomError::Invalid`], [`RoomError::NotRecommended`]; nothing is stored then.
    pub(crate) async fn take_in(
        self,
        mut event: Signed,
        txn: Option<&Transaction>,
    ) -> Result<Option<Placed>, RoomError> {
        const FORBIDDEN: RoomError = RoomError::Forbidden("the room's rules forbid the event");
        let (rooms, room_id) = (self.rooms.clone(), self.room_id()?.to_owned());
        let mut change = self;
        // Again if the room has taken another policy server meanwhile.
        for asked in 0..=ASKED {
            let arrival = Arrival {
                event: event.clone(),
                way: Way::Handshake,
            };
            let policy = match Box::pin(change.judge(arrival, txn, false)).await? {
                Outcome::Settled(Verdict::Accepted) => {
                    let placed = change.placed.last().cloned();
                    if let Some(placed) = &placed {
                        change.is_done(txn, placed)?;
                    }
                    change.commit().await?;
                    return Ok(placed);
                }
                Outcome::Unasked(policy) if asked < ASKED => policy,
                Outcome::Unasked(_) => break,
                Outcome::Settled(_) | Outcome::Refused(Refusal::Forbidden) => {
                    return Err(FORBIDDEN);
                }
                Outcome::Wanted(_) => {
                    return Err(RoomError::Forbidden(
                        "the event follows others that are not known here",
                    ));
                }
                Outcome::Refused(_) => {
                    return Err(RoomError::Invalid("the event is not one of this room"));
                }
            };
            drop(change);
            event = Box::pin(rooms.recommended(&policy, event)).await?;
            change = rooms.change(&room_id).await?;
            if let Some(txn) = txn
                && let Some(done) = change.done(txn).await?
            {
                change.commit().await?;
                return Ok(Some(done));
            }
        }
        Err(FORBIDDEN)
    }
}
