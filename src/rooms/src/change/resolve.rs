//! State resolution on the room's rows: what [`state_res`] asks for, it gets.
//!
//! Forks are differences of roots, so that what is read follows the conflict. The two questions
//! for the auth graph are answered by the chain cover beforehand; events and entries of the base
//! are loaded when resolution asks for them, and it is run again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use comity_protocol::{
    room_version::{RoomVersionRules, StateResolution},
    state_res::{self, AuthGraph, Conflict, Events, Missing, StateDifference, StateKey},
};
use comity_storage::{Damaged, ReadError};

use super::{Change, Known};
use crate::{
    chains::StateSet,
    error::RoomError,
    live::{Judged, RoomNodes},
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, Lookup, StateTrie, TrieError},
    tables::{self, RoomNum, Verdict},
};

/// What has been loaded so far.
#[derive(Default)]
struct Loaded {
    events: BTreeMap<EventNum, Known>,
    base: BTreeMap<StateKey, Option<EventNum>>,
}

/// [`Loaded`] as resolution sees it, and what it asked for that isn't there.
struct Room<'a> {
    events: BTreeMap<EventNum, Judged<'a>>,
    loaded: &'a Loaded,
    unknown: RefCell<BTreeSet<StateKey>>,
}

impl<'a> Events for Room<'a> {
    type Event = Judged<'a>;

    fn event(&self, num: &EventNum) -> Option<&Judged<'a>> {
        self.events.get(num)
    }
    fn is_rejected(&self, num: &EventNum) -> bool {
        let known = self.loaded.events.get(num);
        known.is_some_and(|known| known.verdict == Verdict::Rejected)
    }
    fn base(&self, event_type: &str, state_key: &str) -> Option<EventNum> {
        let key = (event_type.to_owned(), state_key.to_owned());
        if let Some(entry) = self.loaded.base.get(&key) {
            return *entry;
        }
        self.unknown.borrow_mut().insert(key);
        None
    }
}

/// The answers for this one conflict.
#[derive(Default)]
struct Answers {
    difference: BTreeSet<EventNum>,
    subgraph: BTreeSet<EventNum>,
}

impl AuthGraph<EventNum> for Answers {
    fn auth_difference(
        &self,
        _: &[BTreeSet<EventNum>],
        _: &dyn Fn(&EventNum) -> bool,
    ) -> BTreeSet<EventNum> {
        self.difference.clone()
    }
    fn conflicted_subgraph(&self, _: &BTreeSet<EventNum>) -> BTreeSet<EventNum> {
        self.subgraph.clone()
    }
}

/// The entries that all forks share.
struct Common {
    trie: StateTrie<RoomNodes>,
    base: AnyRoot,
    /// Entries that some fork has otherwise than the base: `None` where the forks disagree.
    touched: BTreeMap<StateKeyNum, Option<EventNum>>,
}

impl StateSet for Common {
    type Error = ReadError;

    async fn contains(&self, events: &[(StateKeyNum, EventNum)]) -> Result<Vec<bool>, ReadError> {
        let keys: Vec<StateKeyNum> = events.iter().map(|(key, _)| *key).collect();
        let base = self
            .trie
            .multi_get(self.base, &keys)
            .await
            .map_err(|error| match error {
                TrieError::Source(error) => error,
                _ => Damaged("a state node is missing or damaged").into(),
            })?;
        let held = |((key, num), base): (&(StateKeyNum, EventNum), Lookup)| {
            let entry = self.touched.get(key).copied();
            entry.unwrap_or_else(|| base.present()) == Some(*num)
        };
        Ok(events.iter().zip(base).map(held).collect())
    }
}

impl Change {
    /// The state where forks with these states meet. Its nodes are in this change's batch. It is partial
    /// if one of them is: what that one doesn't know is taken to be as the others have it.
    pub(crate) async fn resolve(&mut self, roots: &[AnyRoot]) -> Result<AnyRoot, RoomError> {
        let mut distinct = roots.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let (base, others) = match distinct.as_slice() {
            [] => return Ok(AnyRoot::EMPTY),
            [one] => return Ok(*one),
            [base, others @ ..] => (*base, others),
        };
        let is_partial = distinct.iter().any(|root| root.is_partial());
        let mut loaded = Loaded::default();
        let mut names = BTreeMap::new();
        let mut forks: Vec<StateDifference<EventNum>> = vec![BTreeMap::new()];
        for root in others {
            let difference = self.difference(base, *root).await?;
            let keys: Vec<StateKeyNum> = difference.keys().copied().collect();
            self.name_keys(&keys, &mut names).await?;
            let mut fork = BTreeMap::new();
            for (key, (new, old)) in difference {
                let Some(name) = names.get(&key) else {
                    continue;
                };
                if new.is_none() && root.is_partial() && !base.is_partial() && key.is_member() {
                    continue;
                }
                loaded.base.insert(name.clone(), old);
                fork.insert(name.clone(), new);
            }
            forks.push(fork);
        }
        let numbers = names.into_iter().map(|(key, name)| (name, key)).collect();
        let resolved = self.resolve_forks(base, &forks, loaded, &numbers).await?;
        let mut edits = Vec::with_capacity(resolved.len());
        for ((event_type, state_key), entry) in resolved {
            edits.push((self.intern(&event_type, &state_key).await?, entry));
        }
        let base = if is_partial { base.as_partial() } else { base };
        self.write_state(base, &edits).await
    }

