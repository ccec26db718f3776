//! What lives in memory or is told only as its latest: typing, receipts, presence.
//!
//! Typing and presence have serials of their own per run of the server; a token of another run
//! says nothing about them, and its holder is told what there is now. Of typing it says in which rooms
//! there was some, so that whoever saw it is told that it is over.

use std::collections::{BTreeMap, BTreeSet};

use comity_accounts::presence::Seen;
use comity_protocol::id::UserId;
use comity_rooms::{ReadReceipt, RoomView};
use comity_storage::{Home, RoomKey};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Request, Sync, SyncError,
    answer::{Events, Sections},
    build::{Build, raw},
    room::RoomSync,
    token::{Ephemeral, RoomPrefix, SyncToken, prefix},
};

/// Rooms that a token says somebody was shown to type in, at the most; who sees more types on there after a restart.
const TYPING_IN: usize = 16;

impl Sync {
    /// Where typing and presence stand now.
    pub(crate) fn ephemeral(&self) -> Ephemeral {
        let presence = *self.0.accounts.presence().watch().borrow();
        Ephemeral {
            node: self.0.index.node(),
            typing: self.0.rooms.typing().serial(),
            presence,
        }
    }

    /// How far a token has come in this run: nowhere, if it is of another.
    pub(crate) fn known(&self, since: Option<&SyncToken>) -> Option<Ephemeral> {
        since
            .map(|since| since.ephemeral)
            .filter(|known| known.node == self.0.index.node())
    }

    /// The presence of those who share a room with the user, where it changed; of everybody in the
    /// rooms that are `new` to them, and of the `newcomers` to their rooms.
    pub(crate) async fn presence(
        &self,
        request: &Request,
        known: Option<Ephemeral>,
        new: &BTreeSet<comity_storage::RoomKey>,
        newcomers: &[String],
    ) -> Result<Events, SyncError> {
        let presence = self.0.accounts.presence();
        let (changed, _) = presence.since(known.map_or(0, |known| known.presence));
        // Whose rooms aren't known yet would seem to share none, and be told of never.
        for (user, _) in &changed {
            if let Ok(user) = <&UserId>::try_from(user.as_str()) {
                self.0.index.user(&self.0.rooms, user).await?;
            }
        }
        let mut told: BTreeMap<String, Seen> = changed
            .into_iter()
            .filter(|(user, _)| self.0.index.share(&request.user, user))
            .collect();
        let here = new.iter().flat_map(|room| self.0.index.joined_in(*room));
        for user in here.chain(newcomers.iter().map(|user| user.as_str().into())) {
            let seen = presence.get(&user);
            if seen.last_active_ago.is_some() {
                told.insert(user.to_string(), seen);
            }
        }
        let filter = &request.filter.presence;
        let wanted = told
            .into_iter()
            .filter(|(user, _)| filter.wants_type("m.presence") && filter.wants_sender(user));
        let events = wanted.filter_map(|(user, seen)| raw(&presence_event(&user, &seen)));
        Ok(Events {
            events: events.collect(),
        })
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#mpresence>
fn presence_event(user: &str, seen: &Seen) -> Value {
    let mut content = serde_json::Map::new();
    content.insert("presence".into(), seen.state.as_str().into());
    content.insert("currently_active".into(), seen.currently_active.into());
    if let Some(status) = &seen.status_msg {
        content.insert("status_msg".into(), status.clone().into());
    }
    if let Some(ago) = seen.last_active_ago {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        content.insert("last_active_ago".into(), ago.into());
    }
    json!({ "type": "m.presence", "sender": user, "content": content })
}

impl RoomSync<'_> {
    /// Typing and receipts of the room, where they changed; and whether somebody types, where that is told.
    pub(crate) async fn ephemeral(
        &self,
        view: &RoomView,
    ) -> Result<(Events, Option<bool>), SyncError> {
        let filter = &self.build.request.filter.room.ephemeral;
        let mut events = Events::default();
        if !filter.wants_room(view.room_id().as_str()) {
            return Ok((events, None));
        }
        let typing = self.typing(view).filter(|_| filter.wants_type("m.typing"));
        let (event, types) = typing.unzip();
        events.events.extend(event);
        if filter.wants_type("m.receipt") {
            events.events.extend(self.receipts(view).await?);
        }
        Ok((events, types))
    }

    fn typing(&self, view: &RoomView) -> Option<(Box<RawValue>, bool)> {
        let typing = self.sync.0.rooms.typing();
        let users = match self.build.known.filter(|_| self.was_in()) {
            Some(known) => typing.changed_after(view.room_id(), known.typing)?,
            None => {
                let (_, users) = typing.users(view.room_id());
                let is_told = !users.is_empty() || self.build.has_typed(self.room);
                Some(users).filter(|_| is_told)?
            }
        };
        let event = raw(&json!({ "type": "m.typing", "content": { "user_ids": users } }))?;
        Some((event, !users.is_empty()))
    }

    async fn receipts(&self, view: &RoomView) -> Result<Option<Box<RawValue>>, SyncError> {
        let lane = self
            .sync
            .0
            .rooms
            .tenant()
            .lanes()
            .of(Home::Room(self.room).slot());
        let after = self
            .build
            .since
            .filter(|_| self.was_in())
            .map_or(0, |since| since.get(lane));
        let user = &self.build.request.user;
        let receipts = self
            .sync
            .0
            .rooms
            .receipts_after(view.reader(), view.room_id(), after, user)
            .await?;
        Ok(if receipts.is_empty() {
            None
        } else {
            raw(&receipt_event(&receipts))
        })
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#mreceipt>
pub(crate) fn receipt_event(receipts: &[ReadReceipt]) -> Value {
    let mut content: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, Value>>> = BTreeMap::new();
    for receipt in receipts {
        let told = match &receipt.thread {
            Some(thread) => json!({ "ts": receipt.ts, "thread_id": thread }),
            None => json!({ "ts": receipt.ts }),
        };
        let kinds = content.entry(receipt.event_id.as_str()).or_default();
        let users = kinds.entry(receipt.kind.as_str()).or_default();
        // The shape holds one of a user's receipts for an event: the one without a thread says more (MSC4102, a draft).
        let user = receipt.user.as_str();
        if receipt.thread.is_none() || !users.contains_key(user) {
            users.insert(user, told);
        }
    }
    json!({ "type": "m.receipt", "content": content })
}

impl Build<'_> {
    /// Whether somebody has begun or ceased to type anywhere since the last answer.
    pub(crate) fn typing_changed(&self, now: Ephemeral) -> bool {
        self.known.is_none_or(|known| now.typing > known.typing)
    }

    /// Whether the client was shown somebody type in a room by a run that is over.
    pub(crate) fn has_typed(&self, room: RoomKey) -> bool {
        self.typed.contains(&prefix(room))
    }
}

/// The rooms in which a client was shown somebody type, with what this answer shows: so many of them at the most.
pub(crate) fn typing_in(before: &[RoomPrefix], told: &Sections) -> Vec<RoomPrefix> {
    let mut rooms: BTreeSet<RoomPrefix> = before.iter().copied().collect();
    let of = |room_id: &String| prefix(RoomKey::of(room_id));
    for (room_id, joined) in &told.join {
        match joined.typing {
            Some(true) => _ = rooms.insert(of(room_id)),
            Some(false) => _ = rooms.remove(&of(room_id)),
            None => {}
        }
    }
    for room_id in told.leave.keys() {
        rooms.remove(&of(room_id));
    }
    rooms.into_iter().take(TYPING_IN).collect()
}
