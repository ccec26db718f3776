//! Read receipts.
//!
//! A receipt has two rows: by user, thread and kind, which says how far they have read and never
//! moves back; and by the position that moved it, which is what a sync reads. A user's *read
//! position*, from which unread counts begin, is the furthest of their receipts, their join, and
//! what they wrote themselves.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use std::collections::BTreeMap;

use comity_protocol::id::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId};
use comity_storage::{At, Home, Pos, Range, Reader, RoomKey};

use crate::{
    change::Change,
    error::RoomError,
    event::read_id,
    live::totals_after,
    log,
    num::EventNum,
    rooms::Rooms,
    tables::{
        EventNums, Headers, Receipt, ReceiptMoves, Receipts, Related, RoomNum, RoomPlace,
        RoomReceipt, RoomReceiptAt, RoomRelated, RoomSeq, RoomText, Scope, Statuses, ThreadOrder,
        Timeline, Totals,
    },
};

/// Who may see a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReceiptKind {
    /// `m.read`: everybody in the room.
    Read,
    /// `m.read.private`: its owner.
    ReadPrivate,
}

impl ReceiptKind {
    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "m.read" => Some(Self::Read),
            "m.read.private" => Some(Self::ReadPrivate),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "m.read",
            Self::ReadPrivate => "m.read.private",
        }
    }
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReceipt {
    /// Whose.
    pub user: OwnedUserId,
    /// Of which kind.
    pub kind: ReceiptKind,
    /// `thread_id`: `main`, or the id of a thread's root.
    pub thread: Option<String>,
    /// The last event read.
    pub event_id: OwnedEventId,
    /// When, in milliseconds since 1970.
    pub ts: u64,
}

impl Rooms {
    /// Moves a user's receipt, forward only; answers whether it moved.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] for someone who isn't in the room, [`RoomError::UnknownEvent`],
    /// [`RoomError::Invalid`] for a thread that can't be one.
    pub async fn set_receipt(
        &self,
        user: &UserId,
        room_id: &RoomId,
        kind: ReceiptKind,
        event_id: &EventId,
        thread: Option<&str>,
    ) -> Result<bool, RoomError> {
        let now = self.now();
        self.move_receipt(user, room_id, kind, event_id, thread, now)
            .await
    }

    /// Moves the `m.read` receipt of another server's user, made at `ts`, forward only; answers
    /// whether it moved.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#receipts>
    ///
    /// # Errors
    /// As [`Rooms::set_receipt`].
    pub async fn receive_receipt(
        &self,
        user: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
        thread: Option<&str>,
        ts: u64,
    ) -> Result<bool, RoomError> {
        self.move_receipt(user, room_id, ReceiptKind::Read, event_id, thread, ts)
            .await
    }

    async fn move_receipt(
        &self,
        user: &UserId,
        room_id: &RoomId,
        kind: ReceiptKind,
        event_id: &EventId,
        thread: Option<&str>,
        ts: u64,
    ) -> Result<bool, RoomError> {
        if thread.is_some_and(|thread| thread != "main" && EventId::parse(thread).is_err()) {
            return Err(RoomError::Invalid("thread_id is neither main nor an event"));
        }
        let mut change = self.change(room_id).await?;
        change.must_be_joined(user).await?;
        let (seq, sub) = change.place_of(event_id).await?;
        let room = RoomKey::of(room_id.as_str());
        let thread = thread.unwrap_or_default();
        let totals = change.totals_at(seq, sub, thread).await?;
        let receipt = Receipt {
            event_id: event_id.to_string(),
            seq,
            sub,
            ts,
            totals,
        };
        let key = RoomReceipt {
            room,
            user: user.to_string(),
            kind: kind.as_str().to_owned(),
            thread: thread.to_owned(),
        };
        let old = change.live()?.reader().get::<Receipts>(&key).await?;
        let moves = |pos| RoomReceiptAt {
            room,
            pos,
            user: key.user.clone(),
            kind: key.kind.clone(),
            thread: key.thread.clone(),
        };
        if let Some(old) = old {
            if (old.value.seq, old.value.sub) >= (seq, sub) {
                return Ok(false);
            }
            change
                .batch()
                .delete::<ReceiptMoves>(&moves(At::Is(old.pos)));
        }
        if thread.is_empty() {
            change.sweep(user.as_str(), seq).await?;
        }
        let moved = log::ReceiptMoved {
            user: key.user.clone(),
            private: kind == ReceiptKind::ReadPrivate,
        };
        let record = log::record(log::kind::RECEIPT, room_id.as_str(), &moved)?;
        change
            .batch()
            .put::<Receipts>(&key, &receipt)
            .put::<ReceiptMoves>(&moves(At::Commit), &receipt)
            .log(record);
        if !key.thread.is_empty() {
            change.fold(&key, &receipt).await?;
        }
        change.commit().await?;
        Ok(true)
    }

