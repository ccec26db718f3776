//! Giving an event its rows: those of every verdict, and the place of an accepted one.

use comity_protocol::event::Signed;
use comity_storage::{At, Expect};

use super::{Change, Known, Placed, Transaction, known::Heard};
use crate::{
    activity,
    error::RoomError,
    live::{head_at, totals_after},
    log,
    num::EventNum,
    state::AnyRoot,
    tables::{
        self, Body, Entry, Generation, Header, IdRoom, Num, RoomAt, RoomNum, RoomPlace, RoomText,
        Sent, Status, Verdict,
    },
};

/// An event and its verdict, on the way to its rows.
pub(crate) struct Case {
    pub known: Known,
    /// What was known of it before.
    pub from: Option<Heard>,
    /// The redaction that came before it; the event is in its redacted form then.
    pub redacted_by: Option<EventNum>,
    /// Events of the room follow it already.
    pub followed: bool,
    /// Those are the join by which we came in and what came before it.
    pub is_past: bool,
    /// The state that stands in place of its missing parents.
    pub given: Option<AnyRoot>,
}

impl Change {
    /// Places an event of our own. Its parents are accepted, its state before is theirs.
    pub(super) async fn place(
        &mut self,
        signed: Signed,
        prev: Vec<EventNum>,
        auth: Vec<EventNum>,
        root_before: AnyRoot,
        txn: Option<&Transaction>,
    ) -> Result<Placed, RoomError> {
        self.moved = true;
        let event = signed.into_event();
        let num = self.next_num(event.event_id().as_str())?;
        let known = Known {
            num,
            event,
            prev,
            auth,
            verdict: Verdict::Accepted,
            root_before: Some(root_before),
        };
        let case = Case {
            known,
            from: None,
            redacted_by: None,
            followed: false,
            is_past: false,
            given: None,
        };
        self.accept(case, txn).await
    }

    /// Makes an accepted event part of the room: the next place in its order, its part in the
    /// graph and in the state.
    pub(crate) async fn accept(
        &mut self,
        case: Case,
        txn: Option<&Transaction>,
    ) -> Result<Placed, RoomError> {
        let (num, event) = (case.known.num, case.known.event.clone());
        let relation = self.relation_of(&event).await?;
        let thread = relation.as_ref().and_then(|relation| relation.thread);
        self.in_hand.insert(num, case.known.clone());
        self.listen().await?;
        self.index(&case.known).await?;
        let difference = self.advance(&case).await?;
        let stamp = self.rooms().stamp(self.live()?.head.active);
        let live = self.live_mut()?;
        live.head.seq += 1;
        live.head.active = stamp;
        if activity::is_bump(event.event_type()) {
            live.head.bumped = stamp;
        }
        let (room, seq) = (live.room, live.head.seq);
        let mut members = self.derive(&difference, seq).await?;
        for member in &members {
            self.heard_of(member.user()).await?;
        }
        let counted = self.count(&event, thread, seq).await?;
        let totals = counted.totals;
        self.live_mut()?.totals = totals_after(&totals);
        for joined in members.iter().filter(|member| member.joined()) {
            self.begins_to_read(joined.user(), &event, seq, &totals)?;
        }
        self.has_read(&event, thread, seq, &totals)?;
        let sent = txn.map(|txn| Sent {
            device: txn.device.clone(),
            txn: txn.txn.clone(),
        });
        self.write(&case, Some((seq, 0)), sent).await?;
        let entry = Entry {
            num: num.0,
            thread,
            totals,
        };
        self.batch
            .put::<tables::Timeline>(&RoomPlace { room, seq, sub: 0 }, &entry);
        if let Some(relation) = relation {
            self.put_relation(num, &event, relation, &counted.tallies, (seq, 0))
                .await?;
        }
        if event.redacts().is_some() {
            self.redact(&case.known).await?;
        }
        self.put_head()?;
        let own = members.iter().position(|changed| changed.num == Some(num));
        let member = own.map(|at| members.remove(at).into_entry());
        let record = log::Placed {
            seq,
            num: num.0,
            sender: event.sender().to_string(),
            member,
            state: event.state_key().is_some(),
        };
        let record = log::record(log::kind::PLACED, event.room_id().as_str(), &record)?;
        self.batch.log(record);
        members.retain(|changed| self.is_ours(changed.user()));
        if !members.is_empty() {
            let members = members.into_iter().map(|changed| changed.into_entry());
            let record = log::Resolved {
                seq,
                members: members.collect(),
            };
            let record = log::record(log::kind::RESOLVED, event.room_id().as_str(), &record)?;
            self.batch.log(record);
        }
        let placed = Placed {
            event_id: event.event_id().to_owned(),
            seq,
        };
        self.placed.push(placed.clone());
        Ok(placed)
    }

    /// Keeps an event that isn't part of the room: judged, and shown to nobody.
    pub(crate) async fn keep(&mut self, case: Case) -> Result<(), RoomError> {
        self.keep_rows(case).await?;
        self.put_head()
    }

    /// [`Self::keep`] of one of many events: the head is written after them.
    pub(crate) async fn keep_rows(&mut self, case: Case) -> Result<(), RoomError> {
        self.in_hand.insert(case.known.num, case.known.clone());
        self.index(&case.known).await?;
        self.write(&case, None, None).await
    }

    /// What a state event needs so that others may be built upon it, unless it was rejected: a number
    /// for its key, a place on an auth chain, and of a soft-failed one the state after it.
    pub(crate) async fn index(&mut self, known: &Known) -> Result<(), RoomError> {
        let Some(state_key) = known.event.state_key() else {
            return Ok(());
        };
        if known.verdict == Verdict::Rejected {
            return Ok(());
        }
        let key = self.intern(known.event.event_type(), state_key).await?;
        self.put_chain(known, key).await?;
        if known.verdict == Verdict::SoftFailed {
            self.state_after(known).await?;
        }
        Ok(())
    }

