//! Unread counts: differences of running totals, not counters (`docs/data-model.md`, Unread counts).
//!
//! Each entry of the order carries how many events so far notify and highlight under the default
//! push rules. A user's count is the total at the head less the total at their read position, plus
//! the events whose verdict for them is another: those have a row for the user, a *hit*. So a
//! message costs the same however many members have the default rules; one that names a user costs
//! a row for them, and so does one that a user's own rules judge otherwise.
//!
//! Whatever decides is decided when the event is placed. A change of rules changes what comes after.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use comity_protocol::{
    auth::{Membership, UserLevel},
    event::Event,
    id::{OwnedUserId, UserId},
    push::{CompiledRules, EventFacts, Recipient, RoomRules, UserRules, Verdict},
};
use comity_storage::{Home, Range, RoomKey};
use serde_json::{Map, Value};

use crate::{
    change::Change,
    error::RoomError,
    num::{EventNum, StateKeyNum},
    receipts::{positions, thread_total},
    state::Half,
    tables::{
        EventNums, Headers, Hit, Hits, Receipt, Receipts, RoomNum, RoomPlace, RoomReceipt,
        RoomText, StateKeys, Tally, Threads, Timeline, Totals, UserHit,
    },
    view::RoomView,
};

/// For whom the default rules are compiled: an id that no rule and no event has.
const NOBODY: &str = "@:invalid";
/// Members looked at in one round trip.
const PAGE: usize = 256;
/// Hits taken away with one receipt.
const SWEPT: usize = 500;

/// What a user made of the push rules, and whom they ignore.
#[derive(Debug, Clone)]
pub struct Tastes {
    /// Their rules.
    pub rules: Arc<CompiledRules>,
    /// Senders whose events don't count for them.
    pub ignored: Arc<BTreeSet<OwnedUserId>>,
}

/// Knows the push rules of this server's users.
#[async_trait]
pub trait PushRules: Send + Sync {
    /// A number that rises with each change, and whose rules or ignored users changed after
    /// `since`; `None` where that is too long ago to tell.
    fn changed_since(&self, since: u64) -> (u64, Option<Vec<OwnedUserId>>);

    /// The tastes of these users, in their order; `None` for one who has the default rules and
    /// ignores nobody.
    async fn tastes(&self, users: &[OwnedUserId]) -> Result<Vec<Option<Tastes>>, RoomError>;
}

/// What a user has not read in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// In the room and all its threads.
    pub total: Tally,
    /// Outside threads.
    pub main: Tally,
    /// In each thread that has any, by its root's event id.
    pub threads: BTreeMap<String, Tally>,
}

/// The rules of a room's local members, as they work in the room.
pub(crate) struct Listeners {
    seen: u64,
    common: RoomRules,
    /// Joined members with tastes of their own.
    own: BTreeMap<String, Listener>,
}

struct Listener {
    rules: RoomRules,
    ignored: Arc<BTreeSet<OwnedUserId>>,
    /// Their verdict may differ whoever is named.
    apart: bool,
}

impl Listeners {
    fn put(&mut self, room_id: &str, user: &UserId, tastes: Option<Tastes>) {
        let Some(tastes) = tastes else {
            self.own.remove(user.as_str());
            return;
        };
        let rules = tastes.rules.in_room(room_id);
        let same = rules.shared().fingerprint() == self.common.shared().fingerprint();
        let apart = !same || rules.watches_every_event() || !tastes.ignored.is_empty();
        let ignored = tastes.ignored;
        let listener = Listener {
            rules,
            ignored,
            apart,
        };
        self.own.insert(user.to_string(), listener);
    }

    fn verdict(&self, event: &EventFacts<'_>, user: &str) -> Verdict {
        let me = Recipient {
            user_id: user,
            display_name: None,
        };
        match self.own.get(user) {
            Some(own) if own.ignored.iter().any(|ignored| *ignored == event.sender) => {
                Verdict::default()
            }
            Some(own) => own.rules.verdict(event, &me),
            None => self.common.verdict(event, &me),
        }
    }
}

/// An event as it counts.
pub(crate) struct Counted {
    /// The totals after it.
    pub totals: Totals,
    /// What it adds.
    pub tally: Tally,
}