    /// The receipts of a room that moved after a position and not beyond the reader's bound, as
    /// `viewer` may see them, in the order in which they moved.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn receipts_after(
        &self,
        reader: &Reader,
        room_id: &RoomId,
        after: Pos,
        viewer: &UserId,
    ) -> Result<Vec<ReadReceipt>, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let bound = reader.bound(Home::Room(room));
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .from(|key| {
            key.u64(after.saturating_add(1));
        })
        .until(|key| {
            key.u64(bound.saturating_add(1));
        });
        let rows = reader.scan::<ReceiptMoves>(range).await?;
        rows.into_iter()
            .map(|(key, row)| read_receipt(&key.user, &key.kind, key.thread, &row.value))
            .filter(|receipt| {
                receipt.as_ref().map_or(true, |receipt| {
                    receipt.kind == ReceiptKind::Read || receipt.user == viewer
                })
            })
            .collect()
    }

    /// The receipts on the events from a place of the room's order on, as `viewer` may see them, and all of their own. Reads no more
    /// than what moved since the event at that place came: nobody has read it before.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn receipts_from(
        &self,
        reader: &Reader,
        room_id: &RoomId,
        from: Option<(i64, i64)>,
        viewer: &UserId,
    ) -> Result<Vec<ReadReceipt>, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let mut receipts = self.receipts_of(reader, viewer, room_id).await?;
        let Some((seq, sub)) = from else {
            return Ok(receipts);
        };
        let place = RoomPlace { room, seq, sub };
        if let Some(event) = reader.get::<Timeline>(&place).await? {
            let before = event.pos.saturating_sub(1);
            let moved = self.receipts_after(reader, room_id, before, viewer);
            let moved = moved.await?.into_iter();
            receipts.extend(moved.filter(|receipt| receipt.user != viewer));
        }
        Ok(receipts)
    }

    /// A user's receipts in a room, private ones included.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn receipts_of(
        &self,
        reader: &Reader,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Vec<ReadReceipt>, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let rows = positions(reader, user.as_str(), room).await?;
        rows.into_iter()
            .filter(|(key, _)| !key.kind.is_empty())
            .map(|(key, row)| read_receipt(&key.user, &key.kind, key.thread, &row))
            .collect()
    }
}

/// Threads looked at for a new base at the most.
const FOLDED: usize = 1_000;

/// How far a user has read in a room, by kind and thread.
pub(crate) async fn positions(
    reader: &Reader,
    user: &str,
    room: RoomKey,
) -> Result<Vec<(RoomReceipt, Receipt)>, RoomError> {
    let range = Range::of(Home::Room(room), |key| {
        key.room(room).str(user);
    });
    let rows = reader.scan::<Receipts>(range).await?;
    Ok(rows
        .into_iter()
        .map(|(key, row)| (key, row.value))
        .collect())
}

/// The last live event that a receipt covers.
pub(crate) fn counted_from(receipt: &Receipt) -> i64 {
    if receipt.sub < 0 {
        receipt.seq - 1
    } else {
        receipt.seq
    }
}

/// What holds for the main timeline and for threads, by the roots' numbers; of several the furthest.
pub(crate) async fn scopes<T: Clone>(
    reader: &Reader,
    room: RoomKey,
    scoped: Vec<(String, T)>,
    seq: impl Fn(&T) -> i64,
) -> Result<(Option<T>, BTreeMap<u32, T>), RoomError> {
    let named: Vec<RoomText> = scoped
        .iter()
        .map(|(name, _)| RoomText {
            room,
            name: name.clone(),
        })
        .collect();
    let nums = reader.get_many::<EventNums>(&named).await?;
    let (mut main, mut threads) = (None::<T>, BTreeMap::<u32, T>::new());
    for ((name, from), num) in scoped.into_iter().zip(nums) {
        let root = match name.strip_prefix('#') {
            Some(root) => root.parse().ok(),
            None => num.map(|row| row.value.0),
        };
        match root {
            _ if name == "main" => {
                main = main.filter(|known| seq(known) >= seq(&from)).or(Some(from));
            }
            Some(root) => {
                let known = threads.entry(root).or_insert_with(|| from.clone());
                if seq(known) < seq(&from) {
                    *known = from;
                }
            }
            None => {}
        }
    }
    Ok((main, threads))
}

fn read_receipt(
    user: &str,
    kind: &str,
    thread: String,
    receipt: &Receipt,
) -> Result<ReadReceipt, RoomError> {
    let damaged = |what: &str| RoomError::Damaged(format!("a stored receipt has no {what}"));
    Ok(ReadReceipt {
        user: OwnedUserId::try_from(user).map_err(|_| damaged("user"))?,
        kind: ReceiptKind::from_name(kind).ok_or_else(|| damaged("kind"))?,
        thread: Some(thread).filter(|thread| !thread.is_empty()),
        event_id: read_id(&receipt.event_id)?,
        ts: receipt.ts,
    })
}

