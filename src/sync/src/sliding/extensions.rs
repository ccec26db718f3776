//! What is asked for besides rooms.
//!
//! Each has its own way of knowing what the client has: messages to the device a token of their own, device lists the request's
//! position, all that belongs to rooms a position or serial a room ([`Known`]). So a room may leave the windows and come back, and
//! what was missed is told.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4508>

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::id::RoomId;
use comity_rooms::ReadReceipt;
use comity_storage::{Home, Pos, Reader, RoomKey};
use futures_util::{future::try_join_all, try_join};
use serde_json::{json, value::RawValue};

use super::{
    AccountData, E2ee, ExtensionsAnswer, Messages, Scope, SlidingRequest, ThreadUpdates,
    WantedMessages, WantedThreads, connection::At, lists::Wanted, looked::Look, threads::Threads,
};
use crate::{
    Sync, SyncError,
    build::{between, raw},
    ephemeral::receipt_event,
    tables::Known,
    token::Ephemeral,
};

/// What the answer tells of a room so far.
#[derive(Default)]
pub(super) struct Telling {
    /// What the client knows then.
    pub known: Known,
    /// The events it is given.
    pub events: BTreeSet<String>,
    /// The place of the first of them; where some were missing and came later than those after them, of the first of the others.
    pub from: Option<(i64, i64)>,
}

/// Rooms looked at side by side.
const CHUNK: usize = 32;

/// What extensions are told from.
pub(super) struct Extending<'a> {
    pub sync: &'a Sync,
    pub request: &'a SlidingRequest,
    pub at: &'a At,
    /// Reads up to the answer's heads.
    pub reader: &'a Reader,
    /// How far the answer goes in what lives in memory.
    pub ephemeral: Ephemeral,
    pub wanted: &'a [Wanted],
}

/// A room that the client knows, of which more may be told.
struct Room<'w, 'e> {
    wanted: &'w Wanted,
    room_id: &'w RoomId,
    known: Known,
    /// What this answer tells of it, if it has a part for it.
    told: Option<&'e Telling>,
}

/// What extensions have to say of a room, and what the client knows then.
struct OfRoom {
    data: Vec<Box<RawValue>>,
    receipts: Option<Box<RawValue>>,
    typing: Option<Box<RawValue>>,
    known: Known,
}

