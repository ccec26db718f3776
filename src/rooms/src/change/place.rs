//! Giving an accepted event its place: its rows, the state after it, the room's new head.

use comity_protocol::{
    auth::{MemberContent, Membership},
    event::{Event, Reference, Signed},
    id::UserId,
};
use comity_storage::{At, RoomKey};

use super::{Change, Placed, Transaction, auth::fact_of};
use crate::{
    error::RoomError,
    live::{Tip, head_at},
    log,
    num::{EventNum, StateKeyNum},
    tables::{
        self, Body, Entry, Generation, Header, IdRoom, Member, Num, RoomAt, RoomNum, RoomPlace,
        RoomText, Sent, Status, Totals, UserRoom, Verdict,
    },
};

impl Change {
    /// Places an event that follows all extremities. Nothing is cached before all reads are done,
    /// so a failure leaves the change as it was.
    pub(super) async fn place(
        &mut self,
        signed: Signed,
        prev: &[EventNum],
        auth: &[EventNum],
        txn: Option<&Transaction>,
    ) -> Result<Placed, RoomError> {
        let event = signed.into_event();
        let num = EventNum(self.live()?.head.next_num);
        self.live_mut()?.head.next_num += 1;
        let relation = self.relation_of(&event).await?;
        let thread = relation.as_ref().and_then(|relation| relation.thread);
        let root_before = self.live()?.root.encode();
        let member = member_of(&event);
        let before = match member
            .as_ref()
            .map(|(user, _)| <&UserId>::try_from(user.as_str()))
        {
            Some(Ok(user)) => self.membership(user).await?,
            _ => Membership::default(),
        };
        if let Some(state_key) = event.state_key() {
            let key = self.intern(event.event_type(), state_key).await?;
            self.set_state(key, num, &event).await?;
        }
        let live = self.live_mut()?;
        live.head.seq += 1;
        let (room, seq) = (live.room, live.head.seq);
        let totals = Totals {
            thread: 0,
            ..live.totals
        };
        let at = RoomNum { room, num: num.0 };
        let redacts = match event.redacts() {
            Some(target) => Some(self.name(target.as_str()).await?.0),
            None => None,
        };
        let header = header(&event, prev, auth, redacts);
        let sent = txn.map(|txn| Sent {
            device: txn.device.clone(),
            txn: txn.txn.clone(),
        });
        let place = Some((seq, 0));
        let status = Status {
            verdict: Verdict::Accepted,
            root_before,
            place,
            redacted_by: None,
            sent,
        };
        let body = Body {
            generation: Generation::Full,
            json: event.json().to_owned(),
        };
        let event_id = event.event_id().to_string();
        self.batch
            .put::<tables::EventNums>(
                &RoomText {
                    room,
                    name: event_id.clone(),
                },
                &Num(num.0),
            )
            .put::<tables::Headers>(&at, &header)
            .put::<tables::Bodies>(&at, &body)
            .put::<tables::Statuses>(&at, &status)
            .put::<tables::Timeline>(
                &RoomPlace { room, seq, sub: 0 },
                &Entry {
                    num: num.0,
                    thread,
                    totals,
                },
            )
            .put::<tables::IdRooms>(&IdRoom { event_id, room }, &());
        if let Some((user, membership)) = &member {
            self.put_member(room, user, membership, num, seq)?;
        }
        if let Some(state_key) = event.state_key() {
            let after = member
                .as_ref()
                .and_then(|(_, name)| Membership::from_name(name))
                .unwrap_or_default();
            self.summarise(state_key, &event, before, after)?;
        }
        if let Some(relation) = relation {
            self.put_relation(num, &event, relation).await?;
        }
        if let Some(target) = redacts {
            self.redact(EventNum(target), num).await?;
        }
        self.advance(num, &event)?;
        let record = log::Placed {
            seq,
            num: num.0,
            sender: event.sender().to_string(),
            member,
            state: event.state_key().is_some(),
        };
        let record = log::record(log::kind::PLACED, event.room_id().as_str(), &record)?;
        self.batch.log(record);
        let placed = Placed {
            event_id: event.event_id().to_owned(),
            seq,
        };
        self.placed.push(placed.clone());
        Ok(placed)
    }