impl Change {
    /// Makes sure that the members' rules are at hand and no older than their last change.
    pub(crate) async fn listen(&mut self) -> Result<(), RoomError> {
        let source = self.rooms().push_rules().cloned();
        let seen = self.live()?.listeners.as_ref().map(|known| known.seen);
        let changed = match (&source, seen) {
            (Some(source), Some(seen)) => {
                let (now, changed) = source.changed_since(seen);
                if now == seen {
                    return Ok(());
                }
                changed.map(|changed| (now, changed))
            }
            (None, Some(_)) => return Ok(()),
            (_, None) => None,
        };
        let room_id = self.room_id()?.to_owned();
        let Some((now, changed)) = changed else {
            let seen = source
                .as_ref()
                .map_or(0, |source| source.changed_since(0).0);
            let common =
                CompiledRules::new(&UserRules::default(), NOBODY).in_room(room_id.as_str());
            let own = BTreeMap::new();
            self.live_mut()?.listeners = Some(Listeners { seen, common, own });
            if source.is_some() {
                let mut from = StateKeyNum::member(0);
                while let Some((next, users)) = self.local_users(from).await? {
                    from = next;
                    self.hear(&users).await?;
                }
            }
            return Ok(());
        };
        self.hear(&changed).await?;
        if let Some(listeners) = &mut self.live_mut()?.listeners {
            listeners.seen = now;
        }
        Ok(())
    }

    /// Takes in the rules of those of these users who are in the room.
    async fn hear(&mut self, users: &[OwnedUserId]) -> Result<(), RoomError> {
        let Some(source) = self.rooms().push_rules().cloned() else {
            return Ok(());
        };
        let room_id = self.room_id()?.to_owned();
        for (user, tastes) in users.iter().zip(source.tastes(users).await?) {
            let known = self
                .live()?
                .listeners
                .as_ref()
                .is_some_and(|listeners| listeners.own.contains_key(user.as_str()));
            if !known && tastes.is_none() {
                continue;
            }
            let joined = self.membership(user).await? == Membership::Join;
            if let Some(listeners) = &mut self.live_mut()?.listeners {
                listeners.put(room_id.as_str(), user, tastes.filter(|_| joined));
            }
        }
        Ok(())
    }