impl Extending<'_> {
    /// What extensions say; what it makes known of rooms is added to `telling`.
    pub async fn answer(
        &self,
        telling: &mut BTreeMap<RoomKey, Telling>,
    ) -> Result<ExtensionsAnswer, SyncError> {
        let wants = &self.request.extensions;
        let (to_device, e2ee, global, threads) = try_join!(
            async {
                match wants.to_device {
                    Some(wanted) => self.messages(wanted).await.map(Some),
                    None => Ok(None),
                }
            },
            async {
                match wants.e2ee {
                    true => self.e2ee().await.map(Some),
                    false => Ok(None),
                }
            },
            async {
                match wants.account_data {
                    Some(_) => self.global_data().await,
                    None => Ok(Vec::new()),
                }
            },
            async {
                match wants.threads {
                    Some(wanted) => self.threads(wanted, telling).await.map(Some),
                    None => Ok(None),
                }
            },
        )?;
        let mut answer = ExtensionsAnswer {
            to_device,
            e2ee,
            account_data: wants.account_data.is_some().then(|| AccountData {
                global,
                rooms: BTreeMap::new(),
            }),
            receipts: wants.receipts.is_some().then(BTreeMap::new),
            typing: wants.typing.is_some().then(BTreeMap::new),
            threads,
        };
        let told = self.rooms(telling).await?;
        for (wanted, told) in told {
            let room_id: &str = &wanted.listed.place.room_id;
            let has_data = !told.data.is_empty();
            if let Some(data) = answer.account_data.as_mut().filter(|_| has_data) {
                data.rooms.insert(room_id.to_owned(), told.data);
            }
            if let (Some(receipts), Some(event)) = (&mut answer.receipts, told.receipts) {
                receipts.insert(room_id.to_owned(), event);
            }
            if let (Some(typing), Some(event)) = (&mut answer.typing, told.typing) {
                typing.insert(room_id.to_owned(), event);
            }
            let entry = telling.entry(wanted.listed.room);
            entry.or_default().known = told.known;
        }
        Ok(answer)
    }

    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4538>
    async fn messages(&self, wanted: WantedMessages) -> Result<Messages, SyncError> {
        let (user, device) = (&self.request.user, &self.request.device);
        let newest = self.sync.0.index.newest_message(user);
        let to_device = &self.sync.0.to_device;
        let delivery = to_device.deliver(
            self.reader,
            user,
            device,
            wanted.since,
            newest,
            wanted.limit,
        );
        let delivery = delivery.await?;
        Ok(Messages {
            next_batch: delivery.upto,
            events: delivery.events,
        })
    }

    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4543>
    async fn e2ee(&self) -> Result<E2ee, SyncError> {
        let user = &self.request.user;
        let since = self.at.position.as_ref().map(|position| position.token());
        let (left, device_lists) =
            try_join!(self.sync.keys_left(user, &self.request.device), async {
                match &since {
                    Some(since) => {
                        let lists = self.sync.device_lists(user, &since.heads, self.reader);
                        lists.await.map(Some)
                    }
                    None => Ok(None),
                }
            },)?;
        let had = since.map_or(0, |since| since.heads.get(self.own_lane()));
        Ok(E2ee {
            device_lists,
            one_time_keys: left.one_time_keys,
            unused_fallback: left.unused_fallback,
            changed: left.pos > had,
        })
    }

    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4360>
    async fn threads(
        &self,
        wanted: WantedThreads,
        telling: &BTreeMap<RoomKey, Telling>,
    ) -> Result<ThreadUpdates, SyncError> {
        let position = self.at.position.as_ref();
        let since = position.map(|position| self.at.looked.threads_since(position));
        let threads = Threads {
            sync: self.sync,
            user: &self.request.user,
            device: &self.request.device,
            reader: self.reader,
            since: since.as_ref(),
            from: None,
            limit: wanted.limit,
            roots: wanted.include_roots,
            told: Some(telling),
        };
        let updates = threads.updates().await?;
        if let Some(position) = position.filter(|_| updates.is_empty()) {
            let upto = self.reader.heads().clone();
            self.at.looked.no_threads(position, upto);
        }
        Ok(updates)
    }

    /// The user's own account data that the client doesn't know.
    async fn global_data(&self) -> Result<Vec<Box<RawValue>>, SyncError> {
        let user = &self.request.user;
        let after = self.at.position.as_ref().and_then(|position| position.data);
        let own_changed = |after| self.sync.0.index.own_changed(user, self.own_lane(), after);
        if after.is_some_and(|after| !own_changed(after)) {
            return Ok(Vec::new());
        }
        let data = self.sync.0.accounts.all_account_data(user.as_str()).await?;
        Ok(between(data.into_iter(), after, self.own_bound()))
    }

    /// What extensions say of rooms that the client knows and the user is in (threat E4).
    async fn rooms(
        &self,
        telling: &BTreeMap<RoomKey, Telling>,
    ) -> Result<Vec<(&Wanted, OfRoom)>, SyncError> {
        let mut rooms = Vec::new();
        for wanted in self
            .wanted
            .iter()
            .filter(|wanted| wanted.listed.place.is_joined())
        {
            let room = wanted.listed.room;
            let told = telling.get(&room);
            let known = told.map(|told| told.known).or_else(|| self.at.known(room));
            let room_id = <&RoomId>::try_from(&*wanted.listed.place.room_id);
            if let (Some(known), Ok(room_id)) = (known, room_id) {
                let room = Room {
                    wanted,
                    room_id,
                    known,
                    told,
                };
                rooms.extend(self.may_tell(&room).then_some(room));
            }
        }
        let mut told = Vec::new();
        for chunk in rooms.chunks(CHUNK) {
            let parts = chunk.iter().map(|room| async move {
                let (data, receipts) = try_join!(self.data(room), self.receipts(room))?;
                let (typing, typing_upto) = self.typing(room).unzip();
                self.looked(room, (&data).into(), (&receipts).into());
                let (data, data_upto) = data.unwrap_or((Vec::new(), room.known.data));
                let (receipts, receipts_upto) = receipts.unwrap_or((None, room.known.receipts));
                let is_news = !data.is_empty() || receipts.is_some() || typing.is_some();
                // What is told for the first time is known from now on, though there be nothing.
                let first = room.known.data == 0 || room.known.receipts == 0;
                let known = Known {
                    data: data_upto,
                    receipts: receipts_upto,
                    typing: typing_upto.unwrap_or(room.known.typing),
                    ..room.known
                };
                let keep = is_news || (room.told.is_some() && first);
                Ok::<_, SyncError>(keep.then_some(OfRoom {
                    data,
                    receipts,
                    typing,
                    known,
                }))
            });
            let parts = try_join_all(parts).await?;
            let of_rooms = chunk.iter().zip(parts);
            told.extend(of_rooms.filter_map(|(room, part)| Some((room.wanted, part?))));
        }
        Ok(told)
    }

    /// Whether there may be anything to tell: comparisons, no read.
    fn may_tell(&self, room: &Room<'_, '_>) -> bool {
        room.told.is_some()
            || self.data_moved(room)
            || self.receipts_moved(room)
            || self.typing_moved(room)
    }

    fn data_moved(&self, room: &Room<'_, '_>) -> bool {
        let wanted = self.request.extensions.account_data.as_ref();
        let looked = self.seen(room).map_or(room.known.data, |look| look.data);
        let is_later = || self.later(room, room.wanted.listed.place.data, looked);
        has(wanted, room.wanted) && (looked == 0 || is_later())
    }

    fn receipts_moved(&self, room: &Room<'_, '_>) -> bool {
        let wanted = self.request.extensions.receipts.as_ref();
        let looked = self.seen(room);
        let looked = looked.map_or(room.known.receipts, |look| look.receipts);
        let is_later = || self.later(room, room.wanted.listed.changed, looked);
        has(wanted, room.wanted) && (looked == 0 || is_later())
    }

    /// Remembers up to where nothing is to be told of a room, so that nobody looks again.
    fn looked(&self, room: &Room<'_, '_>, data: Seen, receipts: Seen) {
        if data != Seen::Nothing && receipts != Seen::Nothing {
            return;
        }
        let listed = &room.wanted.listed;
        let Some(known) = self
            .at
            .known(listed.room)
            .filter(|known| *known == room.known)
        else {
            return;
        };
        let wants = room.wanted.wants;
        let before = self.at.looked.at(listed.room, &known, wants);
        let bound = self.reader.bound(Home::Room(listed.room));
        let mut look = before.unwrap_or(Look {
            known,
            wants,
            upto: known.upto,
            data: known.data,
            receipts: known.receipts,
        });
        if data == Seen::Nothing {
            look.data = bound;
        }
        if receipts == Seen::Nothing {
            look.receipts = bound;
        }
        self.at.looked.put(listed.room, look);
    }

    /// The user's account data of a room beyond what the client knows, and up to where it then knows it; `None` where nobody need look.
    async fn data(
        &self,
        room: &Room<'_, '_>,
    ) -> Result<Option<(Vec<Box<RawValue>>, Pos)>, SyncError> {
        if !self.data_moved(room) {
            return Ok(None);
        }
        let listed = &room.wanted.listed;
        let (user, room_id) = (self.request.user.as_str(), room.room_id.as_str());
        let data = self
            .sync
            .0
            .accounts
            .account_data_of_room(user, room_id)
            .await?;
        let bound = self.reader.bound(Home::Room(listed.room));
        let after = Some(room.known.data).filter(|after| *after > 0);
        Ok(Some((between(data.into_iter(), after, bound), bound)))
    }

    /// The receipts that moved since the client knew them; at first those alone on events that it is given, and the user's own.
    async fn receipts(
        &self,
        room: &Room<'_, '_>,
    ) -> Result<Option<(Option<Box<RawValue>>, Pos)>, SyncError> {
        if !self.receipts_moved(room) {
            return Ok(None);
        }
        let (listed, user) = (&room.wanted.listed, &self.request.user);
        let bound = self.reader.bound(Home::Room(listed.room));
        let (rooms, reader, room_id) = (&self.sync.0.rooms, self.reader, room.room_id);
        let receipts = match (room.known.receipts, room.told) {
            (0, Some(told)) => {
                let receipts = rooms
                    .receipts_from(reader, room_id, told.from, user)
                    .await?;
                let counts = |receipt: &ReadReceipt| {
                    receipt.user == *user || told.events.contains(receipt.event_id.as_str())
                };
                receipts.into_iter().filter(counts).collect()
            }
            // Who asks for receipts only now is told of those that move.
            (0, None) => {
                let position = self.at.position.as_ref();
                let begun = position.map(|position| position.token().heads.get(self.lane(room)));
                let begun = begun.unwrap_or(bound);
                rooms.receipts_after(reader, room_id, begun, user).await?
            }
            (after, _) => rooms.receipts_after(reader, room_id, after, user).await?,
        };
        let event = match receipts.is_empty() {
            true => None,
            false => raw(&receipt_event(&receipts)),
        };
        Ok(Some((event, bound)))
    }

    /// Whether the client doesn't know who types in a room.
    fn typing_moved(&self, room: &Room<'_, '_>) -> bool {
        let (run, serial) = room.known.typing;
        let quiet = self.ephemeral.typing == 0 && serial == 0;
        if quiet || !has(self.request.extensions.typing.as_ref(), room.wanted) {
            return false;
        }
        // What answers told that wrote nothing counts only beside a row that says that somebody was shown.
        let known = match serial {
            0 => 0,
            _ => serial.max(self.at.looked.typing(room.wanted.listed.room)),
        };
        let (last, types) = self.sync.0.rooms.typing().last(room.room_id);
        // Whoever typed when another run ended is told to have ceased.
        let is_news = last > known || run != self.ephemeral.node;
        is_news && (types || serial > 0)
    }

    /// Who types in a room, if the client doesn't know, and what it knows then ([`Known::typing`]).
    ///
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4508>
    fn typing(&self, room: &Room<'_, '_>) -> Option<(Box<RawValue>, (u64, u64))> {
        if !self.typing_moved(room) {
            return None;
        }
        let (run, _) = room.known.typing;
        let (_, users) = self.sync.0.rooms.typing().users(room.room_id);
        let told = shown_upto(!users.is_empty(), run, self.ephemeral);
        let content = json!({ "user_ids": users });
        let event = raw(&json!({ "type": "m.typing", "content": content }))?;
        Some((event, (self.ephemeral.node, told)))
    }

    fn seen(&self, room: &Room<'_, '_>) -> Option<Look> {
        let wanted = room.wanted;
        self.at
            .looked
            .at(wanted.listed.room, &room.known, wanted.wants)
    }

    /// Whether something may have happened after a position of the room's lane, the latest known being at `last`.
    fn later(&self, room: &Room<'_, '_>, last: Pos, after: Pos) -> bool {
        last > after || after < self.sync.0.index.start(self.lane(room))
    }

    fn lane(&self, room: &Room<'_, '_>) -> comity_storage::Lane {
        let lanes = self.sync.0.rooms.tenant().lanes();
        lanes.of(Home::Room(room.wanted.listed.room).slot())
    }

    fn own_lane(&self) -> comity_storage::Lane {
        let home = Home::User(self.request.user.as_str());
        self.sync.0.rooms.tenant().lanes().of(home.slot())
    }

    fn own_bound(&self) -> Pos {
        self.reader.bound(Home::User(self.request.user.as_str()))
    }
}

