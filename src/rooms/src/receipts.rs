//! Read receipts.
//!
//! A receipt has two rows: by user, thread and kind, which says how far they have read and never
//! moves back; and by the position that moved it, which is what a sync reads. A user's *read
//! position*, from which unread counts begin, is the furthest of their receipts, their join, and
//! what they wrote themselves.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use comity_protocol::{
    auth::Membership,
    id::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId},
};
use comity_storage::{At, Home, Pos, Range, Reader, RoomKey};

use crate::{
    change::Change,
    error::RoomError,
    event::read_id,
    log,
    num::EventNum,
    rooms::Rooms,
    tables::{
        self, EventNums, Receipt, ReceiptMoves, Receipts, RoomNum, RoomPlace, RoomReceipt,
        RoomReceiptAt, RoomText, Statuses, Tally, Timeline, Totals,
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
        if change.membership(user).await? != Membership::Join {
            return Err(RoomError::Forbidden("the user is not in the room"));
        }
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
            change.sweep_hits(user.as_str(), seq).await?;
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

    /// A user's receipts in a room, private ones included.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn receipts_of(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Vec<ReadReceipt>, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let rows = positions(&self.tenant().reader(), user.as_str(), room).await?;
        rows.into_iter()
            .filter(|(key, _)| !key.kind.is_empty())
            .map(|(key, row)| read_receipt(&key.user, &key.kind, key.thread, &row))
            .collect()
    }
}

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
        let mut totals = entry.map_or_else(Totals::default, |row| row.value.totals);
        totals.thread = if thread.is_empty() || thread == "main" {
            Tally::default()
        } else {
            let name = thread.to_owned();
            match reader.get::<EventNums>(&RoomText { room, name }).await? {
                Some(row) => thread_total(&reader, room, EventNum(row.value.0), seq).await?,
                None => Tally::default(),
            }
        };
        Ok(totals)
    }
}

/// A thread's running total at a place of the order: that of its last event up to there.
pub(crate) async fn thread_total(
    reader: &Reader,
    room: RoomKey,
    root: EventNum,
    seq: i64,
) -> Result<Tally, RoomError> {
    let range = Range::of(Home::Room(room), |key| {
        key.room(room).u32(root.0);
    })
    .until(|key| {
        key.i64(seq.saturating_add(1));
    })
    .reverse()
    .limit(64);
    for (key, row) in reader.scan::<tables::Relations>(range).await? {
        if row.value.rel_type == "m.thread" {
            let (seq, sub) = (key.seq, key.sub);
            let entry = reader
                .get::<Timeline>(&RoomPlace { room, seq, sub })
                .await?;
            return Ok(entry.map_or_else(Tally::default, |row| row.value.totals.thread));
        }
    }
    Ok(Tally::default())
}
