//! Events of the room by number, with what was found of them.

use comity_protocol::event::Event;
use comity_storage::Row;

use super::Change;
use crate::{
    error::RoomError,
    event::read_id,
    live::{Judged, read_root},
    num::EventNum,
    state::AnyRoot,
    tables::{self, RoomNum, RoomText, Status, Verdict},
};

/// An event of the room and where it stands in its graph.
#[derive(Clone)]
pub(crate) struct Known {
    pub num: EventNum,
    pub event: Event,
    pub prev: Vec<EventNum>,
    pub auth: Vec<EventNum>,
    pub verdict: Verdict,
    /// The state before it; none of an outlier.
    pub root_before: Option<AnyRoot>,
}

impl Known {
    pub fn judged(&self) -> Judged<'_> {
        Judged {
            num: self.num,
            event: &self.event,
            prev: &self.prev,
            auth: &self.auth,
        }
    }
}

impl Known {
    /// How an event of a change in progress stands, beside its row if it has one.
    pub(super) fn status(&self, row: Option<Row<Status>>) -> Row<Status> {
        let (pos, status) = match row {
            Some(row) => (row.pos, Some(row.value)),
            None => (0, None),
        };
        let value = Status {
            verdict: self.verdict,
            root_before: self.root_before.map_or_else(Vec::new, |root| root.encode()),
            place: status.as_ref().and_then(|status| status.place),
            redacted_by: status.as_ref().and_then(|status| status.redacted_by),
            sent: status.and_then(|status| status.sent),
        };
        Row { pos, value }
    }
}

/// An id that the room has heard of.
#[derive(Clone)]
pub(crate) struct Heard {
    pub num: EventNum,
    pub status: Row<Status>,
}

impl Heard {
    /// The state before it, if it has its place in the graph.
    pub fn root_before(&self) -> Result<Option<AnyRoot>, RoomError> {
        root_of(&self.status.value)
    }

    pub fn verdict(&self) -> Verdict {
        self.status.value.verdict
    }
}

fn root_of(status: &Status) -> Result<Option<AnyRoot>, RoomError> {
    if status.root_before.is_empty() {
        return Ok(None);
    }
    read_root(&status.root_before).map(Some)
}

impl Change {
    /// An event's status as it counts now: a partial state that nobody will complete says nothing.
    fn counting(&self, num: EventNum, mut status: Status) -> Result<Status, RoomError> {
        let is_partial = root_of(&status)?.is_some_and(AnyRoot::is_partial);
        if is_partial && !self.live()?.provisional.contains(&num) {
            status.root_before = Vec::new();
        }
        Ok(status)
    }

    /// What the room has heard of these events, in their order.
    pub(crate) async fn heard(&self, ids: &[String]) -> Result<Vec<Option<Heard>>, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let keys: Vec<RoomText> = ids
            .iter()
            .map(|name| RoomText {
                room,
                name: name.clone(),
            })
            .collect();
        let rows = reader.get_many::<tables::EventNums>(&keys).await?;
        let nums: Vec<Option<EventNum>> = ids
            .iter()
            .zip(rows)
            .map(|(id, row)| {
                let named = self.names.get(id).copied();
                named.or_else(|| row.map(|row| EventNum(row.value.0)))
            })
            .collect();
        let at = |num: &EventNum| RoomNum { room, num: num.0 };
        let found: Vec<RoomNum> = nums.iter().flatten().map(at).collect();
        let mut statuses = reader
            .get_many::<tables::Statuses>(&found)
            .await?
            .into_iter();
        let mut heard = Vec::with_capacity(nums.len());
        for num in nums {
            let Some(num) = num else {
                heard.push(None);
                continue;
            };
            let row = statuses.next().flatten();
            let in_hand = self.in_hand.get(&num);
            heard.push(match (row, in_hand) {
                (row, Some(known)) => Some(Heard {
                    num,
                    status: known.status(row),
                }),
                (Some(Row { pos, value }), None) => {
                    let value = self.counting(num, value)?;
                    Some(Heard {
                        num,
                        status: Row { pos, value },
                    })
                }
                // Named in this change.
                (None, None) if self.names.values().any(|named| *named == num) => None,
                (None, None) => return Err(damaged("has a number and no status")),
            });
        }
        Ok(heard)
    }

    /// These events, in their order: those of this change, then the stored ones.
    pub(crate) async fn known(&self, nums: &[EventNum]) -> Result<Vec<Known>, RoomError> {
        let live = self.live()?;
        let (room, reader, version) = (live.room, live.reader(), live.info.version);
        let keys: Vec<RoomNum> = nums
            .iter()
            .filter(|num| !self.in_hand.contains_key(num))
            .map(|num| RoomNum { room, num: num.0 })
            .collect();
        let (headers, bodies, statuses) = futures_util::try_join!(
            reader.get_many::<tables::Headers>(&keys),
            reader.get_many::<tables::Bodies>(&keys),
            reader.get_many::<tables::Statuses>(&keys),
        )?;
        let mut stored = headers.into_iter().zip(bodies).zip(statuses);
        let mut known = Vec::with_capacity(nums.len());
        for num in nums {
            if let Some(in_hand) = self.in_hand.get(num) {
                known.push(in_hand.clone());
                continue;
            }
            let Some(((Some(header), Some(body)), Some(status))) = stored.next() else {
                return Err(damaged("lacks a header, a body or a status"));
            };
            let (header, status) = (header.value, self.counting(*num, status.value)?);
            let numbers = |nums: &[u32]| nums.iter().copied().map(EventNum).collect();
            known.push(Known {
                num: *num,
                event: Event::from_stored(version, read_id(&header.event_id)?, body.value.json)?,
                prev: numbers(&header.prev),
                auth: numbers(&header.auth),
                verdict: status.verdict,
                root_before: root_of(&status)?,
            });
        }
        Ok(known)
    }
}

fn damaged(what: &str) -> RoomError {
    RoomError::Damaged(format!("an event {what}"))
}