/// What was found where somebody looked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// Something, or nobody looked.
    Else,
}

impl From<&Option<(Vec<Box<RawValue>>, Pos)>> for Seen {
    fn from(found: &Option<(Vec<Box<RawValue>>, Pos)>) -> Self {
        match found {
            Some((events, _)) if events.is_empty() => Self::Nothing,
            _ => Self::Else,
        }
    }
}

impl From<&Option<(Option<Box<RawValue>>, Pos)>> for Seen {
    fn from(found: &Option<(Option<Box<RawValue>>, Pos)>) -> Self {
        match found {
            Some((None, _)) => Self::Nothing,
            _ => Self::Else,
        }
    }
}

/// Up to which serial a client knows who types, of whom there are some or none, where it knew so in this `run` or in another. Where
/// nobody was shown in this run, nobody has to be told to have ceased in the next: 0.
fn shown_upto(types: bool, run: u64, now: Ephemeral) -> u64 {
    match types || run == now.node {
        true => now.typing.max(1),
        false => 0,
    }
}

/// Whether a room is among those that an extension is wanted of.
fn has(scope: Option<&Scope>, wanted: &Wanted) -> bool {
    let Some(scope) = scope else { return false };
    let in_lists = match &scope.lists {
        None => !wanted.lists.is_empty(),
        Some(lists) => !wanted.lists.is_disjoint(lists),
    };
    let subscribed = wanted.subscribed
        && scope
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(&*wanted.listed.place.room_id));
    in_lists || subscribed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSC4508: whoever was shown is remembered as shown, though they began while the answer was made, the first of this run.
    #[test]
    fn whoever_is_shown_to_type_is_remembered() {
        let now = |typing| Ephemeral {
            node: 7,
            typing,
            presence: 0,
        };
        for (types, run, serial, expected) in [
            (true, 7, 5, 5),
            (true, 7, 0, 1),
            (true, 3, 0, 1),
            (false, 7, 5, 5),
            (false, 3, 5, 0),
        ] {
            let upto = shown_upto(types, run, now(serial));
            assert_eq!(upto, expected, "{types} {run} {serial}");
        }
    }
}