    async fn set_state(
        &mut self,
        key: StateKeyNum,
        num: EventNum,
        event: &Event,
    ) -> Result<(), RoomError> {
        let live = self.live()?;
        let trie = self
            .rooms
            .trie(live.room, live.reader(), live.pending.clone());
        let written = trie.apply(live.root, &[(key, Some(num))]).await?;
        let fact = fact_of(num, event)?;
        let room = live.room;
        for (hash, bytes) in &written.nodes {
            self.batch
                .put::<tables::Nodes>(&tables::RoomHash { room, hash: hash.0 }, bytes);
        }
        let live = self.live_mut()?;
        live.pending.0.lock().extend(written.nodes);
        live.root_changed |= live.root != written.root;
        live.root = written.root;
        live.head.root = written.root.encode();
        match fact {
            Some(fact) => live.facts.insert(key, fact),
            None => live.facts.remove(&key),
        };
        Ok(())
    }

    fn put_member(
        &mut self,
        room: RoomKey,
        user: &str,
        membership: &str,
        num: EventNum,
        seq: i64,
    ) -> Result<(), RoomError> {
        let room_id = self.live()?.room_id.to_string();
        let member = Member {
            room_id,
            membership: membership.to_owned(),
            num: num.0,
            seq,
            forgotten: false,
        };
        self.batch.put::<tables::Members>(
            &UserRoom {
                user: user.to_owned(),
                room,
            },
            &member,
        );
        Ok(())
    }

    /// Keeps the room's summary: its row is written where a state event altered it.
    fn summarise(
        &mut self,
        state_key: &str,
        event: &Event,
        before: Membership,
        after: Membership,
    ) -> Result<(), RoomError> {
        let live = self.live_mut()?;
        let mut summary = live.summary.clone();
        summary.set(event.event_type(), state_key, Some(event));
        summary.member(before, after);
        if summary != live.summary {
            live.summary = summary.clone();
            let room = live.room;
            self.batch
                .put::<tables::Summaries>(&tables::InRoom { room }, &summary);
        }
        Ok(())
    }

    /// The event is the room's only extremity now; the head's row says so. Rows that no reader
    /// needs any more go: what stays is the first of each root, and what is newest for those who
    /// read at the published head.
    fn advance(&mut self, num: EventNum, event: &Event) -> Result<(), RoomError> {
        let live = self.live_mut()?;
        live.head.extremities = vec![num.0];
        live.head.depth = event.depth();
        live.tips = vec![Tip {
            num,
            reference: Reference::to(event),
        }];
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
    pub(super) async fn name(&mut self, event_id: &str) -> Result<EventNum, RoomError> {
        let live = self.live()?;
        let key = RoomText {
            room: live.room,
            name: event_id.to_owned(),
        };
        if let Some(row) = live.reader().get::<tables::EventNums>(&key).await? {
            return Ok(EventNum(row.value.0));
        }
        let live = self.live_mut()?;
        let num = live.head.next_num;
        live.head.next_num += 1;
        let at = RoomNum {
            room: live.room,
            num,
        };
        let root_before = Vec::new();
        let named = Status {
            verdict: Verdict::Named,
            root_before,
            place: None,
            redacted_by: None,
            sent: None,
        };
        self.batch
            .put::<tables::EventNums>(&key, &Num(num))
            .put::<tables::Statuses>(&at, &named);
        Ok(EventNum(num))
    }
}

fn header(event: &Event, prev: &[EventNum], auth: &[EventNum], redacts: Option<u32>) -> Header {
    Header {
        event_id: event.event_id().to_string(),
        event_type: event.event_type().to_owned(),
        state_key: event.state_key().map(str::to_owned),
        sender: event.sender().to_string(),
        depth: event.depth(),
        ts: event.origin_server_ts(),
        prev: prev.iter().map(|num| num.0).collect(),
        auth: auth.iter().map(|num| num.0).collect(),
        redacts,
    }
}

fn member_of(event: &Event) -> Option<(String, String)> {
    let user = event
        .state_key()
        .filter(|_| event.event_type() == "m.room.member")?;
    let membership = MemberContent::read(event.content().get()).membership?;
    Some((user.to_owned(), membership.as_str().to_owned()))
}
