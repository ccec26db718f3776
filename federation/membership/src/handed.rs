//! Joins on their way, over a crash.
//!
//! Whom a join is handed to makes it part of the room and tells the others, whether or not its answer comes. A server that went down
//! meanwhile, or heard nothing for too long, would never know that it is in the room, and what is said there it would acknowledge and
//! drop. So what is handed over is noted before, and handed over again later, also by the next start, until it is known what became of
//! it: the same event is the same join, and is answered again.

use std::{sync::Arc, time::Duration};

use comity_protocol::{
    event::Signed,
    id::{OwnedServerName, RoomId, UserId},
};
use comity_rooms::{RoomError, Rooms};
use comity_storage::{CommitError, Expect, Home, Pos, Range, ReadError, RoomKey, Row};
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};

use crate::{
    OtherServers,
    join::PATIENCE,
    tables::{Handed, Joining, Joins},
    template::{Intent, TemplateError},
    trouble::Trouble,
};

/// A join is taken up again for so long after it was made: after that a room has gone on without its user, or the note is a backup's.
const LASTS: Duration = Duration::from_secs(60 * 60);
/// Between two times that one is handed over again, at first and at the most.
const WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5 * 60));

fn key_of(intent: &Intent) -> Joining {
    Joining {
        room: RoomKey::of(intent.room_id.as_str()),
        user: intent.user.to_string(),
    }
}

impl OtherServers {
    /// The event of a join.
    pub(crate) fn join_of(&self, intent: &Intent, handed: &Handed) -> Result<Signed, Trouble> {
        let template = RawValue::from_string(handed.template.clone());
        let template = template.map_err(|_| TemplateError::Form)?;
        let server = OwnedServerName::try_from(handed.server.as_str());
        let server = server.map_err(|_| TemplateError::Form)?;
        let version = intent.version(handed.version.as_deref())?;
        let (made_at, opaque_id) = (handed.made_at, handed.opaque_id.clone());
        let unsigned = intent.complete(version, &template, &server, made_at, opaque_id)?;
        self.sign(intent, unsigned)
    }

    /// Notes a join; durable when this returns where.
    pub(crate) async fn note(&self, intent: &Intent, handed: &Handed) -> Result<Pos, RoomError> {
        let rooms = self.rooms()?;
        let key = key_of(intent);
        let lane = rooms.tenant().lane(Home::Room(key.room));
        let mut batch = lane.batch();
        batch.put::<Joins>(&key, handed);
        Ok(lane.commit(batch).await?)
    }

    /// It is known what became of a join that was noted there, or given up.
    pub(crate) async fn forget(&self, intent: &Intent, noted: Pos) {
        let Ok(rooms) = self.rooms() else {
            return;
        };
        let key = key_of(intent);
        let lane = rooms.tenant().lane(Home::Room(key.room));
        let mut batch = lane.batch();
        batch.expect::<Joins>(&key, Expect::At(noted));
        batch.delete::<Joins>(&key);
        match lane.commit(batch).await {
            // Nothing was handed over, or the user has tried again since.
            Ok(_) | Err(CommitError::Conflict(_)) => {}
            Err(error) => tracing::warn!(%error, "a join that has ended stays noted"),
        }
    }

    /// Hands over again what was under way when the server last stopped. Who can't be reached is asked again: whatever kept us from
    /// hearing of the first time may keep us from it for a while.
    pub(crate) async fn resume_joins(&self, rooms: &Rooms) -> Result<(), ReadError> {
        let reader = rooms.tenant().reader();
        let rows = reader.scan::<Joins>(Range::everywhere(|_| {})).await?;
        for (key, row) in rows {
            let Some(intent) = intent_of(&key, &row.value) else {
                continue;
            };
            self.hand_over_later(intent, row);
        }
        Ok(())
    }

    /// Hands a join over again until it is known what became of it.
    pub(crate) fn hand_over_later(&self, intent: Intent, row: Row<Handed>) {
        let this = Arc::downgrade(&self.0);
        let server = OwnedServerName::try_from(row.value.server.as_str()).ok();
        let servers = server.as_slice();
        let entering = self.0.fetcher.entering.begin(&intent.room_id, servers);
        drop(self.0.runtime.spawn("join", async move {
            let mut wait = WAITS.0;
            // Who is gone by then has closed the store; the next start goes on.
            while let Some(inner) = this.upgrade() {
                let this = Self(inner);
                if this.is_over(&intent, &row).await {
                    this.forget(&intent, row.pos).await;
                    break;
                }
                drop(this);
                sleep(wait).await;
                wait = (wait * 2).min(WAITS.1);
            }
            drop(entering);
        }));
    }

    /// Hands a join over again; whether that was the last time.
    async fn is_over(&self, intent: &Intent, row: &Row<Handed>) -> bool {
        let made_at = Duration::from_millis(row.value.made_at);
        if Duration::from_millis(self.0.runtime.clock().now_ms()) > made_at + LASTS {
            return true;
        }
        let again = Box::pin(self.hand_over_again(intent, row));
        let trouble = match timeout(PATIENCE, again).await {
            Ok(Ok(())) => return true,
            Ok(Err(trouble)) => trouble,
            Err(_) => return false,
        };
        tracing::debug!(%trouble, "a join that was handed over isn't answered");
        match &trouble {
            // Also who can't be reached now may have it, or is being let in again itself and says nothing of the room until then.
            Trouble::Peer(error) => {
                let refusal = error.refusal();
                refusal.is_some_and(|refusal| matches!(refusal.status, 400 | 403))
            }
            trouble => !trouble.may_be_in(),
        }
    }

    async fn hand_over_again(&self, intent: &Intent, row: &Row<Handed>) -> Result<(), Trouble> {
        let rooms = self.rooms().map_err(Trouble::Ours)?;
        let member = rooms.member(&intent.user, &intent.room_id).await;
        let member = member.map_err(Trouble::Ours)?;
        // It had ended, and whatever the user did next stands.
        if member.is_some_and(|member| member.pos > row.pos) {
            return Ok(());
        }
        let noted = rooms
            .tenant()
            .lane(Home::Room(RoomKey::of(intent.room_id.as_str())));
        let noted = noted.reader().get::<Joins>(&key_of(intent)).await;
        let noted = noted.map_err(|error| Trouble::Ours(error.into()))?;
        if noted.is_none_or(|noted| noted.pos != row.pos) {
            return Ok(());
        }
        let join = self.join_of(intent, &row.value)?;
        let server = OwnedServerName::try_from(row.value.server.as_str());
        let server = server.map_err(|_| TemplateError::Form)?;
        self.enter_by(intent, server, join).await
    }
}

fn intent_of(key: &Joining, handed: &Handed) -> Option<Intent> {
    Some(Intent {
        user: UserId::parse(&key.user).ok()?,
        room_id: RoomId::parse(&handed.room_id).ok()?,
        membership: "join",
        content: serde_json::from_str(&handed.content).ok()?,
    })
}