    /// The rows that an event has whatever its verdict.
    pub(crate) async fn write(
        &mut self,
        case: &Case,
        place: Option<(i64, i64)>,
        sent: Option<Sent>,
    ) -> Result<(), RoomError> {
        let (known, event) = (&case.known, &case.known.event);
        let room = self.live()?.room;
        let num = known.num.0;
        let at = RoomNum { room, num };
        let from = case.from.as_ref().map(|heard| &heard.status);
        let redacted_before = from.and_then(|row| row.value.redacted_by);
        let status = Status {
            verdict: known.verdict,
            root_before: known
                .root_before
                .map_or_else(Vec::new, |root| root.encode()),
            place,
            redacted_by: case.redacted_by.map(|num| num.0).or(redacted_before),
            sent,
        };
        let name = RoomText {
            room,
            name: event.event_id().to_string(),
        };
        match from {
            Some(row) => self
                .batch
                .expect::<tables::Statuses>(&at, Expect::At(row.pos)),
            None => self
                .batch
                .expect::<tables::EventNums>(&name, Expect::Absent)
                .put::<tables::EventNums>(&name, &Num(num)),
        };
        self.batch.put::<tables::Statuses>(&at, &status);
        // A room that this event ends waits for nothing any more.
        if known.root_before.is_some_and(AnyRoot::is_partial) && self.live()?.is_partial() {
            let given = case.given.map_or_else(Vec::new, |root| root.encode());
            self.batch
                .put::<tables::Provisionals>(&at, &tables::Provisional { given });
            self.live_mut()?.provisional.insert(known.num);
        }
        let stored = from.is_some_and(|row| row.value.verdict != Verdict::Named);
        let body = Body {
            generation: match status.redacted_by {
                Some(_) => Generation::Redacted,
                None => Generation::Full,
            },
            json: event.json().to_owned(),
        };
        if !stored || case.redacted_by.is_some() {
            self.batch.put::<tables::Bodies>(&at, &body);
        }
        if stored {
            return Ok(());
        }
        let redacts = match event.redacts() {
            Some(target) => Some(self.name(target.as_str()).await?),
            None => None,
        };
        let (event_id, header) = (name.name, header(known, redacts));
        self.batch
            .put::<tables::Headers>(&at, &header)
            .put::<tables::IdRooms>(&IdRoom { event_id, room }, &());
        Ok(())
    }

    /// The head's row as it is now. Rows that no reader needs any more go: what stays is the first
    /// of each root, and what is newest for those who read at the published head.
    pub(crate) fn put_head(&mut self) -> Result<(), RoomError> {
        let live = self.live_mut()?;
        let published = live.reader().bound(comity_storage::Home::Room(live.room));
        let mut thinned = Vec::new();
        while live.rows.len() > 1 && live.rows.get(1).is_some_and(|(pos, _)| *pos <= published) {
            if let Some((pos, false)) = live.rows.pop_front() {
                thinned.push(pos);
            }
        }
        let (room, head) = (live.room, live.head.clone());
        for pos in thinned {
            self.batch.delete::<tables::Heads>(&head_at(room, pos));
        }
        self.batch.put::<tables::Heads>(
            &RoomAt {
                room,
                pos: At::Commit,
            },
            &head,
        );
        Ok(())
    }

    /// The number of an event that may be known by its name only: then it gets one now.
    pub(crate) async fn name(&mut self, event_id: &str) -> Result<EventNum, RoomError> {
        if let Some(num) = self.names.get(event_id) {
            return Ok(*num);
        }
        let live = self.live()?;
        let room = live.room;
        let key = RoomText {
            room,
            name: event_id.to_owned(),
        };
        if let Some(row) = live.reader().get::<tables::EventNums>(&key).await? {
            return Ok(EventNum(row.value.0));
        }
        let num = self.next_num(event_id)?;
        let named = Status {
            verdict: Verdict::Named,
            root_before: Vec::new(),
            place: None,
            redacted_by: None,
            sent: None,
        };
        self.batch
            .expect::<tables::EventNums>(&key, Expect::Absent)
            .put::<tables::EventNums>(&key, &Num(num.0))
            .put::<tables::Statuses>(&RoomNum { room, num: num.0 }, &named);
        Ok(num)
    }

    /// The number of an event that is not stored: the one it was named by in this change, or a new
    /// one.
    pub(crate) fn number(&mut self, event_id: &str) -> Result<EventNum, RoomError> {
        match self.names.get(event_id) {
            Some(num) => Ok(*num),
            None => self.next_num(event_id),
        }
    }

    /// A number for an event that has none yet.
    pub(crate) fn next_num(&mut self, event_id: &str) -> Result<EventNum, RoomError> {
        let live = self.live_mut()?;
        let num = EventNum(live.head.next_num);
        live.head.next_num += 1;
        self.names.insert(event_id.to_owned(), num);
        Ok(num)
    }
}

fn header(known: &Known, redacts: Option<EventNum>) -> Header {
    let event = &known.event;
    Header {
        event_id: event.event_id().to_string(),
        event_type: event.event_type().to_owned(),
        state_key: event.state_key().map(str::to_owned),
        sender: event.sender().to_string(),
        depth: event.depth(),
        ts: event.origin_server_ts(),
        prev: known.prev.iter().map(|num| num.0).collect(),
        auth: known.auth.iter().map(|num| num.0).collect(),
        redacts: redacts.map(|num| num.0),
    }
}
