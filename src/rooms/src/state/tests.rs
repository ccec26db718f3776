//! The trie against a plain map, and the laws by which its cost may grow.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use proptest::{collection::vec, prelude::*};

use super::*;

/// Nodes in memory, which counts what is read: nodes and round trips.
#[derive(Debug, Default)]
struct Store {
    nodes: Mutex<HashMap<NodeHash, Bytes>>,
    read: AtomicUsize,
    trips: AtomicUsize,
}

impl NodeSource for &Store {
    type Error = Infallible;

    async fn nodes(&self, hashes: &[NodeHash]) -> Result<Vec<Option<Bytes>>, Infallible> {
        self.read.fetch_add(hashes.len(), Relaxed);
        self.trips.fetch_add(1, Relaxed);
        let nodes = self.nodes.lock();
        Ok(hashes.iter().map(|hash| nodes.get(hash).cloned()).collect())
    }
}

impl Store {
    fn put(&self, nodes: Vec<(NodeHash, Bytes)>) {
        self.nodes.lock().extend(nodes);
    }

    /// A trie that reads each node from the store anew.
    fn trie(&self) -> StateTrie<&Self> {
        StateTrie::new(self, Arc::new(NodeCache::new(0)))
    }

    /// Nodes read and round trips made by `work`.
    fn count<T>(&self, work: impl Future<Output = T>) -> (T, usize, usize) {
        let before = (self.read.load(Relaxed), self.trips.load(Relaxed));
        let done = now(work);
        (
            done,
            self.read.load(Relaxed) - before.0,
            self.trips.load(Relaxed) - before.1,
        )
    }

    fn build(&self, map: &Map) -> Root {
        let mut builder = StateBuilder::default();
        map.iter()
            .rev()
            .for_each(|(&key, &num)| builder.push(key, num));
        let mut nodes = builder.finish().unwrap();
        loop {
            let chunk = nodes.next_nodes(7);
            assert!(
                chunk.len() <= 7 + 8,
                "bounded, whatever the size of the state"
            );
            if chunk.is_empty() {
                return nodes.root().unwrap();
            }
            self.put(chunk);
        }
    }

    fn apply<R: Snapshot>(&self, root: R, edits: &[(StateKeyNum, Option<EventNum>)]) -> R {
        let written = now(self.trie().apply(root, edits)).unwrap();
        self.put(written.nodes);
        written.root
    }

    fn diff(&self, old: impl Snapshot, new: impl Snapshot, page: usize) -> Vec<Change> {
        let trie = self.trie();
        let mut diff = trie.diff(old, new);
        let mut changes = Vec::new();
        loop {
            let next = now(diff.next_page(page)).unwrap();
            assert!(next.len() <= page);
            if next.is_empty() {
                return changes;
            }
            changes.extend(next);
        }
    }
}

type Map = BTreeMap<StateKeyNum, EventNum>;
type Edits = Vec<(StateKeyNum, Option<EventNum>)>;

/// Drives a future over the store in memory, which never waits.
fn now<F: Future>(work: F) -> F::Output {
    work.now_or_never().expect("nothing here waits")
}

fn key() -> impl Strategy<Value = StateKeyNum> {
    let index = prop_oneof![6 => 0u32..200, 3 => 0u32..5000, 1 => 0u32..1 << 31];
    (any::<bool>(), index).prop_map(|(member, index)| {
        if member {
            StateKeyNum::member(index)
        } else {
            StateKeyNum::other(index)
        }
    })
}

fn num() -> impl Strategy<Value = EventNum> {
    prop_oneof![0u32..8, any::<u32>()].prop_map(EventNum)
}

fn edits(most: usize) -> impl Strategy<Value = Edits> {
    vec((key(), proptest::option::weighted(0.7, num())), 0..most)
}

