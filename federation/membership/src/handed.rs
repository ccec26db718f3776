//! Joins on their way, over a crash.
//!
//! Whom a join is handed to makes it part of the room and tells the others, whether or not its answer comes. A server that went down
//! meanwhile would never know that it is in the room, and what is said there it would acknowledge and drop. So what is handed over is
//! noted before, and handed over again by the next start: the same event is the same join, and is answered again.

use comity_protocol::{
    event::Signed,
    id::{OwnedServerName, RoomId, UserId},
};
use comity_rooms::{RoomError, Rooms};
use comity_storage::{Home, Range, ReadError, RoomKey, Row};
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{
    OtherServers,
    join::PATIENCE,
    tables::{Handed, Joining, Joins},
    template::{Intent, TemplateError},
    trouble::Trouble,
};

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

    /// Notes a join; durable when this returns.
    pub(crate) async fn note(&self, intent: &Intent, handed: &Handed) -> Result<(), RoomError> {
        let rooms = self.rooms()?;
        let key = key_of(intent);
        let lane = rooms.tenant().lane(Home::Room(key.room));
        let mut batch = lane.batch();
        batch.put::<Joins>(&key, handed);
        lane.commit(batch).await?;
        Ok(())
    }

    /// It is known what became of a join, or given up.
    pub(crate) async fn forget(&self, intent: &Intent) {
        let Ok(rooms) = self.rooms() else {
            return;
        };
        let key = key_of(intent);
        let lane = rooms.tenant().lane(Home::Room(key.room));
        let mut batch = lane.batch();
        batch.delete::<Joins>(&key);
        if let Err(error) = lane.commit(batch).await {
            tracing::warn!(%error, "a join that has ended stays noted");
        }
    }

    /// Hands over again what was under way when the server last stopped.
    pub(crate) async fn resume_joins(&self, rooms: &Rooms) -> Result<(), ReadError> {
        let reader = rooms.tenant().reader();
        let rows = reader.scan::<Joins>(Range::everywhere(|_| {})).await?;
        for (key, row) in rows {
            let Some(intent) = intent_of(&key, &row.value) else {
                continue;
            };
            let this = self.clone();
            let entering = self.0.fetcher.entering.begin(&intent.room_id);
            drop(self.0.runtime.spawn("join", async move {
                let again = Box::pin(this.hand_over_again(&intent, row));
                match timeout(PATIENCE, again).await {
                    Ok(Ok(())) => {}
                    Ok(Err(trouble)) => tracing::debug!(%trouble, "a join is given up"),
                    Err(_) => tracing::debug!("a join is given up"),
                }
                this.forget(&intent).await;
                drop(entering);
            }));
        }
        Ok(())
    }

    async fn hand_over_again(&self, intent: &Intent, row: Row<Handed>) -> Result<(), Trouble> {
        let rooms = self.rooms().map_err(Trouble::Ours)?;
        let member = rooms.member(&intent.user, &intent.room_id).await;
        let member = member.map_err(Trouble::Ours)?;
        // It had ended, and whatever the user did next stands.
        if member.is_some_and(|member| member.pos > row.pos) {
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
