//! Unread counts: differences of running totals, not counters (`docs/data-model.md`, Unread counts).
//!
//! Each entry of the order carries how many events so far notify and highlight under the default
//! push rules, and under the few other rulesets that many members come down to in a room ([`rulesets`]:
//! muted, mentions only). A user's count is the total of their ruleset at the head less that at their read
//! position, plus the events whose verdict for them is another: those have a row for the user, a *hit*. So a
//! message costs the same however many members there are; one that names a user costs a row for them, and
//! so does one that a user's own rules judge otherwise.
//!
//! Whatever decides is decided when the event is placed. A change of rules changes what comes after: it
//! is a row, a *turn*, at which the user's count goes on under another ruleset.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

mod listen;
mod read;
mod rulesets;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use comity_protocol::auth::Membership;
use comity_protocol::{
    auth::UserLevel,
    event::Event,
    id::{OwnedUserId, UserId},
    push::{CompiledRules, EventFacts, Verdict},
};
use comity_storage::{Home, Range, Reader, RoomKey};
use serde_json::{Map, Value};

pub(crate) use listen::Listeners;

use crate::{
    change::Change,
    error::RoomError,
    tables::{
        Hit, Hits, Receipt, Receipts, RoomReceipt, RoomTurn, Tally, Total, Totals, Turns, UserHit,
    },
};

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

/// An event as it counts.
pub(crate) struct Counted {
    /// The totals after it.
    pub totals: Totals,
    /// What it adds, by ruleset.
    pub tallies: Vec<Tally>,
}

impl Change {
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
        let (room, before) = (live.room, live.totals.clone());
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
                tallies: Vec::new(),
            });
        };
        let verdicts = listeners.rulesets().verdicts(&facts);
        let common = |user: &str| {
            let place = usize::from(listeners.rulesets().place_of(user));
            verdicts.get(place).copied().unwrap_or_default()
        };
        let mut asked: BTreeSet<&str> = facts.named_users().collect();
        asked.extend(listeners.apart());
        let mut hits = Vec::new();
        for user in asked {
            if user != facts.sender {
                let verdict = listeners.verdict(&facts, user);
                hits.push((user.to_owned(), difference(common(user), verdict)));
            }
        }
        // Who writes has read; a state event is not written by hand.
        if event.state_key().is_some() {
            let silent = difference(common(facts.sender), Verdict::default());
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
        let tallies: Vec<Tally> = verdicts.into_iter().map(Tally::from).collect();
        let in_thread = match thread {
            None => Vec::new(),
            Some(root) => {
                let thread = self.thread(root).await?;
                plus(
                    &thread.map_or_else(Vec::new, |thread| thread.notifying),
                    &tallies,
                )
            }
        };
        let totals = (0..).zip(&tallies).map(|(place, tally)| {
            let before = before.of(place);
            Total {
                all: before.all.plus(*tally),
                main: if thread.is_some() {
                    before.main
                } else {
                    before.main.plus(*tally)
                },
                thread: in_thread
                    .get(usize::from(place))
                    .copied()
                    .unwrap_or_default(),
            }
        });
        Ok(Counted {
            totals: Totals(totals.collect()),
            tallies,
        })
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
        totals: &Totals,
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
        totals: &Totals,
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
        totals: &Totals,
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
            totals: totals.clone(),
        };
        self.batch().put::<Receipts>(&key, &receipt);
        Ok(())
    }

    /// Takes away the hits and turns that a receipt for the whole room has left behind; the last turn says
    /// what the count begins with.
    pub(crate) async fn sweep(&mut self, user: &str, seq: i64) -> Result<(), RoomError> {
        let live = self.live()?;
        let room = live.room;
        let range = Range::of(Home::Room(room), |key| {
            key.str(user).room(room);
        })
        .until(|key| {
            key.i64(seq.saturating_add(1));
        })
        .limit(SWEPT);
        let reader = live.reader();
        let (hits, mut turns) = futures_util::try_join!(
            async { Ok::<_, RoomError>(reader.scan::<Hits>(range).await?) },
            turns(&reader, room, user),
        )?;
        for (key, _) in hits {
            self.batch().delete::<Hits>(&key);
        }
        turns.retain(|(at, _)| *at <= seq);
        turns.pop();
        for (seq, _) in turns {
            let user = user.to_owned();
            self.batch().delete::<Turns>(&RoomTurn { room, user, seq });
        }
        Ok(())
    }
}

/// A member's turns to other rulesets: after which event, and to which place.
async fn turns(reader: &Reader, room: RoomKey, user: &str) -> Result<Vec<(i64, u8)>, RoomError> {
    let range = Range::of(Home::Room(room), |key| {
        key.room(room).str(user);
    });
    let rows = reader.scan::<Turns>(range).await?;
    let turns = rows.into_iter().map(|(key, row)| (key.seq, row.value.0));
    Ok(turns.collect())
}

/// Tallies by ruleset with what is added to each; a ruleset that is new begins with nothing.
pub(crate) fn plus(tallies: &[Tally], added: &[Tally]) -> Vec<Tally> {
    let tally = |at: usize, of: &[Tally]| of.get(at).copied().unwrap_or_default();
    (0..tallies.len().max(added.len()))
        .map(|at| tally(at, tallies).plus(tally(at, added)))
        .collect()
}

/// What to add to the common verdict to get another.
fn difference(common: Verdict, verdict: Verdict) -> (i8, i8) {
    (
        i8::from(verdict.notify) - i8::from(common.notify),
        i8::from(verdict.highlight) - i8::from(common.highlight),
    )
}

impl From<Verdict> for Tally {
    fn from(verdict: Verdict) -> Self {
        Self {
            notify: u32::from(verdict.notify),
            highlight: u32::from(verdict.highlight),
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
