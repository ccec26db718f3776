//! Receipts in either order, and what else says from where users count.

use comity_protocol::id::UserId;
use comity_storage::{At, ReadError};

use super::{Broken, Room, Walk, events::place, names::Tally};
use crate::{
    live::totals_after,
    receipts::counted_from,
    tables::{
        Erasures, EventNums, Receipt, ReceiptMoves, Receipts, RoomPlace, RoomReceipt,
        RoomReceiptAt, RoomRulesets, RoomText, Timeline, Totals, Turns,
    },
};

impl Walk<'_> {
    pub(super) async fn receipts(&mut self, room: &Room, tally: &Tally) -> Result<(), ReadError> {
        let mut receipts = room.pages::<Receipts>();
        let mut moved = 0;
        while let Some(page) = self.page(&mut receipts).await? {
            let page = page.into_iter().map(|(key, row)| (key, row.pos, row.value));
            let rows: Vec<(RoomReceipt, u64, Receipt)> = page.collect();
            moved += self.moves(room, &rows).await?;
            self.places(room, &rows).await?;
            self.totals(room, &rows).await?;
        }
        let mut moves = room.pages::<ReceiptMoves>();
        while let Some(page) = self.page(&mut moves).await? {
            let keys = page.iter().map(|(key, _)| RoomReceipt {
                room: key.room,
                user: key.user.clone(),
                kind: key.kind.clone(),
                thread: key.thread.clone(),
            });
            let keys: Vec<RoomReceipt> = keys.collect();
            moved -= i64::try_from(keys.len()).unwrap_or(i64::MAX);
            if moved >= 0 {
                continue;
            }
            // There are more than receipts, here or on a page before: that is said of the last ones.
            let found = self.reader.get_many::<Receipts>(&keys).await?;
            for ((key, _), row) in page.iter().zip(found) {
                if row.map(|row| At::Is(row.pos)) != Some(key.pos) {
                    self.say(room, Broken::Receipt, format_args!("user {}", key.user));
                }
            }
        }
        if moved != 0 {
            self.say(room, Broken::Receipt, "receipts by position");
        }
        self.counting(room, tally).await
    }

    /// Receipts that users gave have a row by the position that moved them; how many there are.
    async fn moves(
        &mut self,
        room: &Room,
        rows: &[(RoomReceipt, u64, Receipt)],
    ) -> Result<i64, ReadError> {
        let given: Vec<_> = rows
            .iter()
            .filter(|(key, ..)| !key.kind.is_empty())
            .collect();
        let keys = given.iter().map(|(key, pos, _)| RoomReceiptAt {
            room: key.room,
            pos: At::Is(*pos),
            user: key.user.clone(),
            kind: key.kind.clone(),
            thread: key.thread.clone(),
        });
        let keys: Vec<RoomReceiptAt> = keys.collect();
        let moves = self.reader.get_many::<ReceiptMoves>(&keys).await?;
        let mut count = 0;
        for ((key, _, receipt), row) in given.into_iter().zip(moves) {
            count += i64::from(row.is_some());
            if row.map(|row| row.value).as_ref() != Some(receipt) {
                self.say(room, Broken::Receipt, format_args!("user {}", key.user));
            }
        }
        Ok(count)
    }

    /// Receipts are of users and at the places of their events.
    async fn places(
        &mut self,
        room: &Room,
        rows: &[(RoomReceipt, u64, Receipt)],
    ) -> Result<(), ReadError> {
        let ids = rows.iter().map(|(key, _, receipt)| RoomText {
            room: key.room,
            name: receipt.event_id.clone(),
        });
        let ids: Vec<RoomText> = ids.collect();
        let nums = self.reader.get_many::<EventNums>(&ids).await?;
        for ((key, _, receipt), num) in rows.iter().zip(nums) {
            let at = |num| room.events.get(num).place == place((receipt.seq, receipt.sub));
            let is_user = <&UserId>::try_from(key.user.as_str()).is_ok();
            if !is_user || !num.is_some_and(|num| at(num.value.0)) {
                self.say(
                    room,
                    Broken::ReceiptPlace,
                    format_args!("user {}", key.user),
                );
            }
        }
        Ok(())
    }

    /// Receipts have the totals of the live events up to which they count; what they say of threads is those'.
    async fn totals(
        &mut self,
        room: &Room,
        rows: &[(RoomReceipt, u64, Receipt)],
    ) -> Result<(), ReadError> {
        let places = rows.iter().map(|(key, _, receipt)| RoomPlace {
            room: key.room,
            seq: counted_from(receipt),
            sub: 0,
        });
        let places: Vec<RoomPlace> = places.collect();
        let entries = self.reader.get_many::<Timeline>(&places).await?;
        for ((key, _, receipt), entry) in rows.iter().zip(entries) {
            let there = entry.map_or_else(Totals::default, |row| row.value.totals);
            if totals_after(&receipt.totals) != totals_after(&there) {
                self.say(
                    room,
                    Broken::ReceiptTotals,
                    format_args!("user {}", key.user),
                );
            }
        }
        Ok(())
    }

    /// Turns to rulesets, events that count otherwise, erasures: nothing is beyond what the room has.
    async fn counting(&mut self, room: &Room, tally: &Tally) -> Result<(), ReadError> {
        let last = room.head.seq;
        if tally.hit > last {
            self.say(room, Broken::Hit, format_args!("seq {}", tally.hit));
        }
        let rulesets = self.reader.get::<RoomRulesets>(&room.in_room()).await?;
        let rulesets = rulesets.map_or(0, |row| row.value.0.len());
        let mut turns = room.pages::<Turns>();
        while let Some(page) = self.page(&mut turns).await? {
            for (key, row) in page {
                if usize::from(row.value.0) > rulesets || key.seq > last {
                    self.say(room, Broken::Turn, format_args!("user {}", key.user));
                }
            }
        }
        let mut erasures = room.pages::<Erasures>();
        while let Some(page) = self.page(&mut erasures).await? {
            for (key, row) in page {
                if row.value.seq > last {
                    self.say(room, Broken::Erasure, format_args!("user {}", key.name));
                }
            }
        }
        Ok(())
    }
}