    async fn resolve_forks(
        &mut self,
        base: AnyRoot,
        forks: &[StateDifference<EventNum>],
        mut loaded: Loaded,
        numbers: &BTreeMap<StateKey, StateKeyNum>,
    ) -> Result<StateDifference<EventNum>, RoomError> {
        let rules = self.live()?.rules();
        let conflict = Conflict::between(forks, |key| loaded.base.get(key).copied().flatten());
        let answers = self.answers(rules, base, &conflict, numbers).await?;
        let mut wanted = conflict.conflicted_set();
        wanted.extend(answers.difference.iter().chain(&answers.subgraph));
        let mut unknown = BTreeSet::new();
        loop {
            self.load(&mut loaded, base, wanted, unknown).await?;
            let (answer, asked) = attempt(rules, &loaded, &answers, forks);
            unknown = asked;
            wanted = match answer {
                Ok(resolved) if unknown.is_empty() => return Ok(resolved),
                Ok(_) => BTreeSet::new(),
                Err(Missing(missing)) => missing,
            };
        }
    }

    /// What the auth graph says of this conflict.
    async fn answers(
        &self,
        rules: &RoomVersionRules,
        base: AnyRoot,
        conflict: &Conflict<EventNum>,
        numbers: &BTreeMap<StateKey, StateKeyNum>,
    ) -> Result<Answers, RoomError> {
        if rules.state_resolution == StateResolution::V1 {
            return Ok(Answers::default());
        }
        let disputed = conflict.disputed.keys().map(|key| (key, None));
        let agreed = conflict.agreed.iter().map(|(key, entry)| (key, *entry));
        let touched = disputed
            .chain(agreed)
            .filter_map(|(key, entry)| Some((*numbers.get(key)?, entry)))
            .collect();
        let common = Common {
            trie: self.trie()?,
            base,
            touched,
        };
        let chains = self.chains()?;
        let difference = chains.auth_difference(&conflict.by_fork(), &common).await?;
        let subgraph = if rules.state_resolution == StateResolution::V2_1 {
            chains
                .conflicted_subgraph(&conflict.conflicted_set())
                .await?
        } else {
            BTreeSet::new()
        };
        Ok(Answers {
            difference,
            subgraph,
        })
    }

    /// Loads events with their auth events, and entries of the base.
    async fn load(
        &mut self,
        loaded: &mut Loaded,
        base: AnyRoot,
        wanted: BTreeSet<EventNum>,
        unknown: BTreeSet<StateKey>,
    ) -> Result<(), RoomError> {
        let mut wanted = wanted;
        // Once more for the auth events of those that were wanted.
        for _ in 0..2 {
            let nums: Vec<EventNum> = wanted
                .iter()
                .filter(|num| !loaded.events.contains_key(num))
                .copied()
                .collect();
            let known = self.known(&nums).await?;
            wanted = known
                .iter()
                .flat_map(|known| known.auth.iter().copied())
                .collect();
            loaded
                .events
                .extend(known.into_iter().map(|known| (known.num, known)));
        }
        let mut keys = Vec::with_capacity(unknown.len());
        for (event_type, state_key) in &unknown {
            keys.push(self.key(event_type, state_key).await?);
        }
        let entries = self.lookup(base, &keys).await?;
        loaded.base.extend(unknown.into_iter().zip(entries));
        Ok(())
    }

    /// The names of state keys, also of those first used in this change.
    pub(super) async fn name_keys(
        &self,
        keys: &[StateKeyNum],
        names: &mut BTreeMap<StateKeyNum, StateKey>,
    ) -> Result<(), RoomError> {
        let live = self.live()?;
        let unnamed: Vec<StateKeyNum> = keys
            .iter()
            .filter(|key| !names.contains_key(key))
            .copied()
            .collect();
        let at: Vec<RoomNum> = unnamed
            .iter()
            .map(|key| RoomNum {
                room: live.room,
                num: key.0,
            })
            .collect();
        let rows = live.reader().get_many::<tables::StateKeys>(&at).await?;
        for (key, row) in unnamed.into_iter().zip(rows) {
            let new = || live.keys.iter().find(|(_, num)| **num == key);
            let name = match row {
                Some(row) => (row.value.event_type, row.value.state_key),
                None => new()
                    .map(|(name, _)| name.clone())
                    .ok_or_else(|| RoomError::Damaged("a state key has no name".into()))?,
            };
            names.insert(key, name);
        }
        Ok(())
    }
}

/// One run over what is loaded: the answer, and the entries of the base that it lacked.
fn attempt(
    rules: &RoomVersionRules,
    loaded: &Loaded,
    answers: &Answers,
    forks: &[StateDifference<EventNum>],
) -> (
    Result<StateDifference<EventNum>, Missing<EventNum>>,
    BTreeSet<StateKey>,
) {
    let room = Room {
        events: loaded
            .events
            .iter()
            .map(|(num, known)| (*num, known.judged()))
            .collect(),
        loaded,
        unknown: RefCell::default(),
    };
    let answer = state_res::resolve(rules, &room, answers, forks);
    (answer, room.unknown.into_inner())
}
