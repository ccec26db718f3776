//! What is kept beside a room's state and follows from it: memberships by user, the summary.

use comity_protocol::{auth::Membership, event::Event, id::UserId};
use comity_storage::{Pages, ReadError};

use super::{Broken, Room, Walk, names::Tally};
use crate::{
    event::read_id,
    live::{Pending, RoomNodes},
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, NodeCache, StateTrie},
    tables::{
        Bodies, Headers, Members, Mode, RoomNum, StateKey, StateKeys, Summaries, Summary, UserRoom,
    },
};

/// Entries looked at in one go.
const PAGE: usize = 256;
/// Bytes of nodes kept while a state is read through.
const CACHE: usize = 1 << 20;

/// An entry of the state: what it is called, and the event.
type Named = (StateKey, EventNum);

impl Walk<'_> {
    /// Memberships and summary say what the room's current state says.
    pub(super) async fn derived(&mut self, room: &Room, tally: &Tally) -> Result<(), ReadError> {
        // What is wrong with it has been found.
        let Ok(root) = AnyRoot::decode(&room.head.root) else {
            return Ok(());
        };
        let nodes = RoomNodes {
            room: room.key,
            reader: self.reader.clone(),
            pending: Pending::default(),
        };
        let trie = StateTrie::new(nodes, NodeCache::new(CACHE).into());
        let mut entries = trie.entries(root, None, StateKeyNum::other(0));
        let mut summary = Summary::new(&room.info);
        let (mut members, mut named) = (Vec::new(), 0);
        loop {
            let Ok(page) = entries.next_page(PAGE).await else {
                return Ok(());
            };
            if page.is_empty() {
                break;
            }
            let keys: Vec<RoomNum> = page.iter().map(|(key, _)| room.num(key.0)).collect();
            let names = self.reader.get_many::<StateKeys>(&keys).await?;
            let page: Vec<Named> = names
                .into_iter()
                .zip(page)
                .filter_map(|(name, (_, num))| Some((name?.value, num)))
                .collect();
            let (of_users, rest): (Vec<Named>, Vec<Named>) = page
                .into_iter()
                .partition(|(name, _)| name.event_type == "m.room.member");
            named += self.members(room, &mut summary, &of_users).await?;
            members.extend(of_users.into_iter().map(|(_, num)| num));
            self.outline(room, &mut summary, rest).await?;
        }
        if room.head.mode != Mode::Stub {
            let stored = self.reader.get::<Summaries>(&room.in_room()).await?;
            let stored = stored.map(|row| row.value);
            if let Some(stored) = stored.as_ref().filter(|row| row.keeps_encryption()) {
                summary.encryption_mode = stored.encryption_mode;
                let kept = || stored.encryption.clone();
                summary.encryption = summary.encryption.take().or_else(kept);
            }
            if stored != Some(summary) {
                self.say(room, Broken::Summary, "the summary");
            }
        }
        if named != tally.members {
            members.sort_unstable();
            self.other_members(room, &members).await?;
        }
        Ok(())
    }

    /// Members of the state have their rows; how many there are that speak of the state.
    async fn members(
        &mut self,
        room: &Room,
        summary: &mut Summary,
        entries: &[Named],
    ) -> Result<u64, ReadError> {
        let keys: Vec<UserRoom> = entries
            .iter()
            .map(|(name, _)| UserRoom {
                user: name.state_key.clone(),
                room: room.key,
            })
            .collect();
        let rows = self.reader.get_many::<Members>(&keys).await?;
        let mut named = 0;
        for ((name, num), row) in entries.iter().zip(rows) {
            let membership = room.events.get(num.0).membership.unwrap_or_default();
            let user = <&UserId>::try_from(name.state_key.as_str());
            let ours = user.is_ok_and(|user| user.server_name() == self.server);
            summary.member(Membership::default(), membership, ours);
            let row = row.map(|row| row.value);
            named += u64::from(row.as_ref().is_some_and(|row| row.num != 0));
            let fits = row.is_some_and(|row| {
                let says = (row.num, row.membership.as_str()) == (num.0, membership.as_str());
                // Of a room that we have left something else may be known since.
                let elsewhere = row.num == 0 && !room.head.mode.takes_part();
                let entered = row.was_in || !ours || row.membership() != Membership::Join;
                row.room_id == room.info.room_id && (says || elsewhere) && entered
            });
            if !fits {
                self.say(
                    room,
                    Broken::Member,
                    format_args!("user {}", name.state_key),
                );
            }
        }
        Ok(named)
    }

    /// Puts entries into a summary that is made anew.
    async fn outline(
        &mut self,
        room: &Room,
        summary: &mut Summary,
        mut entries: Vec<Named>,
    ) -> Result<(), ReadError> {
        entries.retain(|(name, _)| name.state_key.is_empty());
        let nums: Vec<RoomNum> = entries.iter().map(|(_, num)| room.num(num.0)).collect();
        let (headers, bodies) = futures_util::try_join!(
            self.reader.get_many::<Headers>(&nums),
            self.reader.get_many::<Bodies>(&nums),
        )?;
        for (((name, _), header), body) in entries.iter().zip(headers).zip(bodies) {
            // What isn't there or can't be read has been found.
            let (Some(header), Some(body)) = (header, body) else {
                continue;
            };
            let Ok(event_id) = read_id(&header.value.event_id) else {
                continue;
            };
            let event = Event::from_stored(room.info.version, event_id, body.value.json);
            if let Ok(event) = event {
                summary.set(&name.event_type, &name.state_key, Some(&event));
            }
        }
        Ok(())
    }

    /// Membership rows of users of whom the room's state doesn't speak; there is one at least.
    async fn other_members(&mut self, room: &Room, members: &[EventNum]) -> Result<(), ReadError> {
        let mut rows = Pages::<Members>::all();
        while let Some(page) = self.page(&mut rows).await? {
            for (key, row) in page {
                let speaks = members.binary_search(&EventNum(row.value.num)).is_ok();
                if key.room == room.key && row.value.num != 0 && !speaks {
                    self.say(room, Broken::Member, format_args!("user {}", key.user));
                }
            }
        }
        Ok(())
    }
}
