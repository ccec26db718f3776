//! Joins of ours into rooms that are ours already, made part of the room by another server: because nobody
//! here could let the user in, or could tell whether they may.
//!
//! Such a join follows what that server has, which may be more than has come here yet. So it is received as
//! news are, and what it rests on is searched for.

use std::sync::Arc;

use comity_protocol::{
    event::Signed,
    id::{RoomId, ServerName},
};
use comity_rooms::{Arrival, Outcome, RoomError, Rooms, Way, tables::Verdict};

use crate::{
    missing::{Fetcher, Search},
    policy::Words,
};

impl Fetcher {
    /// Brings a join that a server took in to the room, with what it rests on and isn't here. Whether it
    /// is part of the room here too.
    ///
    /// # Errors
    /// The rooms'; that what it rests on can't be had is none.
    pub async fn bring_join(
        &self,
        rooms: &Rooms,
        room_id: &RoomId,
        server: &ServerName,
        join: Signed,
    ) -> Result<bool, RoomError> {
        let arrival = || Arrival {
            event: join.clone(),
            way: Way::New,
        };
        let words = Arc::<Words>::default();
        let came = self.bring(rooms, room_id, vec![arrival()], &words, None);
        let mut outcomes = came.await?;
        if let Some((_, Outcome::Wanted(wanted))) = outcomes.pop() {
            let view = rooms.view(room_id).await?;
            let search = Search::new(self, view, server, &join).await?;
            // Upon a state that lacks what can't be checked yet it would be another join than the others'.
            let search = search.patient(true, words.clone());
            Box::pin(search.complete(join.clone(), wanted)).await?;
        }
        let came = self.bring(rooms, room_id, vec![arrival()], &words, None);
        outcomes = came.await?;
        let outcome = outcomes.pop().map(|(_, outcome)| outcome);
        Ok(outcome == Some(Outcome::Settled(Verdict::Accepted)))
    }
}
