//! What relates to an event, and the threads of a room, as they stand at a position.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use std::collections::BTreeMap;

use comity_protocol::id::{EventId, OwnedRoomId, UserId};
use comity_storage::{Home, Range};

use super::{Found, RoomView, Span};
use crate::{
    error::RoomError,
    live::parse_room_id,
    num::EventNum,
    rooms::Rooms,
    tables::{self, InRoom, Related, Relation, RoomNum, Scope, Thread, ThreadOrder},
};

/// Relations looked at of one event, and of one scope, for what a filter asks of them; the newest.
const LOOKED_AT: usize = 100;

/// Which events are wanted by what relates to them.
#[derive(Debug, Clone, Copy, Default)]
pub struct RelatedBy<'a> {
    /// A relation of one of these types.
    pub rel_types: Option<&'a [String]>,
    /// One that comes from one of these users.
    pub senders: Option<&'a [String]>,
}

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
        let ranges = targets.iter().map(|target| {
            self.placed(span, |key| {
                key.room(self.room).u32(target.0);
            })
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

    /// As [`RoomView::relations`], those of one scope for each event, by number alone. Among them may
    /// be redacted events.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn related(
        &self,
        of: &[(EventNum, Scope<'_>)],
        span: Span,
    ) -> Result<Vec<Vec<((i64, i64), EventNum)>>, RoomError> {
        let ranges = of.iter().map(|(target, scope)| {
            self.placed(span, |key| {
                key.room(self.room).u32(target.0).u64(scope.hash());
            })
        });
        let rows = self.reader.scan_many::<Related>(ranges.collect()).await?;
        let of_one = |rows: Vec<(tables::RoomRelated, comity_storage::Row<tables::Num>)>| {
            rows.into_iter()
                .map(|(key, row)| ((key.seq, key.sub), EventNum(row.value.0)))
                .collect()
        };
        Ok(rows.into_iter().map(of_one).collect())
    }

    /// Of each of these events whether others relate to it as wanted that the user may see. Of each
    /// the newest hundred relations count, of each type the newest hundred where types are wanted.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn are_related(
        &self,
        nums: &[EventNum],
        by: RelatedBy<'_>,
        user: &UserId,
    ) -> Result<Vec<bool>, RoomError> {
        let span = Span::latest(LOOKED_AT);
        let wanted = |sender: &str| {
            by.senders
                .is_none_or(|senders| senders.iter().any(|wanted| wanted == sender))
        };
        let mut sources: BTreeMap<EventNum, Vec<usize>> = BTreeMap::new();
        if let Some(types) = by.rel_types {
            let scopes: Vec<(EventNum, Scope<'_>)> = nums
                .iter()
                .flat_map(|num| types.iter().map(|kind| (*num, Scope::Type(kind))))
                .collect();
            let rows = self.related(&scopes, span).await?;
            for (at, (_, num)) in rows
                .into_iter()
                .enumerate()
                .flat_map(|(at, rows)| rows.into_iter().map(move |row| (at, row)))
            {
                let target = at.checked_div(types.len()).unwrap_or_default();
                sources.entry(num).or_default().push(target);
            }
        } else {
            let rows = self.relations(nums, span).await?;
            for (at, relations) in rows.into_iter().enumerate() {
                for (_, relation) in relations {
                    let num = EventNum(relation.num);
                    if wanted(&relation.sender) {
                        sources.entry(num).or_default().push(at);
                    }
                }
            }
        }
        let found = self
            .load(&sources.keys().copied().collect::<Vec<_>>())
            .await?
            .into_iter()
            .filter(|found| found.status.redacted_by.is_none())
            .filter(|found| wanted(found.event.sender().as_str()))
            .collect::<Vec<Found>>();
        let mut related = vec![false; nums.len()];
        for found in self.only_visible(found, user).await? {
            for at in sources.get(&found.num).into_iter().flatten() {
                if let Some(related) = related.get_mut(*at) {
                    *related = true;
                }
            }
        }
        Ok(related)
    }

    /// Threads of the room by the number of their root, those written in last first; of those whose
    /// latest event has a sequence number below `before`.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn threads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<(EventNum, Thread)>, RoomError> {
        let end = self.head.seq.saturating_add(1);
        let before = before.map_or(end, |before| before.min(end));
        let range = Range::of(Home::Room(self.room), |key| {
            key.room(self.room);
        })
        .until(|key| {
            key.i64(before);
        });
        let order = self
            .reader
            .scan::<ThreadOrder>(range.reverse().limit(limit))
            .await?;
        let roots: Vec<RoomNum> = order
            .iter()
            .map(|(_, row)| RoomNum {
                room: self.room,
                num: row.value.0,
            })
            .collect();
        let rows = self.reader.get_many::<tables::Threads>(&roots).await?;
        let threads = roots.iter().zip(rows);
        Ok(threads
            .filter_map(|(root, row)| Some((EventNum(root.num), row?.value)))
            .collect())
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
