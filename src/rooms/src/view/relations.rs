//! What relates to an event, and the threads of a room, as they stand at a position.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use comity_protocol::id::{EventId, OwnedRoomId};
use comity_storage::{Home, Range};

use super::{RoomView, Span};
use crate::{
    error::RoomError,
    live::parse_room_id,
    num::EventNum,
    rooms::Rooms,
    tables::{self, InRoom, Relation, RoomNum, Thread},
};

/// Threads of one room looked through at the most.
const THREADS: usize = 10_000;

impl RoomView {
    /// The relations to each of these events within a stretch of the room's order, in the order
    /// asked, each with its place; `span.limit` holds for each event. A redacted relation is gone.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn relations(
        &self,
        targets: &[EventNum],
        span: Span,
    ) -> Result<Vec<Vec<((i64, i64), Relation)>>, RoomError> {
        let end = (self.head.seq + 1, i64::MIN);
        let before = span.before.map_or(end, |before| before.min(end));
        let ranges = targets.iter().map(|target| {
            let mut range = Range::of(Home::Room(self.room), |key| {
                key.room(self.room).u32(target.0);
            })
            .until(|key| {
                key.i64(before.0).i64(before.1);
            })
            .limit(span.limit);
            if let Some((seq, sub)) = span.after {
                range = range.from(|key| {
                    key.i64(seq).i64(sub.saturating_add(1));
                });
            }
            if span.backwards {
                range = range.reverse();
            }
            range
        });
        let rows = self
            .reader
            .scan_many::<tables::Relations>(ranges.collect())
            .await?;
        let of_one = |rows: Vec<(tables::RoomRelation, comity_storage::Row<Relation>)>| {
            rows.into_iter()
                .map(|(key, row)| ((key.seq, key.sub), row.value))
                .collect()
        };
        Ok(rows.into_iter().map(of_one).collect())
    }

    /// The room's threads by the number of their root, those written in last first.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn threads(&self) -> Result<Vec<(EventNum, Thread)>, RoomError> {
        let range = Range::of(Home::Room(self.room), |key| {
            key.room(self.room);
        });
        let rows = self
            .reader
            .scan::<tables::Threads>(range.limit(THREADS))
            .await?;
        let mut threads: Vec<(EventNum, Thread)> = rows
            .into_iter()
            .map(|(RoomNum { num, .. }, row)| (EventNum(num), row.value))
            .collect();
        threads
            .sort_unstable_by_key(|(root, thread)| std::cmp::Reverse((thread.latest_seq, root.0)));
        Ok(threads)
    }
}

impl Rooms {
    /// The rooms that know an event of this id: ids are unique within a room only.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn rooms_with_event(
        &self,
        event_id: &EventId,
    ) -> Result<Vec<OwnedRoomId>, RoomError> {
        let reader = self.0.tenant.reader();
        let range = Range::everywhere(|key| {
            key.str(event_id.as_str());
        });
        let rows = reader.scan::<tables::IdRooms>(range).await?;
        let rooms: Vec<InRoom> = rows
            .into_iter()
            .map(|(key, _)| InRoom { room: key.room })
            .collect();
        let infos = reader.get_many::<tables::Infos>(&rooms).await?;
        infos
            .into_iter()
            .flatten()
            .map(|info| parse_room_id(&info.value.room_id))
            .collect()
    }
}
