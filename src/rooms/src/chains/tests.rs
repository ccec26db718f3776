//! The cover against a plain search of the graph, and the laws by which its cost may grow.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Rows in memory, which counts what is read and written.
#[derive(Debug, Default)]
struct Store {
    rows: Mutex<BTreeMap<ChainKey, Bytes>>,
    read: AtomicUsize,
    trips: AtomicUsize,
    written: AtomicUsize,
}

impl ChainSource for &Store {
    type Error = Infallible;

    async fn rows(&self, keys: &[ChainKey]) -> Result<Vec<Option<Bytes>>, Infallible> {
        self.read.fetch_add(keys.len(), Relaxed);
        self.trips.fetch_add(1, Relaxed);
        let rows = self.rows.lock();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn scan(
        &self,
        ranges: &[(ChainKey, ChainKey)],
        limit: usize,
    ) -> Result<Vec<Vec<ChainKey>>, Infallible> {
        let rows = self.rows.lock();
        let page = |(first, last): &(_, _)| {
            rows.range(first..last)
                .map(|(key, _)| *key)
                .take(limit)
                .collect()
        };
        let pages: Vec<Vec<_>> = ranges.iter().map(page).collect();
        self.read
            .fetch_add(pages.iter().map(Vec::len).sum(), Relaxed);
        self.trips.fetch_add(1, Relaxed);
        Ok(pages)
    }
}

struct Entries(BTreeSet<EventNum>);

impl StateSet for Entries {
    type Error = Infallible;

    async fn contains(&self, events: &[(StateKeyNum, EventNum)]) -> Result<Vec<bool>, Infallible> {
        Ok(events.iter().map(|(_, num)| self.0.contains(num)).collect())
    }
}

impl Store {
    fn index(&self) -> ChainIndex<&Self> {
        ChainIndex::new(self)
    }

    fn insert(&self, events: &[NewEvent]) {
        for row in now(self.index().insert(events)).unwrap() {
            self.written
                .fetch_add(row.key.encode().len() + row.value.len(), Relaxed);
            self.rows.lock().insert(row.key, row.value);
        }
    }

    fn disk(&self) -> usize {
        self.rows
            .lock()
            .iter()
            .map(|(key, value)| key.encode().len() + value.len())
            .sum()
    }

    /// Rows read and round trips made by `work`.
    fn count<T>(&self, work: impl Future<Output = T>) -> (T, usize, usize) {
        let before = (self.read.load(Relaxed), self.trips.load(Relaxed));
        let done = now(work);
        (
            done,
            self.read.load(Relaxed) - before.0,
            self.trips.load(Relaxed) - before.1,
        )
    }
}

/// Drives a future over the store in memory, which never waits.
fn now<F: Future>(work: F) -> F::Output {
    work.now_or_never().expect("nothing here waits")
}

/// The graph itself, searched in full.
#[derive(Debug, Clone, Default)]
struct Graph(BTreeMap<EventNum, Vec<EventNum>>);

impl Graph {
    fn auth_chain<'a>(&self, of: impl IntoIterator<Item = &'a EventNum>) -> BTreeSet<EventNum> {
        let mut ahead: Vec<_> = of.into_iter().flat_map(|num| self.0[num].clone()).collect();
        let mut chain = BTreeSet::new();
        while let Some(num) = ahead.pop() {
            if chain.insert(num) {
                ahead.extend(&self.0[&num]);
            }
        }
        chain
    }
}

/// A room's state events in an order of arrival. Keys are few, so that chains grow, fork and cross;
/// numbers say nothing of order.
fn room() -> impl Strategy<Value = Vec<NewEvent>> {
    let event = (
        0u32..7,
        vec(any::<Index>(), 0..4),
        any::<bool>(),
        any::<bool>(),
    );
    vec(event, 1..90).prop_map(|events| {
        let number = |at: usize| EventNum((at as u32 * 37) % 101);
        let mut room: Vec<NewEvent> = Vec::new();
        for (at, (key, auth, chained, recent)) in events.into_iter().enumerate() {
            let from = if recent { at.saturating_sub(6) } else { 0 };
            let mut auth: Vec<_> = match at {
                0 => Vec::new(),
                _ => auth
                    .into_iter()
                    .map(|index| number(from + index.index(at - from)))
                    .collect(),
            };
            let key = StateKeyNum(key);
            if chained {
                auth.extend(
                    room.iter()
                        .rev()
                        .find(|event| event.key == key)
                        .map(|event| event.num),
                );
            }
            room.push(NewEvent {
                num: number(at),
                key,
                auth,
            });
        }
        room
    })
}

fn graph(room: &[NewEvent]) -> Graph {
    Graph(
        room.iter()
            .map(|event| (event.num, event.auth.clone()))
            .collect(),
    )
}

