//! What one server is to be told, in memory: plain data, no clock, no network.
//!
//! In good times events wait in the order in which they were dispatched. A server that is *behind* has
//! the newest event of each room instead, which is also what its rows say: from there it finds the others. Not those from
//! before we entered the room anew, which what we said since doesn't follow; of those the last of each stay is owed too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use comity_protocol::id::{OwnedRoomId, RoomId};
use comity_storage::{Lane, Pos, RoomKey};
use serde_json::value::RawValue;

use crate::{
    edus::Edus,
    lists::{DueLists, Lists},
    tables::OwedEvents,
};

/// Events of a transaction, and pieces of ephemeral data, at most.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>
pub(crate) const PDUS: usize = 50;
pub(crate) const EDUS: usize = 100;
/// Events kept in order for a server; one with more is behind.
const ORDERED: usize = 500;
/// Earlier stays in a room of which the last event is owed. Of more, what was said in the first ones is lost to that server.
const STAYS: usize = 20;

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub room_id: OwnedRoomId,
    pub num: u32,
    /// Where its record stands.
    pub lane: Lane,
    pub pos: Pos,
    /// Nothing that comes later follows it: we have entered the room anew since.
    pub is_last: bool,
}

/// What goes into a transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Events by room and number.
    pub events: Vec<(OwnedRoomId, u32)>,
    /// Whether messages to devices are to be read from the store.
    pub messages: bool,
    /// Whether there are more of them than one batch takes.
    pub more: bool,
    pub edus: Edus,
    pub lists: DueLists,
    /// Whether the events are what is owed, rather than the next in order.
    behind: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    ordered: VecDeque<Due>,
    owed: BTreeMap<RoomKey, OwedEvents>,
    behind: bool,
    /// Rooms whose row says something else than `owed`.
    changed: BTreeSet<RoomKey>,
    pub edus: Edus,
    pub lists: Lists,
    /// Messages to devices wait in the store.
    messages: bool,
    running: bool,
}

impl Queue {
    /// An event for this server.
    pub fn event(&mut self, due: Due) {
        if !self.behind && self.ordered.len() < ORDERED {
            self.ordered.push_back(due);
            return;
        }
        self.fall_behind();
        self.owe(&due);
    }

    /// From now on only the newest event of each room is owed.
    pub fn fall_behind(&mut self) {
        self.behind = true;
        self.lists.fall_behind();
        for due in std::mem::take(&mut self.ordered) {
            self.owe(&due);
        }
    }

    fn owe(&mut self, due: &Due) {
        let room = RoomKey::of(due.room_id.as_str());
        let owed = self.owed.entry(room).or_insert_with(|| OwedEvents {
            room_id: due.room_id.to_string(),
            ..OwedEvents::default()
        });
        // After a crash it may be told again what its rows say.
        if !owed.ends.contains(&due.num) {
            owed.newest = Some(due.num);
        }
        if due.is_last {
            owed.end();
        }
        self.changed.insert(room);
    }

    /// We have entered a room anew: what comes doesn't lead to what was said there before.
    pub fn entered(&mut self, room_id: &RoomId) {
        let mut latest = self.ordered.iter_mut().rev();
        if let Some(due) = latest.find(|due| *due.room_id == *room_id) {
            due.is_last = true;
        }
        let room = RoomKey::of(room_id.as_str());
        if let Some(owed) = self.owed.get_mut(&room) {
            owed.end();
            self.changed.insert(room);
        }
    }

    /// There are messages to devices in the store.
    pub fn messages(&mut self) {
        self.messages = true;
    }

    /// A row of an earlier run.
    pub fn recall(&mut self, room: RoomKey, owed: OwedEvents) {
        self.behind = true;
        self.owed.insert(room, owed);
    }

    /// Whether a worker is to be started; then it is counted as running.
    pub fn begins(&mut self) -> bool {
        let begins = !self.running && self.has_work();
        self.running |= begins;
        begins
    }

    /// Whether the worker may end; then it is counted as ended.
    pub fn ends(&mut self) -> bool {
        self.running = self.has_work();
        !self.running
    }

    fn has_work(&self) -> bool {
        !self.ordered.is_empty()
            || !self.owed.is_empty()
            || !self.edus.is_empty()
            || !self.lists.is_empty()
            || self.messages
    }

    /// Whether it says nothing that a new one wouldn't.
    pub fn is_idle(&self) -> bool {
        !self.running && !self.has_work() && self.changed.is_empty() && !self.lists.has_changes()
    }

