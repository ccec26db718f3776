//! Redactions: who may take back what, and what it does to the rows.

use comity_protocol::{auth::LevelField, event::Event, id::EventId};
use comity_storage::{Home, Range, Row};

use super::{Change, Known};
use crate::{
    error::RoomError,
    num::EventNum,
    tables::{self, Body, Generation, RoomNum, RoomPair, RoomSeq, RoomText, Status, Verdict},
};

impl Change {
    /// Whether a user of ours may send this redaction: the target is theirs, or theirs to moderate. Who
    /// may redact everything may do so before the target has come here; of others nobody can say yet.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>
    pub(super) async fn check_redaction(
        &self,
        redaction: &Event,
        redacts_all: bool,
    ) -> Result<(), RoomError> {
        let Some(target) = redaction.redacts() else {
            return Err(RoomError::Invalid("the redaction names no event"));
        };
        let live = self.live()?;
        let reader = live.reader();
        let key = RoomText {
            room: live.room,
            name: target.to_string(),
        };
        let header = match reader.get::<tables::EventNums>(&key).await? {
            Some(num) => {
                let at = RoomNum {
                    room: live.room,
                    num: num.value.0,
                };
                reader.get::<tables::Headers>(&at).await?
            }
            None => None,
        };
        let Some(header) = header else {
            return match redacts_all {
                true => Ok(()),
                false => Err(RoomError::UnknownEvent),
            };
        };
        if header.value.event_type == "m.room.create" {
            return Err(RoomError::Forbidden("m.room.create can't be redacted"));
        }
        if redacts_all || header.value.sender == redaction.sender().as_str() {
            return Ok(());
        }
        Err(RoomError::Forbidden(
            "only their sender and those with the power to redact may redact events",
        ))
    }

    /// Takes the target's content, for good: its body's row holds the redacted form from now on. A
    /// target that isn't here yet is judged when it comes.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>
    pub(crate) async fn redact(&mut self, redaction: &Known) -> Result<(), RoomError> {
        let Some(target) = redaction.event.redacts() else {
            return Ok(());
        };
        let num = self.name(target.as_str()).await?;
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let at = RoomNum { room, num: num.0 };
        let status = reader.get::<tables::Statuses>(&at).await?;
        let status = status.map(|row| self.status_now(num, target, row));
        let Some(mut status) = status.filter(|status| status.verdict != Verdict::Named) else {
            let early = RoomPair {
                room,
                num: num.0,
                other: redaction.num.0,
            };
            self.batch.put::<tables::EarlyRedactions>(&early, &());
            return Ok(());
        };
        let event = self.event(num).await?;
        if status.redacted_by.is_some() || !self.may_redact(redaction, &event).await? {
            return Ok(());
        }
        status.redacted_by = Some(redaction.num.0);
        if let Some((seq, 0)) = status.place {
            self.batch
                .put::<tables::Discounts>(&RoomSeq { room, seq }, &());
        }
        self.unrelate(&event, &status).await?;
        let redacted = event.redact();
        self.forget_state(num, &redacted).await?;
        let body = Body {
            generation: Generation::Redacted,
            json: redacted.json().to_owned(),
        };
        self.batch
            .put::<tables::Bodies>(&at, &body)
            .put::<tables::Statuses>(&at, &status);
        Ok(())
    }

    /// An event's status with what this change has made of it.
    fn status_now(&self, num: EventNum, event_id: &EventId, row: Row<Status>) -> Status {
        let Some(known) = self.in_hand.get(&num) else {
            return row.value;
        };
        let mut status = known.status(Some(row)).value;
        let placed = self
            .placed
            .iter()
            .find(|placed| *placed.event_id == *event_id);
        status.place = status.place.or(placed.map(|placed| (placed.seq, 0)));
        status
    }

    /// What was kept of a state event that is being redacted goes too: the summary's copy, where the
    /// event is the current one of its key, and what the rules read of it.
    pub(super) async fn forget_state(
        &mut self,
        num: EventNum,
        redacted: &Event,
    ) -> Result<(), RoomError> {
        let Some(state_key) = redacted.state_key() else {
            return Ok(());
        };
        let Some(key) = self.key(redacted.event_type(), state_key).await? else {
            return Ok(());
        };
        let live = self.live()?;
        let trie = self
            .rooms
            .trie(live.room, live.reader(), live.pending.clone());
        if trie.get(live.root, key).await?.present() != Some(num) {
            return Ok(());
        }
        let live = self.live_mut()?;
        live.facts.remove(&key);
        let before = live.summary.clone();
        live.summary
            .set(redacted.event_type(), state_key, Some(redacted));
        if live.summary != before {
            let (room, summary) = (live.room, live.summary.clone());
            self.batch
                .put::<tables::Summaries>(&tables::InRoom { room }, &summary);
        }
        Ok(())
    }

    /// The redaction of an event that came before it, if one may.
    pub(crate) async fn early_redaction(
        &mut self,
        target: &Known,
    ) -> Result<Option<EventNum>, RoomError> {
        let live = self.live()?;
        let room = live.room;
        let range = Range::of(Home::Room(room), |key| {
            key.room(room).u32(target.num.0);
        });
        let early = live.reader().scan::<tables::EarlyRedactions>(range).await?;
        let mut found = None;
        for (key, _) in early {
            self.batch.delete::<tables::EarlyRedactions>(&key);
            if found.is_some() {
                continue;
            }
            for redaction in self.known(&[EventNum(key.other)]).await? {
                if self.may_redact(&redaction, &target.event).await? {
                    found = Some(redaction.num);
                }
            }
        }
        Ok(found)
    }

    /// Whether a redaction that is part of the room takes effect on its target. The room's create
    /// event is never redacted: what it says is what the rules start from (threat D6).
    pub(crate) async fn may_redact(
        &mut self,
        redaction: &Known,
        target: &Event,
    ) -> Result<bool, RoomError> {
        if target.event_type() == "m.room.create" {
            return Ok(false);
        }
        let (sender, owner) = (redaction.event.sender(), target.sender());
        // In old versions the rules have compared the ids already.
        if redaction.event.rules().special_case_redaction_auth
            || sender.server_name() == owner.server_name()
        {
            return Ok(true);
        }
        let Some(root) = redaction.root_before else {
            return Ok(false);
        };
        let state = self.auth_state_of(redaction, root).await?;
        let levels = state.levels();
        let power = levels.user(sender.as_str());
        Ok(power.reaches(levels.field(LevelField::Redact)))
    }
}
