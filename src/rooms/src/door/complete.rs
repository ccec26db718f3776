//! Completing a room that was entered without its members.
//!
//! Until then its state is partial: a member that isn't known is unknown, never absent. What was
//! missing is the state before the join, which is the state after the events that the join follows.
//! Other servers are asked for it elsewhere; here their claim is made the room's state, and what came
//! since is judged again upon it, parents first, in one change. Only here may an accepted event be
//! rejected after all.
//!
//! A claim is believed as the state of an entry is, with two limits: the room's create event is the one
//! that we entered with, and our own join is allowed by it. One by another server than the one that let us in
//! must have a member on each server that this one named: whoever leaves servers out would keep what is said
//! here from them.
//!
//! See [MSC3902](https://github.com/matrix-org/matrix-spec-proposals/pull/3902).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use comity_protocol::{
    auth::{MemberContent, Membership},
    event::Event,
    id::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId},
};
use comity_storage::{Expect, Range, ReadError};
use tokio::time::{Instant, timeout_at};

use super::{Way, order::graph_first};
use crate::{
    change::{Case, Change, Heard, Known},
    error::RoomError,
    event::read_id,
    live::read_root,
    log,
    num::{EventNum, StateKeyNum},
    rooms::Rooms,
    state::{AnyRoot, Half, Lookup},
    tables::{self, InRoom, Infos, Mode, Partials, Provisionals, RoomNum, Status, Verdict},
    view::RoomView,
};

/// How long a request waits for a room's state to be whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// Members of a claimed state read at a time.
const PAGE: usize = 512;

/// What a room lacks that was entered without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// The events whose state is to be claimed: those that our join follows.
    pub prev: Vec<OwnedEventId>,
    /// The servers said to be in the room, the one that let us in first.
    pub servers: Vec<OwnedServerName>,
}

/// What another server says of the state at an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The event.
    pub event: OwnedEventId,
    /// The state before it, by its events.
    pub state: Vec<OwnedEventId>,
}

/// What became of a room that was to be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completed {
    /// Its state is whole, or there is nothing to complete any more.
    Whole,
    /// These have to come first, as [`Way::Outlier`]; nothing is stored.
    Wanted(Vec<OwnedEventId>),
}

impl Rooms {
    /// The rooms whose state is partial, or was when we left them.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn incomplete_rooms(&self) -> Result<Vec<OwnedRoomId>, ReadError> {
        let reader = self.tenant().reader();
        let rows = reader.scan::<Partials>(Range::everywhere(|_| {})).await?;
        let keys: Vec<InRoom> = rows.into_iter().map(|(key, _)| key).collect();
        let infos = reader.get_many::<Infos>(&keys).await?;
        let infos = infos.into_iter().flatten();
        Ok(infos
            .filter_map(|info| RoomId::parse(&info.value.room_id).ok())
            .collect())
    }

    /// What a room lacks; `None` of one whose state is whole, or that isn't ours.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn incomplete(&self, room_id: &RoomId) -> Result<Option<Incomplete>, RoomError> {
        let change = match self.change(room_id).await {
            Err(RoomError::UnknownRoom) => return Ok(None),
            change => change?,
        };
        let live = change.live()?;
        let Some(partial) = live.partial.as_ref().filter(|_| live.is_partial()) else {
            return Ok(None);
        };
        let prev = partial.prev.iter().map(|id| read_id(id));
        let servers = partial.servers.iter();
        let servers = servers.filter_map(|server| server.as_str().try_into().ok());
        Ok(Some(Incomplete {
            prev: prev.collect::<Result<_, _>>()?,
            servers: servers.collect(),
        }))
    }

    /// Completes a room by what `claimant`, another server, claims of each event that our join follows, `without` such of
    /// the state's events as can't be had.
    ///
    /// # Errors
    /// [`RoomError::Invalid`] for a claim that can't be true; nothing is stored then. Those of the store.
    pub async fn complete_state(
        &self,
        room_id: &RoomId,
        claimant: &ServerName,
        claims: &[Claim],
        without: &BTreeSet<OwnedEventId>,
    ) -> Result<Completed, RoomError> {
        let mut change = match self.change(room_id).await {
            Err(RoomError::UnknownRoom) => return Ok(Completed::Whole),
            change => change?,
        };
        if !change.live()?.is_partial() {
            return Ok(Completed::Whole);
        }
        let wanted = change.lacking_in(claims, without).await?;
        if !wanted.is_empty() {
            return Ok(Completed::Wanted(wanted));
        }
        change.begin();
        let before = change.claimed(claimant, claims, without).await?;
        Box::pin(change.complete(before)).await?;
        change.commit().await?;
        Ok(Completed::Whole)
    }

    /// The room once its state isn't partial: at once for most, else when it has been completed, or left.
    ///
    /// # Errors
    /// [`RoomError::Incomplete`] if that takes too long; [`RoomError::UnknownRoom`].
    pub async fn whole_view(&self, room_id: &RoomId) -> Result<RoomView, RoomError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let completed = self.0.completed.notified();
            tokio::pin!(completed);
            // What is completed from here on is heard of.
            completed.as_mut().enable();
            let view = self.view(room_id).await?;
            if view.head().mode != Mode::Partial {
                return Ok(view);
            }
            let waited = timeout_at(until, completed).await;
            waited.map_err(|_| RoomError::Incomplete)?;
        }
    }

    /// Takes a room for a change that turns on another user's membership, once that is known.
    pub(crate) async fn change_knowing(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Change, RoomError> {
        let mut change = self.change(room_id).await?;
        if change.is_unknown(user).await? {
            drop(change);
            self.whole_view(room_id).await?;
            change = self.change(room_id).await?;
        }
        Ok(change)
    }
}