fn pick(room: &[NewEvent], which: &[Index]) -> BTreeSet<EventNum> {
    which
        .iter()
        .map(|index| room[index.index(room.len())].num)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn the_cover_answers_as_the_graph_does(
        room in room(),
        batch in 1usize..20,
        forks in vec(vec(any::<Index>(), 0..5), 1..4),
        common in vec(any::<Index>(), 0..6),
    ) {
        let store = Store::default();
        room.chunks(batch).for_each(|events| store.insert(events));
        let (index, graph) = (store.index(), graph(&room));

        for event in &room {
            let chain = graph.auth_chain([&event.num]);
            prop_assert_eq!(&now(index.auth_chain(&[event.num])).unwrap(), &chain);
            let other = room[batch % room.len()].num;
            prop_assert_eq!(now(index.reaches(event.num, other)).unwrap(), chain.contains(&other));
        }

        let forks: Vec<_> = forks.iter().map(|which| pick(&room, which)).collect();
        let common = pick(&room, &common);
        let chains: Vec<_> = forks.iter().map(|fork| graph.auth_chain(fork.union(&common))).collect();
        let difference: BTreeSet<_> = chains
            .iter()
            .flatten()
            .copied()
            .filter(|num| !chains.iter().all(|chain| chain.contains(num)))
            .collect();
        let state = Entries(common.clone());
        prop_assert_eq!(now(index.auth_difference(&forks, &state)).unwrap(), difference);

        let reached = graph.auth_chain(&common);
        for event in &room {
            prop_assert_eq!(now(index.is_reached(event.num, &state)).unwrap(), reached.contains(&event.num));
        }

        let conflicted: BTreeSet<_> = forks.iter().flatten().copied().collect();
        let mut subgraph = graph.auth_chain(&conflicted);
        subgraph.extend(&conflicted);
        subgraph.retain(|num| {
            conflicted.contains(num) || graph.auth_chain([num]).intersection(&conflicted).next().is_some()
        });
        prop_assert_eq!(now(index.conflicted_subgraph(&conflicted)).unwrap(), subgraph);
    }

    /// What comes again changes nothing; what rests on the unknown, or on itself, is refused (D12).
    #[test]
    fn an_event_is_placed_once_and_after_its_auth_events(room in room()) {
        let store = Store::default();
        store.insert(&room);
        prop_assert_eq!(now(store.index().insert(&room)).unwrap(), []);
        for auth in [EventNum(5_000), EventNum(6_000)] {
            let new = NewEvent { num: EventNum(5_000), key: StateKeyNum(0), auth: vec![room[0].num, auth] };
            let refused = now(store.index().insert(&[new]));
            prop_assert!(matches!(refused, Err(ChainError::NotIndexed(num)) if num == auth));
        }
    }

    /// Law 12: lost and damaged rows are errors or wrong answers to be found by `check`, never a
    /// panic or an endless walk.
    #[test]
    fn damaged_rows_never_panic(room in room(), which: Index, at: Index, to: Option<u8>) {
        let store = Store::default();
        store.insert(&room);
        let keys: Vec<_> = store.rows.lock().keys().copied().collect();
        let key = keys[which.index(keys.len())];
        let mut bytes = store.rows.lock().remove(&key).unwrap().to_vec();
        if let Some(to) = to {
            let at = at.index(bytes.len());
            bytes[at] = to;
            store.rows.lock().insert(key, bytes.into());
        }
        let all: BTreeSet<_> = room.iter().map(|event| event.num).collect();
        for event in &room {
            let _ = now(store.index().auth_chain(&[event.num]));
            let _ = now(store.index().is_reached(event.num, &Entries(BTreeSet::new())));
        }
        let _ = now(store.index().conflicted_subgraph(&all));
        let _ = now(store.index().insert(&room));
    }
}

const CREATE: u32 = 0;
const CREATOR: u32 = 1;
const POWER: u32 = 2;
const RULES: u32 = 3;

fn event(num: u32, key: u32, auth: &[u32]) -> NewEvent {
    NewEvent {
        num: EventNum(num),
        key: StateKeyNum(key),
        auth: auth.iter().copied().map(EventNum).collect(),
    }
}

/// A room as people make them: four events of its own and then members, of whom every second one
/// changed their name.
fn ordinary(members: u32) -> (Store, BTreeSet<EventNum>) {
    let mut events = vec![
        event(CREATE, 0, &[]),
        event(CREATOR, 1, &[CREATE]),
        event(POWER, 2, &[CREATE, CREATOR]),
        event(RULES, 3, &[CREATE, CREATOR, POWER]),
    ];
    let mut state: BTreeSet<_> = (0..4).map(EventNum).collect();
    for member in 0..members {
        let num = 10 + 2 * member;
        events.push(event(num, 10 + member, &[CREATE, POWER, RULES]));
        if member % 2 == 1 {
            events.push(event(num + 1, 10 + member, &[CREATE, POWER, RULES, num]));
        }
        state.insert(EventNum(num + member % 2));
    }
    let store = Store::default();
    events.chunks(50).for_each(|events| store.insert(events));
    (store, state)
}