impl Change {
    /// Where counts begin moves to the place up to which the main timeline and all threads are read,
    /// so that a client that reads thread by thread doesn't count from its join for ever. `moved` is
    /// the receipt of this change.
    async fn fold(&mut self, moved: &RoomReceipt, receipt: &Receipt) -> Result<(), RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let mut read = positions(&reader, &moved.user, room).await?;
        read.push((moved.clone(), receipt.clone()));
        let whole = read.iter().filter(|(key, _)| key.thread.is_empty());
        let Some(base) = whole.map(|(_, receipt)| receipt.seq).max() else {
            return Ok(());
        };
        let scoped: Vec<(String, i64)> = read
            .iter()
            .filter(|(key, receipt)| !key.thread.is_empty() && receipt.seq > base)
            .map(|(key, receipt)| (key.thread.clone(), counted_from(receipt)))
            .collect();
        let (main, threads) = scopes(&reader, room, scoped, |seq| *seq).await?;
        let Some(mut to) = main.filter(|main| *main > base) else {
            return Ok(());
        };
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .from(|key| {
            key.i64(base.saturating_add(1));
        });
        let written = reader.scan::<ThreadOrder>(range.limit(FOLDED + 1)).await?;
        if written.len() > FOLDED {
            return Ok(());
        }
        for (RoomSeq { seq: latest, .. }, root) in written {
            let read = threads.get(&root.value.0).copied().unwrap_or(base);
            if read < latest {
                to = to.min(read);
            }
        }
        let place = RoomPlace {
            room,
            seq: to,
            sub: 0,
        };
        let Some(entry) = reader.get::<Timeline>(&place).await?.filter(|_| to > base) else {
            return Ok(());
        };
        let num = entry.value.num;
        let header = reader.get::<Headers>(&RoomNum { room, num }).await?;
        let base = Receipt {
            event_id: header.map_or_else(String::new, |row| row.value.event_id),
            seq: to,
            sub: 0,
            ts: receipt.ts,
            totals: entry.value.totals,
        };
        let key = |thread: String| RoomReceipt {
            room,
            user: moved.user.clone(),
            kind: String::new(),
            thread,
        };
        self.batch().put::<Receipts>(&key(String::new()), &base);
        for (old, receipt) in read {
            if old.kind.is_empty() && !old.thread.is_empty() && receipt.seq <= to {
                self.batch().delete::<Receipts>(&key(old.thread));
            }
        }
        self.sweep(&moved.user, to).await
    }

    /// The place of an event in the room's order.
    async fn place_of(&self, event_id: &EventId) -> Result<(i64, i64), RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let name = event_id.to_string();
        let num = reader.get::<EventNums>(&RoomText { room, name }).await?;
        let num = num.ok_or(RoomError::UnknownEvent)?.value.0;
        let status = reader.get::<Statuses>(&RoomNum { room, num }).await?;
        status
            .and_then(|row| row.value.place)
            .ok_or(RoomError::UnknownEvent)
    }

    /// The running totals at a place of the order, with those of a thread there. History fetched
    /// later counts nothing, so a place in it has the totals of the live event before.
    async fn totals_at(&self, seq: i64, sub: i64, thread: &str) -> Result<Totals, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let seq = if sub < 0 { seq - 1 } else { seq };
        let entry = reader
            .get::<Timeline>(&RoomPlace { room, seq, sub: 0 })
            .await?;
        let mut totals = entry.map_or_else(Totals::default, |row| totals_after(&row.value.totals));
        if !thread.is_empty() && thread != "main" {
            let name = thread.to_owned();
            if let Some(row) = reader.get::<EventNums>(&RoomText { room, name }).await? {
                let root = [EventNum(row.value.0)];
                let there = thread_totals(&reader, room, &root, seq).await?.pop();
                let there = there.unwrap_or_default();
                for (place, total) in (0..).zip(&mut totals.0) {
                    total.thread = there.of(place).thread;
                }
            }
        }
        Ok(totals)
    }
}

/// Threads' running totals at a place of the order: each those of its last event up to there.
pub(crate) async fn thread_totals(
    reader: &Reader,
    room: RoomKey,
    roots: &[EventNum],
    seq: i64,
) -> Result<Vec<Totals>, RoomError> {
    let ranges = roots.iter().map(|root| {
        Range::of(Home::Room(room), |key| {
            key.room(room).u32(root.0).u64(Scope::Thread.hash());
        })
        .until(|key| {
            key.i64(seq.saturating_add(1));
        })
        .reverse()
        .limit(1)
    });
    let last = reader.scan_many::<Related>(ranges.collect()).await?;
    let places: Vec<Option<RoomPlace>> = last
        .into_iter()
        .map(|mut rows| rows.pop())
        .map(|row| row.map(|(RoomRelated { seq, sub, .. }, _)| RoomPlace { room, seq, sub }))
        .collect();
    let keys: Vec<RoomPlace> = places.iter().flatten().cloned().collect();
    let mut entries = reader.get_many::<Timeline>(&keys).await?.into_iter();
    let mut total = |place: Option<RoomPlace>| {
        let entry = place.and_then(|_| entries.next().flatten());
        entry.map_or_else(Totals::default, |row| row.value.totals)
    };
    Ok(places.into_iter().map(&mut total).collect())
}