    /// A page of the users of this server of whose memberships the state speaks, and where the next
    /// begins.
    async fn local_users(
        &self,
        from: StateKeyNum,
    ) -> Result<Option<(StateKeyNum, Vec<OwnedUserId>)>, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let trie = self
            .rooms()
            .trie(room, reader.clone(), live.pending.clone());
        let mut entries = trie.entries(live.root, Some(Half::Members), from);
        let page = entries.next_page(PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(None);
        };
        let next = StateKeyNum::member(last.index() + 1);
        let keys: Vec<RoomNum> = page
            .iter()
            .map(|(key, _)| RoomNum { room, num: key.0 })
            .collect();
        let rows = reader.get_many::<StateKeys>(&keys).await?;
        let users = rows
            .into_iter()
            .flatten()
            .filter_map(|row| OwnedUserId::try_from(row.value.state_key).ok())
            .filter(|user| self.rooms().is_local(user))
            .collect();
        Ok(Some((next, users)))
    }

    /// A member came or went.
    pub(crate) async fn heard_of(&mut self, user: &str) -> Result<(), RoomError> {
        match OwnedUserId::try_from(user) {
            Ok(user) if self.rooms().is_local(&user) => self.hear(&[user]).await,
            _ => Ok(()),
        }
    }

    /// Counts an event that is about to take the place `seq`: hits are written, totals returned.
    pub(crate) async fn count(
        &mut self,
        event: &Event,
        thread: Option<u32>,
        seq: i64,
    ) -> Result<Counted, RoomError> {
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let powers = self.powers().await?;
        let notifications: Map<String, Value> = powers
            .notifications()
            .map(|(kind, level)| (kind.clone(), Value::from(*level)))
            .collect();
        let level = match powers.levels().user(event.sender().as_str()) {
            UserLevel::Infinite => i64::MAX,
            UserLevel::Level(level) => level,
        };
        let live = self.live()?;
        let (room, before) = (live.room, live.totals);
        let room_id = live.room_id.clone();
        let facts = EventFacts {
            event_type: event.event_type(),
            sender: event.sender().as_str(),
            room_id: room_id.as_str(),
            state_key: event.state_key(),
            content: &content,
            joined_members: live.summary.joined,
            sender_power_level: level,
            notification_levels: Some(&notifications),
        };
        let Some(listeners) = &live.listeners else {
            return Ok(Counted {
                totals: before,
                tally: Tally::default(),
            });
        };
        let common = listeners.common.shared().verdict(&facts);
        let mut asked: BTreeSet<&str> = facts.named_users().collect();
        let apart = listeners.own.iter().filter(|(_, own)| own.apart);
        asked.extend(apart.map(|(user, _)| user.as_str()));
        let mut hits = Vec::new();
        for user in asked {
            if user != facts.sender {
                let verdict = listeners.verdict(&facts, user);
                hits.push((user.to_owned(), difference(common, verdict)));
            }
        }
        // Who writes has read; a state event is not written by hand.
        if event.state_key().is_some() {
            let silent = difference(common, Verdict::default());
            hits.push((facts.sender.to_owned(), silent));
        }
        for (user, (notify, highlight)) in hits {
            if (notify, highlight) != (0, 0) && self.is_reader(&user).await? {
                let hit = Hit {
                    thread,
                    notify,
                    highlight,
                };
                self.batch().put::<Hits>(&UserHit { user, room, seq }, &hit);
            }
        }
        let tally = Tally {
            notify: u32::from(common.notify),
            highlight: u32::from(common.highlight),
        };
        let mut totals = Totals {
            all: before.all.plus(tally),
            ..before
        };
        match thread {
            None => totals.main = before.main.plus(tally),
            Some(root) => {
                let at = RoomNum { room, num: root };
                let row = self.live()?.reader().get::<Threads>(&at).await?;
                totals.thread = row.map_or(tally, |row| row.value.notifying.plus(tally));
            }
        }
        Ok(Counted { totals, tally })
    }

    /// Whether a user is of this server and in the room.
    async fn is_reader(&mut self, user: &str) -> Result<bool, RoomError> {
        match OwnedUserId::try_from(user) {
            Ok(user) if self.rooms().is_local(&user) => {
                Ok(self.membership(&user).await? == Membership::Join)
            }
            _ => Ok(false),
        }
    }

    /// Whoever joins begins to read there.
    pub(crate) fn begins_to_read(
        &mut self,
        user: &str,
        event: &Event,
        seq: i64,
        totals: Totals,
    ) -> Result<(), RoomError> {
        match <&UserId>::try_from(user) {
            Ok(user) => self.read_up_to(user, String::new(), event, seq, totals),
            Err(_) => Ok(()),
        }
    }

    /// Whoever writes has read the thread that they write in.
    pub(crate) fn has_read(
        &mut self,
        event: &Event,
        thread: Option<u32>,
        seq: i64,
        totals: Totals,
    ) -> Result<(), RoomError> {
        if event.state_key().is_some() {
            return Ok(());
        }
        let thread = thread.map_or_else(|| "main".to_owned(), |root| format!("#{root}"));
        self.read_up_to(event.sender(), thread, event, seq, totals)
    }

    fn read_up_to(
        &mut self,
        user: &UserId,
        thread: String,
        event: &Event,
        seq: i64,
        totals: Totals,
    ) -> Result<(), RoomError> {
        if !self.rooms().is_local(user) {
            return Ok(());
        }
        let key = RoomReceipt {
            room: self.live()?.room,
            user: user.to_string(),
            kind: String::new(),
            thread,
        };
        let receipt = Receipt {
            event_id: event.event_id().to_string(),
            seq,
            sub: 0,
            ts: u64::try_from(event.origin_server_ts()).unwrap_or_default(),
            totals,
        };
        self.batch().put::<Receipts>(&key, &receipt);
        Ok(())
    }

    /// Takes away the hits that a receipt for the whole room has left behind.
    pub(crate) async fn sweep_hits(&mut self, user: &str, seq: i64) -> Result<(), RoomError> {
        let live = self.live()?;
        let room = live.room;
        let range = Range::of(Home::Room(room), |key| {
            key.str(user).room(room);
        })
        .until(|key| {
            key.i64(seq.saturating_add(1));
        })
        .limit(SWEPT);
        for (key, _) in live.reader().scan::<Hits>(range).await? {
            self.batch().delete::<Hits>(&key);
        }
        Ok(())
    }
}

/// What to add to the common verdict to get another.
fn difference(common: Verdict, verdict: Verdict) -> (i8, i8) {
    (
        i8::from(verdict.notify) - i8::from(common.notify),
        i8::from(verdict.highlight) - i8::from(common.highlight),
    )
}

/// Where a count begins.
#[derive(Clone, Copy, Default)]
struct From {
    seq: i64,
    totals: Totals,
}

/// A count in the making.
#[derive(Clone, Copy, Default)]
struct Sum {
    notify: i64,
    highlight: i64,
}

impl Sum {
    fn between(from: Tally, to: Tally) -> Self {
        Self {
            notify: i64::from(to.notify) - i64::from(from.notify),
            highlight: i64::from(to.highlight) - i64::from(from.highlight),
        }
    }

    fn tally(self) -> Tally {
        let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        Tally {
            notify: count(self.notify),
            highlight: count(self.highlight),
        }
    }
}

impl Tally {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            notify: self.notify.saturating_add(other.notify),
            highlight: self.highlight.saturating_add(other.highlight),
        }
    }
}

