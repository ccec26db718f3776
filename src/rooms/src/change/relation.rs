//! Relations and threads: found from the event related to.
//!
//! A relation has a row by its place under its target, and one by each scope ([`Scope`]) in which it
//! is asked for, so that no question is in the way of another: ten thousand reactions hide no edit.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use comity_protocol::event::Event;
use comity_storage::{Home, Range, RoomKey};
use serde::Deserialize;

use super::Change;
use crate::{
    counts::plus,
    error::RoomError,
    num::EventNum,
    tables::{
        self, Num, Related, Relation, RoomNum, RoomPlace, RoomRelated, RoomRelation, RoomSeq,
        RoomText, Scope, Status, Tally, Thread,
    },
};

/// How many steps beyond its target a relation is found from: with the first, three.
const REMOVES: usize = 2;
/// Events of one thread looked at in one go for the latest that is left.
const PAGE: usize = 32;

/// What an event says of another.
pub(super) struct Relates {
    target: EventNum,
    rel_type: String,
    key: Option<String>,
    /// The root of the thread that the event is part of.
    pub thread: Option<u32>,
    /// What the target relates to, and what that relates to.
    above: Vec<EventNum>,
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
        let above = self.above(target).await?;
        Ok(Some(Relates {
            target,
            rel_type,
            key,
            thread,
            above,
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
        let scope = Scope::Like {
            rel_type: &rel_type,
            event_type: event.event_type(),
            sender: event.sender().as_str(),
            key: key.as_deref(),
        };
        let range = Range::of(Home::Room(live.room), |to| {
            to.room(live.room).u32(target.value.0).u64(scope.hash());
        });
        let same = live.reader().scan::<Related>(range.limit(1)).await?;
        if !same.is_empty() {
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

    /// What an event relates to, and what that relates to, as far as it is here.
    async fn above(&self, target: EventNum) -> Result<Vec<EventNum>, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let (mut above, mut at) = (Vec::new(), target);
        while above.len() < REMOVES {
            let key = RoomNum { room, num: at.0 };
            if !self.in_hand.contains_key(&at)
                && reader.get::<tables::Headers>(&key).await?.is_none()
            {
                break;
            }
            let Some(known) = self.known(&[at]).await?.pop() else {
                break;
            };
            let Some((_, name, _)) = relates_to(&known.event) else {
                break;
            };
            let key = RoomText { room, name };
            let Some(row) = reader.get::<tables::EventNums>(&key).await? else {
                break;
            };
            at = EventNum(row.value.0);
            if at == target || above.contains(&at) {
                break;
            }
            above.push(at);
        }
        Ok(above)
    }

    /// Whether an event of fetched history is the latest of its thread: it has nothing live yet, whose
    /// place would say, so that times have to.
    async fn is_latest_of(&self, thread: &Thread, event: &Event) -> Result<bool, RoomError> {
        if thread.count == 0 {
            return Ok(true);
        }
        let latest = self.known(&[EventNum(thread.latest)]).await?.pop();
        let is_older =
            |other: &super::Known| other.event.origin_server_ts() < event.origin_server_ts();
        Ok(thread.latest_seq == 0 && latest.is_some_and(|latest| is_older(&latest)))
    }

    /// Writes the relation's rows, and the thread's if it continues one.
    pub(super) async fn put_relation(
        &mut self,
        num: EventNum,
        event: &Event,
        relates: Relates,
        tallies: &[Tally],
        (seq, sub): (i64, i64),
    ) -> Result<(), RoomError> {
        let live = self.live()?;
        let room = live.room;
        let counted = tallies.iter().any(|tally| *tally != Tally::default());
        let counts = relates.thread.filter(|_| counted);
        let continues = (relates.rel_type == "m.thread").then_some(relates.target.0);
        if let Some(root) = continues.or(counts) {
            let at = RoomNum { room, num: root };
            let mut thread = self.thread(root).await?.unwrap_or_else(empty_thread);
            thread.notifying = plus(&thread.notifying, tallies);
            if continues.is_some() {
                if sub == 0 {
                    if thread.count > 0 {
                        let seq = thread.latest_seq;
                        self.batch
                            .delete::<tables::ThreadOrder>(&RoomSeq { room, seq });
                    }
                    self.batch
                        .put::<tables::ThreadOrder>(&RoomSeq { room, seq }, &Num(root));
                    thread.latest = num.0;
                    thread.latest_seq = seq;
                } else if self.is_latest_of(&thread, event).await? {
                    thread.latest = num.0;
                }
                thread.count += 1;
                let sender = event.sender().to_string();
                if let Err(at) = thread.participants.binary_search(&sender) {
                    thread.participants.insert(at, sender);
                }
            }
            self.batch.put::<tables::Threads>(&at, &thread);
            self.threads.insert(root, thread);
        }
        let place = (seq, sub);
        for related in related_keys(room, &relates, event, place) {
            self.batch.put::<Related>(&related, &Num(num.0));
        }
        if let Some(root) = relates.thread {
            let related = related_key(room, root, Scope::Thread, place);
            self.batch.put::<Related>(&related, &Num(num.0));
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
            sub,
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
        for related in related_keys(room, &relates, event, (seq, sub)) {
            self.batch.delete::<Related>(&related);
        }
        if relates.rel_type == "m.thread" {
            self.shorten_thread(target, (seq, sub)).await?;
        }
        Ok(())
    }

    /// A thread without the event at `gone`. Its row stays when nothing is left of it: the running
    /// total goes on.
    async fn shorten_thread(&mut self, root: u32, gone: (i64, i64)) -> Result<(), RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let at = RoomNum { room, num: root };
        let Some(mut thread) = self.thread(root).await? else {
            return Ok(());
        };
        thread.count = thread.count.saturating_sub(1);
        if thread.latest_seq == gone.0 {
            let seq = gone.0;
            self.batch
                .delete::<tables::ThreadOrder>(&RoomSeq { room, seq });
            let range = Range::of(Home::Room(room), |key| {
                key.room(room).u32(root).u64(Scope::Type("m.thread").hash());
            });
            let left = reader.scan::<Related>(range.reverse().limit(PAGE)).await?;
            let left = left.iter().filter(|(key, _)| (key.seq, key.sub) != gone);
            // Threads are in order of what came live; of what was fetched alone the place says nothing.
            let live = left.clone().find(|(key, _)| key.sub == 0);
            let left = live.or_else(|| left.clone().next());
            match left.filter(|_| thread.count > 0) {
                Some((key, row)) => {
                    thread.latest = row.value.0;
                    thread.latest_seq = if key.sub == 0 { key.seq } else { 0 };
                    if let Some((RoomRelated { seq, .. }, _)) = live {
                        let seq = *seq;
                        self.batch
                            .put::<tables::ThreadOrder>(&RoomSeq { room, seq }, &Num(root));
                    }
                }
                None => thread.count = 0,
            }
        }
        self.batch.put::<tables::Threads>(&at, &thread);
        self.threads.insert(root, thread);
        Ok(())
    }

    /// A thread as this change has it so far, by its root.
    pub(crate) async fn thread(&self, root: u32) -> Result<Option<Thread>, RoomError> {
        if let Some(thread) = self.threads.get(&root) {
            return Ok(Some(thread.clone()));
        }
        let live = self.live()?;
        let at = RoomNum {
            room: live.room,
            num: root,
        };
        let row = live.reader().get::<tables::Threads>(&at).await?;
        Ok(row.map(|row| row.value))
    }
}

/// The keys under which a relation is found, by its scopes; that of its thread aside, which stays when
/// the event is redacted.
fn related_keys(
    room: RoomKey,
    relates: &Relates,
    event: &Event,
    place: (i64, i64),
) -> Vec<RoomRelated> {
    let target = relates.target.0;
    let mut keys = vec![related_key(
        room,
        target,
        Scope::Type(&relates.rel_type),
        place,
    )];
    if matches!(relates.rel_type.as_str(), "m.replace" | "m.annotation") {
        let key = relates.key.as_deref();
        let like = Scope::Like {
            rel_type: &relates.rel_type,
            event_type: event.event_type(),
            sender: event.sender().as_str(),
            key: key.filter(|_| relates.rel_type == "m.annotation"),
        };
        keys.push(related_key(room, target, like, place));
    }
    let above = relates.above.iter();
    keys.extend(above.map(|num| related_key(room, num.0, Scope::Below, place)));
    keys
}

fn related_key(
    room: RoomKey,
    target: u32,
    scope: Scope<'_>,
    (seq, sub): (i64, i64),
) -> RoomRelated {
    RoomRelated {
        room,
        target,
        scope: scope.hash(),
        seq,
        sub,
    }
}

/// What a message event says it relates to: how, to which event, with which key.
pub(crate) fn relates_to(event: &Event) -> Option<(String, String, Option<String>)> {
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
        notifying: Vec::new(),
        participants: Vec::new(),
    }
}