    /// What goes next, but for ephemeral data. Events and lists stay until [`Queue::done`].
    pub fn next(&mut self) -> Batch {
        let events: Vec<_> = if self.behind {
            let owed = self.owed.values().filter_map(|owed| {
                let room_id = OwnedRoomId::try_from(owed.room_id.as_str()).ok()?;
                let nums = owed.ends.iter().chain(&owed.newest);
                Some(nums.map(move |num| (room_id.clone(), *num)))
            });
            owed.flatten().take(PDUS).collect()
        } else {
            let ordered = self.ordered.iter().take(PDUS);
            ordered.map(|due| (due.room_id.clone(), due.num)).collect()
        };
        // Those that come while these are read are told anew. With events they are read even if none was told of: the log of the lane
        // that has them may be behind the one that has the event which they open.
        let messages = std::mem::take(&mut self.messages) || !events.is_empty();
        Batch {
            events,
            messages,
            more: false,
            edus: Edus::default(),
            lists: self.lists.next(),
            behind: self.behind,
        }
    }

    /// Fills what room the messages to devices leave in a batch.
    pub fn fill(&mut self, batch: &mut Batch, left: usize) {
        if left > 0 {
            batch.edus = self.edus.take(left);
        }
    }

    /// The batch was taken, or refused for good.
    pub fn done(&mut self, batch: &Batch) {
        self.lists.done(&batch.lists);
        self.messages |= batch.more;
        if batch.behind {
            for (room_id, num) in &batch.events {
                let room = RoomKey::of(room_id.as_str());
                let Some(owed) = self.owed.get_mut(&room) else {
                    continue;
                };
                owed.ends.retain(|end| end != num);
                // A newer event may have come since.
                if owed.newest == Some(*num) {
                    owed.newest = None;
                }
                if owed.ends.is_empty() && owed.newest.is_none() {
                    self.owed.remove(&room);
                }
                self.changed.insert(room);
            }
        } else if !self.behind {
            self.ordered
                .drain(..batch.events.len().min(self.ordered.len()));
        }
        if self.owed.is_empty() {
            self.behind = false;
        }
    }

    /// The batch wasn't taken. Receipts will go with the next; typing and presence are old by then.
    pub fn failed(&mut self, batch: Batch) {
        self.messages |= batch.messages;
        self.edus.put_back(batch.edus);
    }

    /// The rows that are to change: what is owed now, or nothing any more.
    pub fn changes(&mut self) -> Vec<(RoomKey, Option<OwedEvents>)> {
        let changed = std::mem::take(&mut self.changed);
        let row = |room: RoomKey| (room, self.owed.get(&room).cloned());
        changed.into_iter().map(row).collect()
    }

    /// These rows couldn't be written.
    pub fn unchanged(&mut self, rooms: impl IntoIterator<Item = RoomKey>) {
        self.changed.extend(rooms);
    }

    /// The first position of a lane that something in order comes from.
    pub fn first_of(&self, lane: Lane) -> Option<Pos> {
        let of_lane = self.ordered.iter().filter(|due| due.lane == lane);
        let first = of_lane.map(|due| due.pos).min();
        first.into_iter().chain(self.lists.first_of(lane)).min()
    }
}

impl OwedEvents {
    /// A stay in the room has ended with the newest of these.
    fn end(&mut self) {
        self.ends.extend(self.newest.take());
        let excess = self.ends.len().saturating_sub(STAYS);
        self.ends.drain(..excess);
    }
}

