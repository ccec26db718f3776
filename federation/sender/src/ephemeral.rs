//! Typing and presence: what is told of our users to the servers they share rooms with (threat E7).
//!
//! Neither is kept: a server that misses it learns of the next change, and forgets by itself what
//! isn't repeated.

use std::collections::{BTreeMap, BTreeSet};

use comity_accounts::presence::Seen;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId},
};
use comity_rooms::RoomError;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

use crate::{Held, Inner};

/// Who of our users was said to be typing, by room.
type Told = BTreeMap<OwnedRoomId, BTreeSet<OwnedUserId>>;

/// Tells of typing as long as there is a sender.
pub(crate) async fn typing(held: Held) {
    let Some(mut changes) = held.upgrade().map(|inner| inner.rooms.typing().subscribe()) else {
        return;
    };
    let mut told = Told::new();
    loop {
        let rooms = match changes.recv().await {
            Ok(room_id) => vec![room_id],
            // Rooms in which it began are missed, those in which it ended must not be.
            Err(RecvError::Lagged(_)) => told.keys().cloned().collect(),
            Err(RecvError::Closed) => return,
        };
        let Some(inner) = held.upgrade() else { return };
        for room_id in rooms {
            if let Err(error) = inner.tell_typing(&room_id, &mut told).await {
                tracing::debug!(%error, "typing could not be told");
            }
        }
    }
}

/// Tells of presence as long as there is a sender.
pub(crate) async fn presence(held: Held) {
    let Some(mut changes) = held
        .upgrade()
        .map(|inner| inner.accounts.presence().watch())
    else {
        return;
    };
    let mut serial = *changes.borrow_and_update();
    while changes.changed().await.is_ok() {
        let Some(inner) = held.upgrade() else { return };
        let (changed, next) = inner.accounts.presence().since(serial);
        serial = next;
        changes.mark_unchanged();
        for (user, seen) in changed {
            let Ok(user) = OwnedUserId::try_from(user) else {
                continue;
            };
            if let Err(error) = inner.tell_presence(&user, &seen).await {
                tracing::debug!(%error, "presence could not be told");
            }
        }
    }
}

impl Inner {
    async fn tell_typing(
        self: &Arc<Self>,
        room_id: &RoomId,
        told: &mut Told,
    ) -> Result<(), RoomError> {
        let (_, users) = self.rooms.typing().users(room_id);
        let ours = users
            .into_iter()
            .filter(|user| self.is_local(user.server_name()));
        let now: BTreeSet<OwnedUserId> = ours.collect();
        let before = told.remove(room_id).unwrap_or_default();
        if now == before {
            if !now.is_empty() {
                told.insert(room_id.to_owned(), now);
            }
            return Ok(());
        }
        for server in self.others_in(room_id).await? {
            for user in before.symmetric_difference(&now) {
                let (room_id, user, types) = (room_id.to_owned(), user.clone(), now.contains(user));
                self.put(&server, |queue| queue.edus.typing(room_id, user, types));
            }
        }
        if !now.is_empty() {
            told.insert(room_id.to_owned(), now);
        }
        Ok(())
    }

    async fn tell_presence(self: &Arc<Self>, user: &UserId, seen: &Seen) -> Result<(), RoomError> {
        if !self.is_local(user.server_name()) {
            return Ok(());
        }
        let mut servers = BTreeSet::new();
        for room_id in self.rooms.rooms_with(user, Membership::Join).await? {
            servers.extend(self.others_in(&room_id).await?);
        }
        let push = push(user, seen);
        for server in servers {
            let (user, push) = (user.to_owned(), push.clone());
            self.put(&server, |queue| queue.edus.presence(user, push));
        }
        Ok(())
    }

    /// The other servers in a room now.
    async fn others_in(&self, room_id: &RoomId) -> Result<Vec<OwnedServerName>, RoomError> {
        let mut servers = self.rooms.servers_in(room_id).await?;
        servers.retain(|server| !self.is_local(server));
        Ok(servers)
    }
}

fn push(user: &UserId, seen: &Seen) -> Map<String, Value> {
    let mut push = Map::new();
    push.insert("user_id".to_owned(), json!(user));
    push.insert("presence".to_owned(), json!(seen.state.as_str()));
    push.insert("currently_active".to_owned(), json!(seen.currently_active));
    // The schema wants it; who was never active was so before the server's time.
    let ago = seen
        .last_active_ago
        .map_or(0, |ago| u64::try_from(ago.as_millis()).unwrap_or(0));
    push.insert("last_active_ago".to_owned(), json!(ago));
    if let Some(text) = &seen.status_msg {
        push.insert("status_msg".to_owned(), json!(text));
    }
    push
}