/// Auth difference O(chains touched): with members 16-fold the same rows are read.
#[test]
fn a_fork_costs_what_it_touches_however_large_the_room() {
    let mut costs = Vec::new();
    for members in [600, 2_400, 9_600] {
        let (store, mut common) = ordinary(members);
        // One fork changes the power levels, the other two members' names.
        let (power, first, second) = (1 << 20, (1 << 20) + 1, (1 << 20) + 2);
        store.insert(&[
            event(power, 2, &[CREATE, CREATOR, POWER]),
            event(first, 10, &[CREATE, POWER, RULES, 10]),
            event(second, 11, &[CREATE, POWER, RULES, 13]),
        ]);
        let forks = [
            [power].map(EventNum).into(),
            [first, second].map(EventNum).into(),
        ];
        for conflicted in [POWER, 10, 13] {
            common.remove(&EventNum(conflicted));
        }
        let index = store.index();
        let (difference, reads, trips) =
            store.count(index.auth_difference(&forks, &Entries(common)));
        assert_eq!(difference.unwrap(), [10, 12, 13].map(EventNum).into());
        let conflicted = forks
            .iter()
            .flatten()
            .copied()
            .chain([EventNum(POWER)])
            .collect();
        let (subgraph, more, further) = store.count(index.conflicted_subgraph(&conflicted));
        assert_eq!(
            subgraph.unwrap(),
            [POWER, RULES, 10, 12, 13, power, first, second]
                .map(EventNum)
                .into()
        );
        let (written, insertion) = {
            let before = store.written.load(Relaxed);
            let (_, reads, trips) = store.count(async {
                store.insert(&[event(1 << 21, 10, &[CREATE, POWER, RULES, first])])
            });
            (store.written.load(Relaxed) - before, (reads, trips))
        };
        assert!(written < 120, "{written} bytes for a state event");
        costs.push((reads, trips, more, further, insertion));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[1], costs[2]);
    assert!(
        costs[0].1 <= 12 && costs[0].3 <= 6 && costs[0].4.1 == 2,
        "{costs:?}"
    );
}

/// A target with more citing links than a page holds is climbed to the last of them.
#[test]
fn many_citing_events_are_read_page_by_page() {
    let (store, _) = ordinary(600);
    let last = EventNum(10 + 2 * 599);
    for (state, reached) in [
        ([last].into(), true),
        (BTreeSet::new(), false),
        ([EventNum(RULES)].into(), false),
    ] {
        let found = now(store.index().is_reached(EventNum(RULES), &Entries(state)));
        assert_eq!(found.unwrap(), reached);
    }
}

/// D7 (CVE-2024-31208): crafted chains cost less disk than the events themselves, are indexed
/// without a search, and no question reads a row more than a few times.
#[test]
fn crafted_chains_cost_no_more_than_their_edges() {
    type Craft = fn(u32) -> NewEvent;
    let crafted: [(&str, Craft); 4] = [
        // Ten scattered auth events each, every event a chain of its own.
        ("scattered", |n| {
            let auth: Vec<_> = (1..=10.min(n))
                .map(|k| (n.wrapping_mul(7_919).wrapping_add(k * 104_729)) % n)
                .collect();
            event(n, n, &auth)
        }),
        // The ten before it.
        ("dense", |n| {
            event(n, n, &(n.saturating_sub(10)..n).collect::<Vec<_>>())
        }),
        // Ten long chains, each event on all ten.
        ("woven", |n| {
            event(n, n % 10, &(n.saturating_sub(10)..n).collect::<Vec<_>>())
        }),
        // A chain of chains, each one hop from the next.
        ("line", |n| {
            event(n, n, &n.checked_sub(1).into_iter().collect::<Vec<_>>())
        }),
    ];
    for (name, make) in crafted {
        let store = Store::default();
        let events: Vec<_> = (0..10_000).map(make).collect();
        // An id with its quotes and comma is 47 bytes; hashes, signature and the rest above 400.
        let bytes: usize = events.iter().map(|event| 400 + 47 * event.auth.len()).sum();
        events.chunks(50).for_each(|events| store.insert(events));
        assert!(
            store.disk() < bytes,
            "{name}: {} of {bytes} bytes",
            store.disk()
        );
        assert!(
            store.written.load(Relaxed) < bytes,
            "{name}: {} written",
            store.written.load(Relaxed)
        );

        let rows = store.rows.lock().len();
        let tips: BTreeSet<_> = (9_990..10_000).map(EventNum).collect();
        let forks = [
            tips.iter().copied().take(5).collect(),
            tips.iter().copied().skip(5).collect(),
        ];
        let index = store.index();
        let common = Entries(BTreeSet::new());
        let (_, reads, _) = store.count(index.auth_difference(&forks, &common));
        assert!(reads <= 4 * rows, "{name}: {reads} reads of {rows} rows");
        let (_, reads, _) = store.count(index.is_reached(EventNum(1), &common));
        assert!(reads <= 2 * rows, "{name}: {reads} reads of {rows} rows");
        let (_, reads, _) = store.count(index.conflicted_subgraph(&tips));
        assert!(reads <= 2 * rows, "{name}: {reads} reads of {rows} rows");
    }
}
