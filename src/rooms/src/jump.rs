//! Going to a date, or to an event, that may lie in history which isn't here yet.

use comity_protocol::id::{EventId, OwnedEventId, UserId};

use crate::{error::RoomError, rooms::Rooms, view::RoomView};

/// Runs of history that are fetched for one event.
const MAX_RUNS: usize = 10;

impl Rooms {
    /// The event next to a time, and its time: the earliest at or after it, or backwards the latest at
    /// or before it. Where history is missing other servers are asked too, and the closest is taken.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn jump(
        &self,
        view: &RoomView,
        user: &UserId,
        ts: i64,
        backwards: bool,
    ) -> Result<Option<(OwnedEventId, i64)>, RoomError> {
        let here = view.near(ts, backwards, user).await?.map(|found| {
            let event = found.event;
            (event.event_id().to_owned(), event.origin_server_ts())
        });
        let Ok(elsewhere) = self.elsewhere("") else {
            return Ok(here);
        };
        if view.last_hole(0, end(view)).await?.is_none() {
            return Ok(here);
        }
        let servers = view.other_servers().await?;
        let told = match elsewhere
            .near(view.room_id(), ts, backwards, &servers)
            .await
        {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(room_id = %view.room_id(), %error, "nobody knows of that time");
                None
            }
        };
        let told = told.filter(|(_, at)| if backwards { *at <= ts } else { *at >= ts });
        let distance = |(_, at): &(OwnedEventId, i64)| at.abs_diff(ts);
        Ok(match (here, told) {
            (Some(here), Some(told)) if distance(&told) < distance(&here) => Some(told),
            (Some(here), _) => Some(here),
            (None, told) => told,
        })
    }

    /// The room with an event in its order, if history that other servers have leads to it; else the
    /// room with what was fetched on the way.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn with_event(
        &self,
        mut view: RoomView,
        event_id: &EventId,
    ) -> Result<RoomView, RoomError> {
        for _ in 0..MAX_RUNS {
            if view.event(event_id).await?.is_some() {
                break;
            }
            let Some(seq) = view.last_hole(0, end(&view)).await? else {
                break;
            };
            let before = view.lowest_place(seq).await?;
            let place = (seq, i64::MIN.saturating_add(1));
            view = self.with_history(view, place, usize::MAX).await?;
            if view.lowest_place(seq).await? == before {
                break;
            }
        }
        Ok(view)
    }
}

/// The place after all that the room has.
fn end(view: &RoomView) -> (i64, i64) {
    (view.seq() + 1, i64::MIN)
}
