//! Rows that are found from elsewhere than their room: from a user, a bare id, an alias, a day.

use std::collections::BTreeMap;

use comity_protocol::id::UserId;
use comity_storage::{Home, Pages, Range, ReadError, RoomKey, Table};

use super::{Broken, Room, Walk, events::place, hash};
use crate::tables::{
    self, Alias, Aliases, Directory, EventNums, Heads, Hits, IdRoom, IdRooms, InRoom, Infos,
    Members, Mode, OutOfBands, RoomAliases, RoomNum, RoomText, RoomTxn, Statuses, Summaries, Txns,
    Upgrades, UserRoom, Verdict,
};

/// Ids, by what doesn't depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IdSum {
    count: u64,
    sum: u64,
}

impl IdSum {
    pub fn add(&mut self, id: &str) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash(&id));
    }
}

/// What such rows say of a room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Rows of memberships that are the state's.
    pub members: u64,
    /// The last event that counts otherwise for a user.
    pub hit: i64,
    ids: IdSum,
}

/// What they say of each room.
#[derive(Debug, Default)]
pub(super) struct Tallies(BTreeMap<RoomKey, Tally>);

impl Tallies {
    /// Those of a room, which are asked for once.
    pub fn take(&mut self, room: RoomKey) -> Tally {
        self.0.remove(&room).unwrap_or_default()
    }

    fn of(&mut self, room: RoomKey) -> &mut Tally {
        self.0.entry(room).or_default()
    }
}

