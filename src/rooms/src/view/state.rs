//! State at a position, or before any event.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::auth::{AuthFact, AuthState, Membership, PowerLevels};
use comity_protocol::event::Event;
use comity_protocol::id::{OwnedUserId, UserId};
use comity_storage::Row;
use futures_util::future::try_join_all;

use super::{Found, RoomView};
use crate::{
    error::RoomError,
    live::{Judged, read_root},
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, Half, Lookup},
    tables::{self, Member, RoomNum, RoomStateKey, UserRoom},
};

/// Entries of a state read in one go.
const PAGE: usize = 512;
/// Bytes of state that someone outside is given.
const MAX_INTRODUCTION: usize = 128 * 1024;
/// What they are given, the most important first.
const INTRODUCING: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.encryption",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.topic",
];

impl RoomView {
    /// The numbers of state keys, in order; `None` for one that the room never used.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_keys(
        &self,
        keys: &[(&str, &str)],
    ) -> Result<Vec<Option<StateKeyNum>>, RoomError> {
        let mut nums = self.memo.keys(keys);
        let missing: Vec<&(&str, &str)> = keys
            .iter()
            .zip(&nums)
            .filter(|(_, known)| known.is_none())
            .map(|(key, _)| key)
            .collect();
        if !missing.is_empty() {
            let rows: Vec<RoomStateKey> = missing
                .iter()
                .map(|(event_type, state_key)| RoomStateKey::new(self.room, event_type, state_key))
                .collect();
            let rows = self.reader.get_many::<tables::KeyNums>(&rows).await?;
            let unknown = nums.iter_mut().filter(|known| known.is_none());
            for ((key, row), num) in missing.into_iter().zip(rows).zip(unknown) {
                let read = row.map(|row| StateKeyNum(row.value.0));
                self.memo.keep_key(*key, read);
                *num = Some(read);
            }
        }
        Ok(nums.into_iter().map(Option::flatten).collect())
    }

    /// The events that a state has under these keys.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn lookup(
        &self,
        root: AnyRoot,
        keys: &[Option<StateKeyNum>],
    ) -> Result<Vec<Option<EventNum>>, RoomError> {
        let known: Vec<StateKeyNum> = keys.iter().copied().flatten().collect();
        let mut found = self
            .trie
            .multi_get(root, &known)
            .await?
            .into_iter()
            .map(Lookup::present);
        Ok(keys
            .iter()
            .map(|key| key.and_then(|_| found.next().flatten()))
            .collect())
    }

    /// The events that each of several states has under these keys; the states are read side by side.
    ///
    /// # Errors
    /// The store can't be read.
    pub(super) async fn lookup_each(
        &self,
        roots: BTreeSet<AnyRoot>,
        keys: &[Option<StateKeyNum>],
    ) -> Result<BTreeMap<AnyRoot, Vec<Option<EventNum>>>, RoomError> {
        let mut lookups = Vec::with_capacity(roots.len());
        for root in &roots {
            lookups.push(self.lookup(*root, keys));
        }
        let found = try_join_all(lookups).await?;
        Ok(roots.into_iter().zip(found).collect())
    }

    /// The current state event under a key.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Found>, RoomError> {
        self.state_in(self.root, event_type, state_key).await
    }

    /// The event that some state has under a key.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_in(
        &self,
        root: AnyRoot,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Found>, RoomError> {
        let keys = self.state_keys(&[(event_type, state_key)]).await?;
        let Some(num) = self.lookup(root, &keys).await?.pop().flatten() else {
            return Ok(None);
        };
        Ok(self.load(&[num]).await?.pop())
    }

    /// The current state events under these keys, those there are.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn states(&self, keys: &[(&str, &str)]) -> Result<Vec<Found>, RoomError> {
        let keys = self.state_keys(keys).await?;
        let nums: Vec<EventNum> = self
            .lookup(self.root, &keys)
            .await?
            .into_iter()
            .flatten()
            .collect();
        self.load(&nums).await
    }

    /// The numbers of all events of a state, or of half of it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_nums(
        &self,
        root: AnyRoot,
        half: Option<Half>,
    ) -> Result<Vec<EventNum>, RoomError> {
        let entries = self.entries_of(root, half).await?;
        Ok(entries.into_iter().map(|(_, num)| num).collect())
    }

    /// The current state, or half of it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn all_state(&self, half: Option<Half>) -> Result<Vec<Found>, RoomError> {
        self.all_state_in(self.root, half).await
    }

    /// The events of a state, or of half of it. By what they are found is remembered, where they are few: whoever shows them asks
    /// for it next.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn all_state_in(
        &self,
        root: AnyRoot,
        half: Option<Half>,
    ) -> Result<Vec<Found>, RoomError> {
        let entries = self.entries_of(root, half).await?;
        let nums: Vec<EventNum> = entries.iter().map(|(_, num)| *num).collect();
        let found = self.load(&nums).await?;
        let key_of: BTreeMap<EventNum, StateKeyNum> =
            entries.into_iter().map(|(key, num)| (num, key)).collect();
        let keys = found.iter().filter_map(|one| {
            let name = (one.event.event_type(), one.event.state_key()?);
            Some((name, *key_of.get(&one.num)?))
        });
        self.memo.keep_keys(keys.collect());
        Ok(found)
    }

    async fn entries_of(
        &self,
        root: AnyRoot,
        half: Option<Half>,
    ) -> Result<Vec<(StateKeyNum, EventNum)>, RoomError> {
        let mut entries = self.trie.entries(root, half, StateKeyNum::other(0));
        let mut all = Vec::new();
        loop {
            let page = entries.next_page(PAGE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The users of this server who are joined, by the rows of their memberships.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn joined_here(&self) -> Result<Vec<OwnedUserId>, RoomError> {
        let first = StateKeyNum::member(0);
        let mut entries = self.trie.entries(self.root, Some(Half::Members), first);
        let mut joined = Vec::new();
        loop {
            let page = entries.next_page(PAGE).await?;
            if page.is_empty() {
                return Ok(joined);
            }
            let num_of = |(key, _): &(StateKeyNum, EventNum)| RoomNum {
                room: self.room,
                num: key.0,
            };
            let keys: Vec<RoomNum> = page.iter().map(num_of).collect();
            let names = self.reader.get_many::<tables::StateKeys>(&keys).await?;
            let users = names.into_iter().flatten();
            let users = users.filter_map(|row| OwnedUserId::try_from(row.value.state_key).ok());
            let ours: Vec<OwnedUserId> = users.filter(|user| self.rooms.is_local(user)).collect();
            let row_of = |user: &OwnedUserId| UserRoom {
                user: user.to_string(),
                room: self.room,
            };
            let rows: Vec<UserRoom> = ours.iter().map(row_of).collect();
            let rows = self.reader.get_many::<tables::Members>(&rows).await?;
            let is_joined = |row: &Row<Member>| row.value.membership() == Membership::Join;
            let both = ours.into_iter().zip(rows);
            let here = both.filter(|(_, row)| row.as_ref().is_some_and(is_joined));
            joined.extend(here.map(|(user, _)| user));
        }
    }

    /// The events that `new` has and `old` has not, or has another under their key.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_diff(&self, old: AnyRoot, new: AnyRoot) -> Result<Vec<EventNum>, RoomError> {
        Ok(self.state_changes(old, new).await?.0)
    }

    /// [`Self::state_diff`], and the keys under which `new` has nothing where `old` has something.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_changes(
        &self,
        old: AnyRoot,
        new: AnyRoot,
    ) -> Result<(Vec<EventNum>, Vec<StateKeyNum>), RoomError> {
        let mut diff = self.trie.diff(old, new);
        let (mut nums, mut gone) = (Vec::new(), Vec::new());
        loop {
            let page = diff.next_page(PAGE).await?;
            if page.is_empty() {
                return Ok((nums, gone));
            }
            for change in page {
                match change.new {
                    Lookup::Present(num) => nums.push(num),
                    Lookup::Absent => gone.push(change.key),
                    Lookup::Unknown => {}
                }
            }
        }
    }

    /// The types and state keys of keys, in order.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn key_names(
        &self,
        keys: &[StateKeyNum],
    ) -> Result<Vec<(String, String)>, RoomError> {
        let nums = keys.iter().map(|key| RoomNum {
            room: self.room,
            num: key.0,
        });
        let nums: Vec<RoomNum> = nums.collect();
        let names = self.reader.get_many::<tables::StateKeys>(&nums).await?;
        let names = names.into_iter().flatten();
        Ok(names
            .map(|row| (row.value.event_type, row.value.state_key))
            .collect())
    }

    /// The state after an event.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn root_after(&self, found: &Found) -> Result<AnyRoot, RoomError> {
        let before = read_root(&found.status.root_before)?;
        let Some(state_key) = found.event.state_key() else {
            return Ok(before);
        };
        let key = self
            .state_keys(&[(found.event.event_type(), state_key)])
            .await?
            .pop()
            .flatten();
        let Some(key) = key else { return Ok(before) };
        Ok(self
            .trie
            .apply(before, &[(key, Some(found.num))])
            .await?
            .root)
    }

    /// The events by which someone outside may know the room: an invite's or a knock's. Their texts
    /// are no longer than [`MAX_INTRODUCTION`] in all, the create event aside (threat C8).
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn introduction(&self) -> Result<Vec<Event>, RoomError> {
        let keys = INTRODUCING.map(|event_type| (event_type, ""));
        let mut left = MAX_INTRODUCTION;
        let found = self.states(&keys).await?.into_iter();
        let events = found.map(|found| found.event).filter(|event| {
            let size = event.json().len();
            let fits = event.event_type() == "m.room.create" || size <= left;
            if fits {
                left = left.saturating_sub(size);
            }
            fits
        });
        Ok(events.collect())
    }

    /// The members by whom a room without a name is called: the first others who are there.
    pub(crate) async fn heroes(
        &self,
        root: AnyRoot,
        user: &str,
        most: usize,
    ) -> Result<Vec<EventNum>, RoomError> {
        let mut entries = self
            .trie
            .entries(root, Some(Half::Members), StateKeyNum::member(0));
        let page = entries.next_page(PAGE).await?;
        let nums: Vec<EventNum> = page.into_iter().map(|(_, num)| num).collect();
        let members = self.load(&nums).await?.into_iter();
        let heroes = members.filter(|found| {
            let here = [Membership::Join, Membership::Invite].contains(&membership_in(found));
            here && found.event.state_key() != Some(user)
        });
        Ok(heroes.map(|found| found.num).take(most).collect())
    }

    /// The memberships of these users by which events of theirs are authorised: what is known of a member
    /// whom a partial state doesn't know.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn members_named(
        &self,
        by: &[Found],
        users: &BTreeSet<&str>,
    ) -> Result<Vec<EventNum>, RoomError> {
        let by = by
            .iter()
            .filter(|found| users.contains(found.event.sender().as_str()));
        let room = self.room;
        let at: Vec<RoomNum> = by
            .map(|found| RoomNum {
                room,
                num: found.num.0,
            })
            .collect();
        let headers = self.reader.get_many::<tables::Headers>(&at).await?;
        let named = headers.into_iter().flatten().flat_map(|row| row.value.auth);
        let named: BTreeSet<EventNum> = named.map(EventNum).collect();
        let named: Vec<EventNum> = named.into_iter().collect();
        let mut members: BTreeMap<String, EventNum> = BTreeMap::new();
        for found in self.load(&named).await? {
            let user = found.event.state_key().filter(|user| users.contains(user));
            if let (Some(user), "m.room.member") = (user, found.event.event_type()) {
                members.insert(user.to_owned(), found.num);
            }
        }
        Ok(members.into_values().collect())
    }

    /// A user's membership by the state at this position.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn membership(&self, user: &UserId) -> Result<Membership, RoomError> {
        let member = self.state("m.room.member", user.as_str()).await?;
        Ok(member.map_or_else(Membership::default, |found| membership_in(&found)))
    }

    /// What the rules read of the current state about these users' powers.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn auth_state(&self) -> Result<AuthState<EventNum>, RoomError> {
        let keys = [
            ("m.room.create", ""),
            ("m.room.power_levels", ""),
            ("m.room.join_rules", ""),
        ];
        let mut state = AuthState::default();
        for found in self.states(&keys).await? {
            let judged = Judged {
                num: found.num,
                event: &found.event,
                prev: &[],
                auth: &[],
            };
            let fact = AuthFact::read(self.version.rules(), &judged)
                .map_err(|_| RoomError::Damaged("power levels in the state do not parse".into()))?;
            if let Some(fact) = fact {
                state.put(fact);
            }
        }
        Ok(state)
    }

    /// Asks the room's power levels.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn with_levels<T>(
        &self,
        ask: impl FnOnce(&PowerLevels<'_>) -> T,
    ) -> Result<T, RoomError> {
        Ok(ask(&self.auth_state().await?.levels()))
    }
}

/// The membership that a member event sets.
pub(crate) fn membership_in(found: &Found) -> Membership {
    comity_protocol::auth::MemberContent::read(found.event.content().get())
        .membership
        .unwrap_or_default()
}