fn edited(mut map: Map, edits: &Edits) -> Map {
    for &(key, num) in edits {
        match num {
            Some(num) => _ = map.insert(key, num),
            None => _ = map.remove(&key),
        }
    }
    map
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Law: the state is a map; its root a function of the map alone, however it was reached.
    #[test]
    fn the_trie_is_a_map_and_its_root_depends_on_content_alone(
        history in vec(edits(80), 0..8),
        asked in vec(key(), 0..60),
        page in 1usize..200,
        from in key(),
    ) {
        let store = Store::default();
        let trie = store.trie();
        let (mut map, mut root) = (Map::new(), Root::EMPTY);
        for edits in &history {
            let after = edited(map.clone(), edits);
            let written = now(trie.apply(root, edits)).unwrap();
            prop_assert_eq!(written.root == root, after == map, "a root changes with its content only");
            prop_assert!(written.root != root || written.nodes.is_empty());
            store.put(written.nodes);
            (map, root) = (after, written.root);
        }
        prop_assert_eq!(root, store.build(&map));
        let one_by_one = map.iter().fold(Root::EMPTY, |root, (&key, &num)| store.apply(root, &[(key, Some(num))]));
        prop_assert_eq!(root, one_by_one);

        let expected: Vec<_> =
            asked.iter().map(|key| map.get(key).map_or(Lookup::Absent, |&num| Lookup::Present(num))).collect();
        prop_assert_eq!(now(trie.multi_get(root, &asked)).unwrap(), expected);

        for half in [None, Some(Half::Rest), Some(Half::Members)] {
            let mut entries = trie.entries(root, half, from);
            let mut listed = Vec::new();
            loop {
                let next = now(entries.next_page(page)).unwrap();
                if next.is_empty() {
                    break;
                }
                prop_assert!(next.len() <= page);
                listed.extend(next);
            }
            let wanted = map.range(from..).filter(|(key, _)| half.is_none_or(|half| Half::of(**key) == half));
            prop_assert_eq!(listed, wanted.map(|(&key, &num)| (key, num)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_difference_is_what_comparing_the_maps_says(
        common in edits(300), one in edits(40), two in edits(40), page in 1usize..100,
    ) {
        let store = Store::default();
        let common = edited(Map::new(), &common);
        let (a, b) = (edited(common.clone(), &one), edited(common, &two));
        let keys: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
        let look = |map: &Map, key| map.get(&key).map_or(Lookup::Absent, |&num| Lookup::Present(num));
        let naive: Vec<_> = keys
            .into_iter()
            .map(|key| Change { key, old: look(&a, key), new: look(&b, key) })
            .filter(|change| change.old != change.new)
            .collect();
        prop_assert_eq!(store.diff(store.build(&a), store.build(&b), page), naive);
    }

    /// A partial state never says Absent of a membership that may yet come.
    #[test]
    fn what_a_partial_state_lacks_is_unknown(known in edits(100), then in edits(30), asked in vec(key(), 1..60)) {
        let store = Store::default();
        let map = edited(Map::new(), &known);
        let partial = PartialRoot::without_all_members(store.build(&map));
        let after = store.apply(partial, &then);
        let map_after = edited(map.clone(), &then);
        for (root, map) in [(partial, &map), (after, &map_after)] {
            for (key, found) in asked.iter().zip(now(store.trie().multi_get(root, &asked)).unwrap()) {
                let lacking = if key.is_member() { Lookup::Unknown } else { Lookup::Absent };
                prop_assert_eq!(found, map.get(key).map_or(lacking, |&num| Lookup::Present(num)));
            }
        }
        for change in store.diff(partial, after, 50) {
            prop_assert!(!change.key.is_member() || change.old != Lookup::Absent && change.new != Lookup::Absent);
        }
    }

    /// What is marked is what the live roots need, no more and no less.
    #[test]
    fn the_collector_keeps_what_live_roots_reach(history in vec(edits(60), 1..10), live in vec(any::<bool>(), 10)) {
        let store = Store::default();
        let (mut root, mut map, mut marker, mut kept) = (Root::EMPTY, Map::new(), Marker::default(), Vec::new());
        for (edits, live) in history.iter().zip(live) {
            root = store.apply(root, edits);
            map = edited(map, edits);
            if live {
                marker.add(root);
                kept.push((root, map.clone()));
            }
            // Steps between commits, as the actor does it.
            now(marker.step(&store.trie(), 2)).unwrap();
        }
        while !now(marker.step(&store.trie(), 3)).unwrap() {}
        store.nodes.lock().retain(|hash, _| marker.is_live(*hash));
        let fresh = Store::default();
        for (root, map) in kept {
            let listed: Map = now(store.trie().entries(root, None, StateKeyNum(0)).next_page(usize::MAX)).unwrap().into_iter().collect();
            prop_assert_eq!(&listed, &map);
            fresh.build(&map);
        }
        prop_assert_eq!(store.nodes.lock().len(), fresh.nodes.lock().len());
    }

    /// Law 12: a node that is lost or damaged is an error that names it.
    #[test]
    fn a_lost_or_damaged_node_is_an_error(known in edits(300), which: prop::sample::Index, at: prop::sample::Index, to: Option<u8>) {
        let store = Store::default();
        let map = edited(Map::new(), &known);
        let root = store.build(&map);
        let mut names: Vec<_> = store.nodes.lock().keys().copied().collect();
        names.sort();
        prop_assume!(!names.is_empty());
        let name = names[which.index(names.len())];
        match to {
            None => _ = store.nodes.lock().remove(&name),
            Some(to) => {
                let mut nodes = store.nodes.lock();
                let mut bytes = nodes[&name].to_vec();
                let at = at.index(bytes.len());
                prop_assume!(bytes[at] != to);
                bytes[at] = to;
                nodes.insert(name, bytes.into());
            }
        }
        let keys: Vec<_> = map.keys().copied().collect();
        let trie = store.trie();
        let read = now(trie.multi_get(root, &keys)).map(drop);
        let listed = now(trie.entries(root, None, StateKeyNum(0)).next_page(usize::MAX)).map(drop);
        for result in [read, listed] {
            match result {
                Err(TrieError::Missing(hash)) => prop_assert!(to.is_none() && hash == name),
                Err(TrieError::Damaged { hash, source: NodeError::Hash }) => prop_assert!(to.is_some() && hash == name),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}

#[test]
fn a_key_twice_is_no_state() {
    let mut builder = StateBuilder::default();
    for num in [1, 2] {
        builder.push(StateKeyNum::member(7), EventNum(num));
    }
    assert_eq!(
        builder.finish().err(),
        Some(DuplicateKey(StateKeyNum::member(7)))
    );
}

/// A room of `members`, and thirty other entries.
fn room(members: u32) -> Map {
    let rest = (0..30).map(|index| (StateKeyNum::other(index), EventNum(index)));
    rest.chain((0..members).map(|index| (StateKeyNum::member(index), EventNum(30 + index))))
        .collect()
}

/// R: state event O(log M), state at an event O(log M) a key, message nothing (performance.md,
/// "How cost must grow"). At n, 4n, 16n, 64n the cost may grow by a node at a time.
#[test]
fn a_state_event_costs_the_depth_of_the_trie() {
    let mut costs = Vec::new();
    for members in [1_600, 6_400, 25_600, 102_400] {
        let store = Store::default();
        let root = store.build(&room(members));
        let (written, reads, trips) = store.count(store.trie().apply(
            root,
            &[(StateKeyNum::member(members / 2), Some(EventNum(1)))],
        ));
        let written = written.unwrap();
        let bytes: usize = written.nodes.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!((reads, trips), (written.nodes.len(), written.nodes.len()));
        let (_, reads, trips) =
            store.count(store.trie().get(root, StateKeyNum::member(members / 3)));
        assert_eq!((reads, trips), (written.nodes.len(), written.nodes.len()));
        let (_, reads, _) = store.count(store.trie().get(root, StateKeyNum::other(3)));
        assert_eq!(reads, 1, "the rest does not pay for the members");
        let same = store
            .count(
                store
                    .trie()
                    .apply(root, &[(StateKeyNum::other(3), Some(EventNum(3)))]),
            )
            .0
            .unwrap();
        assert_eq!((same.root, same.nodes.len()), (root, 0));
        costs.push((written.nodes.len(), bytes));
    }
    assert_eq!(
        costs.iter().map(|cost| cost.0).collect::<Vec<_>>(),
        [3, 3, 4, 4]
    );
    assert!(costs.iter().all(|cost| cost.1 <= 1_000), "{costs:?}");
}

/// State difference O(Δ log M): sixteen times the members cost a level more, sixteen times the
/// difference sixteen times as much.
#[test]
fn a_difference_costs_what_differs() {
    let cost = |members: u32, differing: u32| {
        let store = Store::default();
        let root = store.build(&room(members));
        let edits: Edits = (0..differing)
            .map(|n| {
                (
                    StateKeyNum::member(n * (members / differing)),
                    Some(EventNum(u32::MAX - n)),
                )
            })
            .collect();
        let other = store.apply(root, &edits);
        let trie = store.trie();
        let mut diff = trie.diff(root, other);
        let (page, reads, trips) = store.count(diff.next_page(1_000));
        assert_eq!(page.unwrap().len(), differing as usize);
        (reads, trips)
    };
    for (members, depth) in [(1_600, 3), (6_400, 3), (25_600, 4), (102_400, 4)] {
        let (reads, trips) = cost(members, 4);
        assert!(reads <= 2 * 4 * depth, "{reads} nodes for 4 of {members}");
        assert_eq!(trips, depth);
        let (reads, trips) = cost(members, 64);
        assert!(reads <= 2 * 64 * depth, "{reads} nodes for 64 of {members}");
        assert!(trips <= 2 * depth);
    }
}

/// Many keys at once cost the round trips of one.
#[test]
fn reads_are_batched_level_by_level() {
    let store = Store::default();
    let root = store.build(&room(100_000));
    let keys: Vec<_> = (0..1_000).map(|n| StateKeyNum::member(n * 97)).collect();
    let (found, reads, trips) = store.count(store.trie().multi_get(root, &keys));
    assert!(found.unwrap().iter().all(|found| found.present().is_some()));
    assert_eq!(trips, 4);
    assert!(
        reads <= 1_000 + 100 + 7 + 1,
        "a node is read once, not once a key: {reads}"
    );
    assert_eq!(store.count(store.trie().multi_get(root, &[])).2, 0);
}

/// Warm, neither reads nor chained writes touch the store.
#[test]
fn the_cache_knows_what_was_just_written() {
    let store = Store::default();
    let root = store.build(&room(1_000));
    let trie = StateTrie::new(&store, Arc::new(NodeCache::new(1 << 20)));
    let first = now(trie.apply(root, &[(StateKeyNum::member(5), None)])).unwrap();
    let (second, reads, _) =
        store.count(trie.apply(first.root, &[(StateKeyNum::member(5), Some(EventNum(35)))]));
    assert_eq!((second.unwrap().root, reads), (root, 0));
}
