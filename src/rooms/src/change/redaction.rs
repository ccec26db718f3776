//! Redactions: who may take back what, and what it does to the rows.

use comity_protocol::event::Event;

use super::Change;
use crate::{
    error::RoomError,
    num::EventNum,
    tables::{self, Body, Generation, RoomNum, RoomText, Verdict},
};

impl Change {
    /// Whether a user of ours may send this redaction: the target is in the room, and theirs or
    /// theirs to moderate. Of a target that hasn't come yet nobody can say; it is judged then.
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
        let Some(num) = reader.get::<tables::EventNums>(&key).await? else {
            return Err(RoomError::UnknownEvent);
        };
        let at = RoomNum {
            room: live.room,
            num: num.value.0,
        };
        let Some(header) = reader.get::<tables::Headers>(&at).await? else {
            return Err(RoomError::UnknownEvent);
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

    /// Takes the target's content, for good: its body's row holds the redacted form from now on.
    pub(super) async fn redact(
        &mut self,
        target: EventNum,
        redaction: EventNum,
    ) -> Result<(), RoomError> {
        let live = self.live()?;
        let (room, version) = (live.room, live.info.version);
        let reader = live.reader();
        let at = RoomNum {
            room,
            num: target.0,
        };
        let (status, body) = futures_util::try_join!(
            reader.get::<tables::Statuses>(&at),
            reader.get::<tables::Bodies>(&at)
        )?;
        let Some(mut status) = status.map(|row| row.value) else {
            return Ok(());
        };
        if status.redacted_by.is_some() {
            return Ok(());
        }
        status.redacted_by = Some(redaction.0);
        if let Some(body) = body.filter(|_| status.verdict != Verdict::Named) {
            let event =
                crate::event::parse(&reader, room, version, target, body.value.json).await?;
            self.unrelate(&event, &status).await?;
            let json = event.redact().json().to_owned();
            self.batch.put::<tables::Bodies>(
                &at,
                &Body {
                    generation: Generation::Redacted,
                    json,
                },
            );
        }
        self.batch.put::<tables::Statuses>(&at, &status);
        Ok(())
    }
}