impl Walk<'_> {
    /// Counts them.
    pub(super) async fn tally(&mut self, tallies: &mut Tallies) -> Result<(), ReadError> {
        let mut ids = Pages::<IdRooms>::all();
        while let Some(page) = self.page(&mut ids).await? {
            for (key, _) in page {
                tallies.of(key.room).ids.add(&key.event_id);
            }
        }
        let mut members = Pages::<Members>::all();
        while let Some(page) = self.page(&mut members).await? {
            let mut outside = Vec::new();
            for (key, row) in page {
                if row.value.num == 0 {
                    outside.push((key, row.value));
                } else {
                    tallies.of(key.room).members += 1;
                }
            }
            self.outside(outside).await?;
        }
        let mut hits = Pages::<Hits>::all();
        while let Some(page) = self.page(&mut hits).await? {
            for (key, _) in page {
                let tally = tallies.of(key.room);
                tally.hit = tally.hit.max(key.seq);
            }
        }
        Ok(())
    }

    /// Memberships that no state speaks of: of rooms that we aren't in, or weren't.
    async fn outside(&mut self, rows: Vec<(UserRoom, tables::Member)>) -> Result<(), ReadError> {
        let keys: Vec<RoomText> = rows
            .iter()
            .map(|(key, _)| RoomText {
                room: key.room,
                name: key.user.clone(),
            })
            .collect();
        let kept = self.reader.get_many::<OutOfBands>(&keys).await?;
        for ((key, member), kept) in rows.into_iter().zip(kept) {
            let fits = match kept {
                Some(kept) => kept.value.membership == member.membership,
                // What we entered meanwhile doesn't know the user.
                None => ["leave", "ban"].contains(&member.membership.as_str()),
            };
            if !fits || RoomKey::of(&member.room_id) != key.room {
                let at = format_args!("user {}", key.user);
                self.found(&member.room_id, Broken::OutOfBand, at);
            }
        }
        Ok(())
    }

    /// Rows of rooms that aren't there.
    pub(super) async fn leftovers(&mut self, tallies: &Tallies) -> Result<(), ReadError> {
        for (room, tally) in &tallies.0 {
            if tally.members > 0 || tally.ids != IdSum::default() || tally.hit > 0 {
                let room = format!("{room:?}");
                self.found(&room, Broken::NoRoom, "rows of users, or bare ids");
            }
        }
        self.strays::<Heads>(|key| key.room).await?;
        self.strays::<Statuses>(|key| key.room).await?;
        self.strays::<tables::Timeline>(|key| key.room).await?;
        self.strays::<Summaries>(|key| key.room).await
    }

    /// Looks at the first row of each room in a table.
    async fn strays<T: Table>(
        &mut self,
        room: impl Fn(&T::Key) -> RoomKey,
    ) -> Result<(), ReadError> {
        let mut from = Some(0_u128);
        while let Some(first) = from {
            let range = Range::everywhere(|_| {}).from(|key| {
                key.fixed(&first.to_be_bytes());
            });
            let rows = self.reader.scan::<T>(range.limit(1)).await?;
            let Some((key, _)) = rows.first() else {
                return Ok(());
            };
            let room = room(key);
            let info = self.reader.get::<Infos>(&InRoom { room }).await?;
            if info.is_none() {
                self.found(&format!("{room:?}"), Broken::NoRoom, T::NAME);
            }
            from = u128::from_be_bytes(room.0).checked_add(1);
        }
        Ok(())
    }

    /// A room's events are found by their bare ids, and no others.
    pub(super) async fn bare_ids(&mut self, room: &Room, tally: &Tally) -> Result<(), ReadError> {
        if room.events.ids == tally.ids {
            return Ok(());
        }
        let is_here = |num: u32| {
            let verdict = room.events.get(num).verdict;
            verdict.is_some_and(|verdict| verdict != Verdict::Named)
        };
        let mut nums = room.pages::<EventNums>();
        while let Some(page) = self.page(&mut nums).await? {
            let mut here: Vec<(u32, IdRoom)> = Vec::new();
            for (key, row) in page {
                let (event_id, room) = (key.name, key.room);
                here.push((row.value.0, IdRoom { event_id, room }));
            }
            here.retain(|(num, _)| is_here(*num));
            let keys: Vec<IdRoom> = here.iter().map(|(_, key)| key.clone()).collect();
            let rows = self.reader.get_many::<IdRooms>(&keys).await?;
            for ((num, _), row) in here.iter().zip(rows) {
                if row.is_none() {
                    self.say(room, Broken::BareId, format_args!("event {num}"));
                }
            }
        }
        let mut ids = Pages::<IdRooms>::all();
        while let Some(page) = self.page(&mut ids).await? {
            let mut named: Vec<RoomText> = Vec::new();
            for (key, _) in page {
                let (room, name) = (key.room, key.event_id);
                named.push(RoomText { room, name });
            }
            named.retain(|key| key.room == room.key);
            let rows = self.reader.get_many::<EventNums>(&named).await?;
            for (key, row) in named.iter().zip(rows) {
                if !row.is_some_and(|row| is_here(row.value.0)) {
                    self.say(room, Broken::BareId, format_args!("id {}", key.name));
                }
            }
        }
        Ok(())
    }

    /// Aliases, the directory, transactions, memberships out of band, upgrades.
    pub(super) async fn names(&mut self) -> Result<(), ReadError> {
        let mut aliases = Pages::<Aliases>::all();
        while let Some(page) = self.page(&mut aliases).await? {
            let aliases: Vec<(String, Alias)> = page
                .into_iter()
                .map(|(key, row)| (key.name, row.value))
                .collect();
            self.aliases(aliases).await?;
        }
        let mut directory = Pages::<Directory>::all();
        while let Some(page) = self.page(&mut directory).await? {
            let rooms: Vec<InRoom> = page
                .iter()
                .map(|(key, _)| InRoom { room: key.room })
                .collect();
            let infos = self.reader.get_many::<Infos>(&rooms).await?;
            for (key, _) in rooms.iter().zip(infos).filter(|(_, info)| info.is_none()) {
                self.found(&format!("{:?}", key.room), Broken::Listed, "the directory");
            }
        }
        let mut txns = Pages::<Txns>::all();
        while let Some(page) = self.page(&mut txns).await? {
            let txns: Vec<(RoomTxn, tables::Done)> = page
                .into_iter()
                .map(|(key, row)| (key, row.value))
                .collect();
            self.transactions(txns).await?;
        }
        let mut outside = Pages::<OutOfBands>::all();
        while let Some(page) = self.page(&mut outside).await? {
            for (key, row) in page {
                self.out_of_band(&key, &row.value.membership).await?;
            }
        }
        let mut upgrades = Pages::<Upgrades>::all();
        while let Some(page) = self.page(&mut upgrades).await? {
            for (key, row) in page {
                if RoomKey::of(&row.value.room_id) != key.room {
                    self.found(&row.value.room_id, Broken::Upgrade, "the upgrade");
                }
            }
        }
        Ok(())
    }

    /// Aliases that lead to a room are in its list.
    async fn aliases(&mut self, aliases: Vec<(String, Alias)>) -> Result<(), ReadError> {
        let room = |alias: &Alias| RoomKey::of(&alias.room_id);
        let rooms = aliases
            .iter()
            .map(|(_, alias)| InRoom { room: room(alias) });
        let rooms: Vec<InRoom> = rooms.collect();
        let lists = aliases.iter().map(|(name, alias)| RoomText {
            room: room(alias),
            name: name.clone(),
        });
        let lists: Vec<RoomText> = lists.collect();
        let (infos, listed) = futures_util::try_join!(
            self.reader.get_many::<Infos>(&rooms),
            self.reader.get_many::<RoomAliases>(&lists),
        )?;
        for (((name, alias), info), listed) in aliases.into_iter().zip(infos).zip(listed) {
            // One whose room is still being made, or never came to be, leads nowhere.
            if info.is_some() && listed.is_none() {
                self.found(&alias.room_id, Broken::Alias, format_args!("alias {name}"));
            }
        }
        Ok(())
    }

    /// A transaction's event is where it says, sent in that transaction.
    async fn transactions(&mut self, txns: Vec<(RoomTxn, tables::Done)>) -> Result<(), ReadError> {
        let ids = txns.iter().map(|(key, done)| RoomText {
            room: key.room,
            name: done.event_id.clone(),
        });
        let ids: Vec<RoomText> = ids.collect();
        let nums = self.reader.get_many::<EventNums>(&ids).await?;
        let nums: Vec<RoomNum> = txns
            .iter()
            .zip(nums)
            .map(|((key, _), num)| RoomNum {
                room: key.room,
                num: num.map_or(u32::MAX, |row| row.value.0),
            })
            .collect();
        let statuses = self.reader.get_many::<Statuses>(&nums).await?;
        for ((key, done), status) in txns.iter().zip(statuses) {
            let fits = status.is_some_and(|row| {
                let status = row.value;
                let sent = status.sent.is_some_and(|sent| {
                    sent.device == key.device && key.txn.ends_with(&format!("/{}", sent.txn))
                });
                sent && status.place.map(place) == Some(place((done.seq, 0)))
            });
            if !fits {
                let at = format_args!("user {}, seq {}", key.user, done.seq);
                self.found(&format!("{:?}", key.room), Broken::Transaction, at);
            }
        }
        Ok(())
    }

    /// A membership of a room that we aren't in is what its user sees.
    async fn out_of_band(&mut self, key: &RoomText, membership: &str) -> Result<(), ReadError> {
        let room = key.room;
        let of_user = UserRoom {
            user: key.name.clone(),
            room,
        };
        let newest = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let (member, head) = futures_util::try_join!(
            self.reader.get::<Members>(&of_user),
            self.reader.scan::<Heads>(newest.reverse().limit(1)),
        )?;
        let mode = head.first().map_or(Mode::Stub, |(_, row)| row.value.mode);
        let is_local = <&UserId>::try_from(key.name.as_str())
            .is_ok_and(|user| user.server_name() == self.server);
        let seen = member.is_some_and(|row| row.value.membership == membership);
        if !seen || !is_local || mode.takes_part() {
            let at = format_args!("user {}", key.name);
            self.found(&format!("{room:?}"), Broken::OutOfBand, at);
        }
        Ok(())
    }
}
