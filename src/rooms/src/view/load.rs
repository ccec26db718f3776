//! Events by number or id, many in one go.

use comity_protocol::{event::Event, id::EventId};

use super::{Found, RoomView};
use crate::{
    error::RoomError,
    event::read_id,
    num::EventNum,
    tables::{self, RoomNum, RoomText, Verdict},
};

impl RoomView {
    /// The events with these numbers, in order; an event without a body is left out.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn load(&self, nums: &[EventNum]) -> Result<Vec<Found>, RoomError> {
        let mut known = self.memo.events(nums);
        let missing: Vec<EventNum> = nums
            .iter()
            .filter(|num| !known.contains_key(num))
            .copied()
            .collect();
        let read = self.read(&missing).await?;
        self.memo.keep_events(&read);
        if known.is_empty() {
            return Ok(read);
        }
        known.extend(read.into_iter().map(|found| (found.num, found)));
        Ok(nums
            .iter()
            .filter_map(|num| known.get(num).cloned())
            .collect())
    }

    async fn read(&self, nums: &[EventNum]) -> Result<Vec<Found>, RoomError> {
        if nums.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<RoomNum> = nums
            .iter()
            .map(|num| RoomNum {
                room: self.room,
                num: num.0,
            })
            .collect();
        let (headers, bodies, statuses) = futures_util::try_join!(
            self.reader.get_many::<tables::Headers>(&keys),
            self.reader.get_many::<tables::Bodies>(&keys),
            self.reader.get_many::<tables::Statuses>(&keys),
        )?;
        let mut found = Vec::with_capacity(nums.len());
        for (((num, header), body), status) in nums.iter().zip(headers).zip(bodies).zip(statuses) {
            let (Some(header), Some(body), Some(status)) = (header, body, status) else {
                continue;
            };
            let event = Event::from_stored(
                self.version,
                read_id(&header.value.event_id)?,
                body.value.json,
            )?;
            found.push(Found {
                num: *num,
                event,
                status: status.value,
            });
        }
        Ok(found)
    }

    /// The number of an event, if its name is known here.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn num(&self, event_id: &EventId) -> Result<Option<EventNum>, RoomError> {
        let key = RoomText {
            room: self.room,
            name: event_id.to_string(),
        };
        Ok(self
            .reader
            .get::<tables::EventNums>(&key)
            .await?
            .map(|row| EventNum(row.value.0)))
    }

    /// An event that is part of the room at this position.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn event(&self, event_id: &EventId) -> Result<Option<Found>, RoomError> {
        let Some(num) = self.num(event_id).await? else {
            return Ok(None);
        };
        let found = self.load(&[num]).await?.pop();
        Ok(found.filter(|found| self.holds(found)))
    }

    /// Whether an event has a place at or before this position.
    pub(crate) fn holds(&self, found: &Found) -> bool {
        let accepted = found.status.verdict == Verdict::Accepted;
        accepted
            && found
                .status
                .place
                .is_some_and(|(seq, _)| seq <= self.head.seq)
    }
}