/// An event as it goes onto the wire.
pub(crate) fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use comity_protocol::id::{OwnedUserId, RoomId};

    use super::*;

    fn due(room: &str, num: u32) -> Due {
        Due {
            room_id: RoomId::parse(room).unwrap().to_owned(),
            num,
            lane: Lane(0),
            pos: u64::from(num),
            is_last: false,
        }
    }

    fn nums(batch: &Batch) -> Vec<u32> {
        batch.events.iter().map(|(_, num)| *num).collect()
    }

    #[test]
    fn events_go_in_order_and_hold_the_cursor_until_they_are_taken() {
        let mut queue = Queue::default();
        for num in 1..=120 {
            queue.event(due("!a:x", num));
        }
        assert!(queue.begins() && !queue.begins());
        let batch = queue.next();
        assert_eq!(nums(&batch), (1..=50).collect::<Vec<_>>());
        assert_eq!(queue.first_of(Lane(0)), Some(1));
        queue.failed(batch);
        let batch = queue.next();
        assert_eq!(nums(&batch), (1..=50).collect::<Vec<_>>());
        queue.done(&batch);
        assert_eq!(queue.first_of(Lane(0)), Some(51));
        assert_eq!(queue.first_of(Lane(1)), None);
        assert!(queue.changes().is_empty(), "no rows in good times");
        for expected in [51, 101] {
            let batch = queue.next();
            assert_eq!(nums(&batch).first(), Some(&expected));
            assert!(!queue.ends());
            queue.done(&batch);
        }
        assert!(queue.ends());
    }

    /// Architecture, Messages to devices: a message goes no later than the event it opens, whichever of their lanes' logs is read first.
    #[test]
    fn with_events_go_the_messages_that_are_there() {
        let mut queue = Queue::default();
        queue.event(due("!a:x", 1));
        let batch = queue.next();
        assert!(batch.messages);
        queue.done(&batch);
        queue.lists.recall(OwnedUserId::try_from("@u:x").unwrap());
        assert!(!queue.next().messages, "only with events");
        queue.messages();
        assert!(queue.next().messages);
    }

    #[test]
    fn a_server_that_is_behind_is_owed_the_newest_of_each_room() {
        let mut queue = Queue::default();
        for num in 1..=4 {
            queue.event(due(if num % 2 == 0 { "!even:x" } else { "!odd:x" }, num));
        }
        queue.fall_behind();
        assert_eq!(queue.first_of(Lane(0)), None);
        let batch = queue.next();
        let mut sent = nums(&batch);
        sent.sort_unstable();
        assert_eq!(sent, [3, 4]);
        assert_eq!(queue.changes().len(), 2);
        // One room has a newer event before the answer: it stays owed, the other doesn't.
        queue.event(due("!odd:x", 5));
        queue.done(&batch);
        let changes = queue.changes();
        let owed: Vec<_> = changes
            .iter()
            .filter_map(|(_, owed)| owed.as_ref()?.newest)
            .collect();
        assert_eq!((changes.len(), owed), (2, vec![5]));
        let batch = queue.next();
        assert_eq!(nums(&batch), [5]);
        queue.done(&batch);
        // In order again.
        queue.event(due("!odd:x", 6));
        assert_eq!(queue.first_of(Lane(0)), Some(6));
    }

    /// Architecture, Telling other servers: a server that is behind finds what we said before we entered a room anew, whether that
    /// had been dispatched before or after it fell behind, and what a replay of the log adds is a repetition at most.
    #[test]
    fn the_last_event_of_each_stay_is_owed() {
        let room: &RoomId = "!a:x".try_into().unwrap();
        let mut queue = Queue::default();
        for num in 1..=2 {
            queue.event(due("!a:x", num));
            queue.event(due("!b:x", num));
        }
        queue.entered(room);
        queue.event(due("!a:x", 3));
        queue.fall_behind();
        queue.event(due("!a:x", 4));
        queue.entered(room);
        queue.entered(room);
        queue.event(due("!a:x", 5));
        let row = |queue: &mut Queue| {
            let rows = queue.changes();
            let row = rows
                .into_iter()
                .find(|(key, _)| *key == RoomKey::of("!a:x"));
            row.unwrap().1
        };
        let owed = row(&mut queue).unwrap();
        assert_eq!((&*owed.ends, owed.newest), (&[2, 4][..], Some(5)));
        let batch = queue.next();
        assert_eq!(batch.events.len(), 4);
        queue.event(due("!a:x", 6));
        queue.done(&batch);
        let left = row(&mut queue).unwrap();
        assert_eq!((&*left.ends, left.newest), (&[][..], Some(6)));

        let mut next_run = Queue::default();
        next_run.recall(RoomKey::of("!a:x"), owed);
        for num in 1..=2 {
            next_run.event(due("!a:x", num));
        }
        next_run.entered(room);
        for num in 3..=4 {
            next_run.event(due("!a:x", num));
        }
        next_run.entered(room);
        next_run.event(due("!a:x", 5));
        let told = nums(&next_run.next());
        assert!([2, 4, 5].iter().all(|num| told.contains(num)), "{told:?}");
    }

    /// Law 11: of so many stays the last event is owed and no more, the latest.
    #[test]
    fn earlier_stays_are_bounded() {
        let mut queue = Queue::default();
        let stays = u32::try_from(STAYS).unwrap() + 5;
        for num in 1..=stays {
            queue.event(due("!a:x", num));
            if num == 3 {
                queue.fall_behind();
            }
            queue.entered("!a:x".try_into().unwrap());
        }
        queue.event(due("!a:x", stays + 1));
        let owed = queue.changes().pop().unwrap().1.unwrap();
        assert_eq!(owed.ends, (6..=stays).collect::<Vec<_>>());
        assert_eq!(owed.newest, Some(stays + 1));
    }

    #[test]
    fn a_queue_is_idle_when_its_rows_are_written_too() {
        let mut queue = Queue::default();
        assert!(queue.is_idle());
        queue.event(due("!a:x", 1));
        queue.fall_behind();
        assert!(!queue.is_idle() && queue.begins());
        let batch = queue.next();
        queue.done(&batch);
        assert!(queue.ends() && !queue.is_idle());
        assert_eq!(queue.changes().len(), 1);
        assert!(queue.is_idle());
    }

    #[test]
    fn too_many_events_are_a_debt() {
        let mut queue = Queue::default();
        for num in 1..=501 {
            queue.event(due("!a:x", num));
        }
        assert_eq!(nums(&queue.next()), [501]);
    }
}