impl RoomView {
    /// What a user has not read in the room.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn unread(&self, user: &UserId) -> Result<Unread, RoomError> {
        let (room, reader) = (self.key(), self.reader());
        let head_at = RoomPlace {
            room,
            seq: self.seq(),
            sub: 0,
        };
        let (head, positions) = futures_util::try_join!(
            async { Ok::<_, RoomError>(reader.get::<Timeline>(&head_at).await?) },
            positions(reader, user.as_str(), room)
        )?;
        let head = head.map_or_else(Totals::default, |row| row.value.totals);
        let (mut whole, mut scoped) = (None::<From>, Vec::new());
        for (key, receipt) in positions {
            let from = From {
                seq: if receipt.sub < 0 {
                    receipt.seq - 1
                } else {
                    receipt.seq
                },
                totals: receipt.totals,
            };
            if !key.thread.is_empty() {
                scoped.push((key.thread, from));
            } else if whole.is_none_or(|whole| whole.seq < from.seq) {
                whole = Some(from);
            }
        }
        // Who never joined has nothing to read.
        let Some(whole) = whole else {
            return Ok(Unread::default());
        };
        scoped.retain(|(_, from)| from.seq > whole.seq);
        let (main_from, threads_from) = self.scopes(scoped).await?;
        let main_from = main_from.unwrap_or(whole);
        let mut main = Sum::between(main_from.totals.main, head.main);
        let mut threads: BTreeMap<u32, Sum> = BTreeMap::new();
        let of_all = Sum::between(whole.totals.all, head.all);
        let of_main = Sum::between(whole.totals.main, head.main);
        if of_all.notify != of_main.notify {
            for (root, total) in self.threads_after(whole.seq).await? {
                let from = match threads_from.get(&root) {
                    Some(from) => from.totals.thread,
                    None => thread_total(reader, room, EventNum(root), whole.seq).await?,
                };
                threads.insert(root, Sum::between(from, total));
            }
        }
        let hits = Range::of(Home::Room(room), |key| {
            key.str(user.as_str()).room(room);
        })
        .from(|key| {
            key.i64(whole.seq.saturating_add(1));
        })
        .until(|key| {
            key.i64(self.seq().saturating_add(1));
        });
        for (key, row) in reader.scan::<Hits>(hits).await? {
            let from = match row.value.thread {
                None => main_from.seq,
                Some(root) => threads_from.get(&root).map_or(whole.seq, |from| from.seq),
            };
            if key.seq > from {
                let sum = match row.value.thread {
                    None => &mut main,
                    Some(root) => threads.entry(root).or_default(),
                };
                sum.notify += i64::from(row.value.notify);
                sum.highlight += i64::from(row.value.highlight);
            }
        }
        self.named(main.tally(), threads).await
    }

    /// The positions in the main timeline and in threads, by the roots' numbers.
    async fn scopes(
        &self,
        scoped: Vec<(String, From)>,
    ) -> Result<(Option<From>, BTreeMap<u32, From>), RoomError> {
        let room = self.key();
        let named: Vec<RoomText> = scoped
            .iter()
            .map(|(name, _)| RoomText {
                room,
                name: name.clone(),
            })
            .collect();
        let nums = self.reader().get_many::<EventNums>(&named).await?;
        let (mut main, mut threads) = (None::<From>, BTreeMap::<u32, From>::new());
        for ((name, from), num) in scoped.into_iter().zip(nums) {
            let root = match name.strip_prefix('#') {
                Some(root) => root.parse().ok(),
                None => num.map(|row| row.value.0),
            };
            match root {
                _ if name == "main" => {
                    main = main.filter(|known| known.seq >= from.seq).or(Some(from));
                }
                Some(root) => {
                    let known = threads.entry(root).or_insert(from);
                    if known.seq < from.seq {
                        *known = from;
                    }
                }
                None => {}
            }
        }
        Ok((main, threads))
    }

    /// The threads written in after a place, with their totals.
    async fn threads_after(&self, seq: i64) -> Result<Vec<(u32, Tally)>, RoomError> {
        let room: RoomKey = self.key();
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let rows = self.reader().scan::<Threads>(range).await?;
        Ok(rows
            .into_iter()
            .filter(|(_, row)| row.value.latest_seq > seq)
            .map(|(key, row)| (key.num, row.value.notifying))
            .collect())
    }

    /// The counts, threads by their roots' event ids.
    async fn named(&self, main: Tally, sums: BTreeMap<u32, Sum>) -> Result<Unread, RoomError> {
        let room = self.key();
        let counted: Vec<(RoomNum, Tally)> = sums
            .into_iter()
            .map(|(num, sum)| (RoomNum { room, num }, sum.tally()))
            .filter(|(_, tally)| *tally != Tally::default())
            .collect();
        let roots: Vec<RoomNum> = counted.iter().map(|(root, _)| root.clone()).collect();
        let headers = self.reader().get_many::<Headers>(&roots).await?;
        let mut unread = Unread {
            total: main,
            main,
            threads: BTreeMap::new(),
        };
        for ((_, tally), header) in counted.into_iter().zip(headers) {
            unread.total = unread.total.plus(tally);
            if let Some(header) = header {
                unread.threads.insert(header.value.event_id, tally);
            }
        }
        Ok(unread)
    }
}
