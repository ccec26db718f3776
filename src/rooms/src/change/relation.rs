//! Relations and threads: found from the event related to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use comity_protocol::event::Event;
use comity_storage::{Home, Range};
use serde::Deserialize;

use super::Change;
use crate::{
    error::RoomError,
    num::EventNum,
    tables::{self, Relation, RoomNum, RoomPlace, RoomRelation, RoomText, Status, Tally, Thread},
};

/// Relations to an event looked through for an annotation's like at the most, the newest first.
const ANNOTATIONS: usize = 1_000;

/// What an event says of another.
pub(super) struct Relates {
    target: EventNum,
    rel_type: String,
    key: Option<String>,
    /// The root of the thread that the event is part of.
    pub thread: Option<u32>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<RelatesTo>,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: Option<String>,
    event_id: Option<String>,
    key: Option<String>,
}

impl Change {
    /// The relation that an event forms, if it is well-formed. A state event forms none.
    pub(super) async fn relation_of(
        &mut self,
        event: &Event,
    ) -> Result<Option<Relates>, RoomError> {
        let Some((rel_type, event_id, key)) = relates_to(event) else {
            return Ok(None);
        };
        let target = self.name(&event_id).await?;
        let thread = if rel_type == "m.thread" {
            Some(target.0)
        } else {
            self.thread_of(target).await?
        };
        Ok(Some(Relates {
            target,
            rel_type,
            key,
            thread,
        }))
    }

    /// Refuses an annotation that its sender has made before.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations>
    pub(super) async fn check_annotation(&self, event: &Event) -> Result<(), RoomError> {
        let Some((rel_type, target, key)) = relates_to(event) else {
            return Ok(());
        };
        if rel_type != "m.annotation" {
            return Ok(());
        }
        let live = self.live()?;
        let name = RoomText {
            room: live.room,
            name: target,
        };
        let Some(target) = live.reader().get::<tables::EventNums>(&name).await? else {
            return Ok(());
        };
        let range = Range::of(Home::Room(live.room), |to| {
            to.room(live.room).u32(target.value.0);
        });
        let rows = live
            .reader()
            .scan::<tables::Relations>(range.reverse().limit(ANNOTATIONS))
            .await?;
        let same = |other: &Relation| {
            other.rel_type == rel_type
                && other.event_type == event.event_type()
                && other.sender == event.sender().as_str()
                && other.key == key
        };
        if rows.iter().any(|(_, row)| same(&row.value)) {
            return Err(RoomError::DuplicateAnnotation);
        }
        Ok(())
    }

    /// The thread that an event of the timeline is part of.
    async fn thread_of(&self, num: EventNum) -> Result<Option<u32>, RoomError> {
        let live = self.live()?;
        let reader = live.reader();
        let status = reader
            .get::<tables::Statuses>(&RoomNum {
                room: live.room,
                num: num.0,
            })
            .await?;
        let Some((seq, sub)) = status.and_then(|row| row.value.place) else {
            return Ok(None);
        };
        let entry = reader
            .get::<tables::Timeline>(&RoomPlace {
                room: live.room,
                seq,
                sub,
            })
            .await?;
        Ok(entry.and_then(|row| row.value.thread))
    }

    /// Writes the relation's row, and the thread's if it continues one.
    pub(super) async fn put_relation(
        &mut self,
        num: EventNum,
        event: &Event,
        relates: Relates,
        tally: Tally,
    ) -> Result<(), RoomError> {
        let live = self.live()?;
        let (room, seq) = (live.room, live.head.seq);
        let counts = relates.thread.filter(|_| tally != Tally::default());
        let continues = (relates.rel_type == "m.thread").then_some(relates.target.0);
        if let Some(root) = continues.or(counts) {
            let at = RoomNum { room, num: root };
            let row = live.reader().get::<tables::Threads>(&at).await?;
            let mut thread = row.map_or_else(empty_thread, |row| row.value);
            thread.notifying = thread.notifying.plus(tally);
            if continues.is_some() {
                thread.count += 1;
                thread.latest = num.0;
                thread.latest_seq = seq;
                let sender = event.sender().to_string();
                if let Err(at) = thread.participants.binary_search(&sender) {
                    thread.participants.insert(at, sender);
                }
            }
            self.batch.put::<tables::Threads>(&at, &thread);
        }
        let relation = Relation {
            num: num.0,
            rel_type: relates.rel_type,
            event_type: event.event_type().to_owned(),
            sender: event.sender().to_string(),
            key: relates.key,
        };
        let key = RoomRelation {
            room,
            target: relates.target.0,
            seq,
            sub: 0,
        };
        self.batch.put::<tables::Relations>(&key, &relation);
        Ok(())
    }

    /// Takes back the relation of an event that is being redacted, so that it is aggregated no more.
    pub(super) async fn unrelate(
        &mut self,
        event: &Event,
        status: &Status,
    ) -> Result<(), RoomError> {
        let Some((seq, sub)) = status.place else {
            return Ok(());
        };
        let Some(relates) = self.relation_of(event).await? else {
            return Ok(());
        };
        let live = self.live()?;
        let (room, target) = (live.room, relates.target.0);
        self.batch.delete::<tables::Relations>(&RoomRelation {
            room,
            target,
            seq,
            sub,
        });
        if relates.rel_type == "m.thread" {
            self.shorten_thread(target, (seq, sub)).await?;
        }
        Ok(())
    }

    /// A thread without the event at `gone`.
    async fn shorten_thread(&mut self, root: u32, gone: (i64, i64)) -> Result<(), RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let at = RoomNum { room, num: root };
        let Some(row) = reader.get::<tables::Threads>(&at).await? else {
            return Ok(());
        };
        let mut thread = row.value;
        thread.count = thread.count.saturating_sub(1);
        if thread.count == 0 {
            self.batch.delete::<tables::Threads>(&at);
            return Ok(());
        }
        if thread.latest_seq == gone.0 {
            let range = Range::of(Home::Room(room), |key| {
                key.room(room).u32(root);
            });
            let relations = reader
                .scan::<tables::Relations>(range.reverse().limit(1_000))
                .await?;
            let latest = relations
                .into_iter()
                .find(|(key, row)| row.value.rel_type == "m.thread" && (key.seq, key.sub) != gone);
            if let Some((key, row)) = latest {
                thread.latest = row.value.num;
                thread.latest_seq = key.seq;
            }
        }
        self.batch.put::<tables::Threads>(&at, &thread);
        Ok(())
    }
}

/// What a message event says it relates to: how, to which event, with which key.
fn relates_to(event: &Event) -> Option<(String, String, Option<String>)> {
    if event.state_key().is_some() || !event.content().get().contains("m.relates_to") {
        return None;
    }
    let relates = event.content_as::<Content>().ok()?.relates_to?;
    let event_id = relates.event_id?;
    comity_protocol::id::event_id(&event_id)?;
    Some((relates.rel_type?, event_id, relates.key))
}

fn empty_thread() -> Thread {
    Thread {
        count: 0,
        latest: 0,
        latest_seq: 0,
        notifying: tables::Tally::default(),
        participants: Vec::new(),
    }
}