/// The events that were judged provisionally, as they are judged now.
type Again = BTreeMap<EventNum, Known>;

impl Change {
    /// Whether a user's membership has not come yet.
    async fn is_unknown(&mut self, user: &UserId) -> Result<bool, RoomError> {
        let root = self.live()?.root;
        if !root.is_partial() {
            return Ok(false);
        }
        let Some(key) = self.key("m.room.member", user.as_str()).await? else {
            return Ok(true);
        };
        Ok(self.trie()?.get(root, key).await? == Lookup::Unknown)
    }

    /// What isn't here of some claims, and of the state that we entered with.
    async fn lacking_in(
        &self,
        claims: &[Claim],
        without: &BTreeSet<OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, RoomError> {
        let named = claims.iter().flat_map(|claim| {
            let state = claim.state.iter();
            state.chain([&claim.event]).cloned()
        });
        let mut named: BTreeSet<OwnedEventId> = named.collect();
        named.extend(self.entry_lacks()?);
        named.retain(|id| !without.contains(id));
        let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
        let heard = self.heard(&ids).await?;
        let is_missing = |heard: &Option<Heard>| {
            heard
                .as_ref()
                .is_none_or(|heard| heard.verdict() == Verdict::Named)
        };
        let named = named.into_iter().zip(heard);
        let missing = named.filter(|(_, heard)| is_missing(heard));
        Ok(missing.map(|(id, _)| id).collect())
    }

    /// The state before our join: what it was said to be when we came in, with the members in which the claims come together.
    async fn claimed(
        &mut self,
        claimant: &ServerName,
        claims: &[Claim],
        without: &BTreeSet<OwnedEventId>,
    ) -> Result<AnyRoot, RoomError> {
        let mut roots = Vec::with_capacity(claims.len());
        for claim in claims {
            let state = claim.state.iter().filter(|id| !without.contains(*id));
            let ids: Vec<String> = state.map(ToString::to_string).collect();
            let given = self.heard(&ids).await?;
            let mut root = self.given_state(&given).await?;
            let event = self.heard(&[claim.event.to_string()]).await?;
            // Of one that is done without there is only a name.
            let event = event.iter().flatten();
            let event = event.filter(|heard| heard.verdict() != Verdict::Named);
            let nums: Vec<EventNum> = event.map(|heard| heard.num).collect();
            for event in self.known(&nums).await? {
                if let (Some(state_key), false) =
                    (event.event.state_key(), event.verdict == Verdict::Rejected)
                {
                    let key = self.intern(event.event.event_type(), state_key).await?;
                    root = self.write_state(root, &[(key, Some(event.num))]).await?;
                }
            }
            roots.push(root);
        }
        let root = self.resolve(&roots).await?;
        let create = [self.key("m.room.create", "").await?];
        let ours = self.lookup(self.live()?.root, &create).await?;
        if self.lookup(root, &create).await? != ours {
            return Err(RoomError::Invalid("the state is another room's"));
        }
        self.check_servers(claimant, root).await?;
        // What the room is like was said by who let us in. Whoever else is asked for its members says nothing of that: else
        // any server in it could undo its power levels and bans for us.
        let join = self.live()?.partial.as_ref().map(|partial| partial.join);
        let join = join.map(EventNum).into_iter().collect::<Vec<_>>();
        let entered = self.known(&join).await?.pop();
        let entered = entered.and_then(|known| known.root_before);
        let entered = entered.ok_or_else(|| RoomError::Damaged("a join has no state".into()))?;
        let whole = entered.known_rest().with_members_of(root).into();
        self.with_late(whole, without).await
    }

    /// What of the state that we entered with couldn't be checked then.
    fn entry_lacks(&self) -> Result<Vec<OwnedEventId>, RoomError> {
        let partial = self.live()?.partial.as_ref();
        let lacks = partial.map_or(&[][..], |partial| &partial.lacks);
        lacks.iter().map(|id| read_id(id)).collect()
    }

    /// The state that we entered with, with what of it could be checked since.
    async fn with_late(
        &mut self,
        mut root: AnyRoot,
        without: &BTreeSet<OwnedEventId>,
    ) -> Result<AnyRoot, RoomError> {
        let lacked = self.entry_lacks()?;
        let lacked = lacked.iter().filter(|id| !without.contains(*id));
        let ids: Vec<String> = lacked.map(ToString::to_string).collect();
        let heard = self.heard(&ids).await?;
        let heard = heard.iter().flatten();
        let heard = heard.filter(|heard| heard.verdict() != Verdict::Named);
        let nums: Vec<EventNum> = heard.map(|heard| heard.num).collect();
        for known in self.known(&nums).await? {
            let event = &known.event;
            let Some(state_key) = event.state_key() else {
                continue;
            };
            // Who claims two events of one key is believed in the first; whose members they are is asked of others.
            if known.verdict == Verdict::Rejected || event.event_type() == "m.room.member" {
                continue;
            }
            let key = self.intern(event.event_type(), state_key).await?;
            if self.lookup(root, &[Some(key)]).await? == [None] {
                root = self.write_state(root, &[(key, Some(known.num))]).await?;
            }
        }
        Ok(root)
    }

    /// Whether a claimed state has a member on each server that was named when we came in, if another server than the one
    /// that named them claims it.
    async fn check_servers(&self, claimant: &ServerName, root: AnyRoot) -> Result<(), RoomError> {
        let named = self.live()?.partial.as_ref();
        let named = named.map_or(&[][..], |partial| &partial.servers);
        if named
            .first()
            .is_some_and(|first| first == claimant.as_str())
        {
            return Ok(());
        }
        let mut absent: BTreeSet<&str> = named.iter().map(String::as_str).collect();
        let trie = self.trie()?;
        let mut members = trie.entries(root, Some(Half::Members), StateKeyNum::member(0));
        while !absent.is_empty() {
            let page = members.next_page(PAGE).await?;
            if page.is_empty() {
                return Err(RoomError::Invalid("the state lacks servers of the room"));
            }
            let nums: Vec<EventNum> = page.into_iter().map(|(_, num)| num).collect();
            for known in self.known(&nums).await? {
                let content = MemberContent::read(known.event.content().get());
                let user = known.event.state_key();
                let user = user.and_then(|user| <&UserId>::try_from(user).ok());
                if let (Some(user), Some(Membership::Join)) = (user, content.membership) {
                    absent.remove(user.server_name().as_str());
                }
            }
        }
        Ok(())
    }

    /// Makes the room's state whole, `before` being the one before our join.
    async fn complete(&mut self, before: AnyRoot) -> Result<(), RoomError> {
        let Some(partial) = self.live()?.partial.clone() else {
            return Err(RoomError::Damaged("a partial room has no join".into()));
        };
        let live = self.live_mut()?;
        live.after.clear();
        live.tips.clear();
        live.listeners = None;
        let (again, mut late) = self.judge_again(EventNum(partial.join), before).await?;
        let extremities = self.extremities_among(&again).await?;
        let roots = self.after(&extremities).await?;
        let root = self.resolve(&roots).await?;
        let join = again.get(&EventNum(partial.join)).map(|known| known.num);
        let difference = self.difference(self.live()?.root, root).await?;
        self.end_partial()?;
        let room = self.live()?.room;
        self.batch().delete::<Partials>(&InRoom { room });
        let live = self.live_mut()?;
        live.root = root;
        live.root_changed = true;
        live.head.root = root.encode();
        live.head.mode = Mode::Joined;
        live.head.extremities = extremities.iter().map(|num| num.0).collect();
        let (room_id, seq) = (live.room_id.to_string(), live.head.seq);
        let mut members = self.derive(&difference, seq).await?;
        for member in &members {
            self.heard_of(member.user()).await?;
        }
        self.put_head()?;
        let completed = log::Completed {
            join: match join {
                Some(num) => self.seq_of(num).await?,
                None => 0,
            },
            servers: partial.servers,
        };
        let record = log::record(log::kind::COMPLETED, &room_id, &completed)?;
        self.batch().log(record);
        members.retain(|moved| self.is_ours(moved.user()));
        if !members.is_empty() {
            let members = members.into_iter().map(|moved| moved.into_entry());
            let members = members.collect();
            let resolved = log::Resolved { seq, members };
            let record = log::record(log::kind::RESOLVED, &room_id, &resolved)?;
            self.batch().log(record);
        }
        for case in &mut late {
            let named = |known: &Known| {
                known.verdict == Verdict::Accepted && known.prev.contains(&case.known.num)
            };
            case.followed = again.values().any(named);
        }
        for case in late {
            self.accept_late(case).await?;
        }
        // By the whole state more may have had the power to redact than by what was known of it.
        let is_redaction =
            |known: &&Known| known.verdict == Verdict::Accepted && known.event.redacts().is_some();
        for redaction in again.values().filter(is_redaction) {
            self.redact(redaction).await?;
        }
        Ok(())
    }

    /// Judges again, parents first, what was judged by what was known. Answers the events, and apart
    /// from their rows those that turned out to be allowed after all: what had been rejected, and what had
    /// been soft-failed, maybe by a kick that is rejected now.
    async fn judge_again(
        &mut self,
        join: EventNum,
        before: AnyRoot,
    ) -> Result<(Again, Vec<Case>), RoomError> {
        let room = self.live()?.room;
        let nums: Vec<EventNum> = self.live()?.provisional.iter().copied().collect();
        let keys: Vec<RoomNum> = nums
            .iter()
            .map(|num| RoomNum { room, num: num.0 })
            .collect();
        let rows = self
            .live()?
            .reader()
            .get_many::<Provisionals>(&keys)
            .await?;
        let mut given: BTreeMap<EventNum, AnyRoot> = BTreeMap::new();
        for (num, row) in nums.iter().zip(rows) {
            let row = row.map(|row| row.value.given).unwrap_or_default();
            if !row.is_empty() {
                given.insert(*num, read_root(&row)?);
            }
        }
        let (mut again, mut late) = (Again::new(), Vec::new());
        for mut known in graph_first(self.known(&nums).await?) {
            let links = self.links(&known.event, &Way::New).await?;
            let root = if known.num == join {
                before
            } else {
                let is_placed = |heard: &&Heard| {
                    let root = heard.root_before();
                    root.is_ok_and(|root| root.is_some_and(|root| !root.is_partial()))
                };
                let parents = links.prev.iter().flatten().filter(is_placed);
                let parents: Vec<EventNum> = parents.map(|heard| heard.num).collect();
                let mut roots = self.after(&parents).await?;
                if parents.len() < known.prev.len() {
                    roots.extend(given.get(&known.num));
                }
                self.resolve(&roots).await?
            };
            if root.is_partial() {
                return Err(RoomError::Damaged("a state stays partial".into()));
            }
            known.root_before = Some(root);
            let rejection = self.rejection(&known, &links).await?;
            if let Some(rejection) = &rejection {
                let event_id = known.event.event_id();
                tracing::debug!(%event_id, %rejection, "rejected by the whole state");
            }
            if known.num == join && rejection.is_some() {
                return Err(RoomError::Invalid("the state does not allow our join"));
            }
            let was = known.verdict;
            known.verdict = match rejection {
                Some(_) => Verdict::Rejected,
                None => Verdict::Accepted,
            };
            let own = links.own.clone();
            let own = own.ok_or_else(|| RoomError::Damaged("an event has no status".into()))?;
            self.remember(&known);
            if was != known.verdict && known.verdict == Verdict::Accepted {
                self.index(&known).await?;
                late.push(self.case(known.clone(), Some(own)).await?);
            } else {
                let at = RoomNum {
                    room,
                    num: known.num.0,
                };
                let status = Status {
                    verdict: known.verdict,
                    root_before: root.encode(),
                    ..own.status.value
                };
                self.batch()
                    .expect::<tables::Statuses>(&at, Expect::At(own.status.pos))
                    .put::<tables::Statuses>(&at, &status);
            }
            again.insert(known.num, known);
        }
        for case in &late {
            // It isn't part of the room yet: its place comes with its row.
            if let Some(known) = again.get_mut(&case.known.num) {
                known.verdict = Verdict::SoftFailed;
            }
        }
        Ok((again, late))
    }

    /// The extremities without those that have been rejected; in their place what these followed, unless
    /// another accepted event follows it too.
    async fn extremities_among(&self, again: &Again) -> Result<Vec<EventNum>, RoomError> {
        let is_accepted = |known: &&Known| known.verdict == Verdict::Accepted;
        let accepted = again.values().filter(is_accepted);
        let mut covered: BTreeSet<EventNum> = BTreeSet::new();
        let mut ahead: Vec<EventNum> = accepted.flat_map(|known| known.prev.clone()).collect();
        while let Some(num) = ahead.pop() {
            if covered.insert(num)
                && let Some(known) = again.get(&num).filter(|known| !is_accepted(known))
            {
                ahead.extend(&known.prev);
            }
        }
        let live = self.live()?;
        let mut ahead: VecDeque<EventNum> = live
            .head
            .extremities
            .iter()
            .copied()
            .map(EventNum)
            .collect();
        let (mut seen, mut ends) = (BTreeSet::new(), Vec::new());
        while let Some(num) = ahead.pop_front() {
            if !seen.insert(num) {
                continue;
            }
            match again.get(&num) {
                Some(known) if !is_accepted(&known) => ahead.extend(&known.prev),
                Some(_) => ends.push(num),
                None => {
                    let at = RoomNum {
                        room: live.room,
                        num: num.0,
                    };
                    let row = live.reader().get::<tables::Statuses>(&at).await?;
                    let is_end = |status: &Status| {
                        let root = AnyRoot::decode(&status.root_before);
                        let is_whole = root.is_ok_and(|root| !root.is_partial());
                        status.verdict == Verdict::Accepted && is_whole
                    };
                    if row.is_some_and(|row| is_end(&row.value)) {
                        ends.push(num);
                    }
                }
            }
        }
        ends.retain(|num| !covered.contains(num));
        if ends.is_empty() {
            return Err(RoomError::Damaged("nothing is left of the room".into()));
        }
        Ok(ends)
    }

    /// Makes an event part of the room that wasn't, if the room as it is now allows it.
    async fn accept_late(&mut self, mut case: Case) -> Result<(), RoomError> {
        let links = self.links(&case.known.event, &Way::New).await?;
        case.known.verdict = self.verdict(&case.known, &links).await?;
        self.remember(&case.known);
        if case.known.verdict == Verdict::Accepted {
            Box::pin(self.accept(case, None)).await.map(drop)
        } else {
            self.keep(case).await
        }
    }

    /// The sequence number of an event of the room.
    async fn seq_of(&self, num: EventNum) -> Result<i64, RoomError> {
        let live = self.live()?;
        let at = RoomNum {
            room: live.room,
            num: num.0,
        };
        let row = live.reader().get::<tables::Statuses>(&at).await?;
        let place = row.and_then(|row| row.value.place);
        Ok(place.map_or(0, |(seq, _)| seq))
    }

    /// Begins a partial state, with the join that is about to be placed.
    pub(super) fn begin_partial(
        &mut self,
        join: &Event,
        num: EventNum,
        servers: &[OwnedServerName],
        lacks: Vec<String>,
    ) -> Result<(), RoomError> {
        let live = self.live_mut()?;
        let room = live.room;
        let partial = tables::Partial {
            join: num.0,
            prev: join.prev_events().iter().map(ToString::to_string).collect(),
            servers: servers.iter().map(ToString::to_string).collect(),
            lacks,
        };
        live.head.mode = Mode::Partial;
        live.partial = Some(partial.clone());
        live.provisional.clear();
        self.batch().put::<Partials>(&InRoom { room }, &partial);
        Ok(())
    }

    /// Ends it: the state is whole, or nobody here needs it any more. The row stays in a room that we leave:
    /// the servers that it names are to hear of that.
    pub(crate) fn end_partial(&mut self) -> Result<(), RoomError> {
        let live = self.live_mut()?;
        let room = live.room;
        if live.partial.take().is_none() {
            return Ok(());
        }
        self.end_wait();
        let live = self.live_mut()?;
        let provisional = std::mem::take(&mut live.provisional);
        for num in provisional {
            self.batch()
                .delete::<Provisionals>(&RoomNum { room, num: num.0 });
        }
        Ok(())
    }
}
