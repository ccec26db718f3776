//! Reading and writing keys.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    EventNum, Half, Lookup, NodeCache, NodeHash, NodeSource, Snapshot, StateKeyNum, TrieError,
    build::Spine,
    node::{Leaf, Node, position_of},
    walk::{Diff, Entries},
};

/// The states of one room.
#[derive(Debug, Clone)]
pub struct StateTrie<S> {
    source: S,
    cache: Arc<NodeCache>,
}

/// What a change of state came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<R> {
    /// The state after it.
    pub root: R,
    /// The nodes that belong into the batch of the event that made the change.
    pub nodes: Vec<(NodeHash, Bytes)>,
}

/// An entry to put (or, with `None`, to take out), by its index within its half.
type Edit = (u32, Option<u32>);

impl<S: NodeSource> StateTrie<S> {
    /// The states whose nodes `source` holds, read through `cache`.
    pub fn new(source: S, cache: Arc<NodeCache>) -> Self {
        Self { source, cache }
    }

    /// What the state says of `key`.
    ///
    /// # Errors
    /// [`TrieError`], as everything here, when a node can't be read.
    pub async fn get(
        &self,
        root: impl Snapshot,
        key: StateKeyNum,
    ) -> Result<Lookup, TrieError<S::Error>> {
        let found = self.multi_get(root, &[key]).await?;
        Ok(found.first().copied().unwrap_or(Lookup::Unknown))
    }

    /// What the state says of each of `keys`, in their order. One round trip a level, however
    /// many keys.
    pub async fn multi_get(
        &self,
        root: impl Snapshot,
        keys: &[StateKeyNum],
    ) -> Result<Vec<Lookup>, TrieError<S::Error>> {
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let (rest, members) = sorted.split_at(sorted.partition_point(|key| !key.is_member()));
        let indices = |keys: &[StateKeyNum]| keys.iter().map(|key| key.index()).collect::<Vec<_>>();
        let tops = root.halves();
        let (rest, members) = futures_util::try_join!(
            self.paths(tops.rest, indices(rest)),
            self.paths(tops.members, indices(members)),
        )?;
        let look = |&key: &StateKeyNum| {
            let paths = if key.is_member() { &members } else { &rest };
            Lookup::new(paths.get(key.index()), root.is_open(Half::of(key)))
        };
        Ok(keys.iter().map(look).collect())
    }

    /// The state with some entries put, replaced or (`None`) taken out; of two edits of a key the
    /// later one counts. Edits that change nothing write nothing. In an open half an entry taken
    /// out becomes unknown.
    pub async fn apply<R: Snapshot>(
        &self,
        root: R,
        edits: &[(StateKeyNum, Option<EventNum>)],
    ) -> Result<Written<R>, TrieError<S::Error>> {
        let edits: BTreeMap<_, _> = edits.iter().copied().collect();
        let mut halves = root.halves();
        let mut nodes = Vec::new();
        for half in [Half::Rest, Half::Members] {
            let mine = edits.iter().filter(|(key, _)| Half::of(**key) == half);
            let mut mine: Vec<Edit> = mine
                .map(|(key, num)| (key.index(), num.map(|num| num.0)))
                .collect();
            let paths = self
                .paths(halves.get(half), mine.iter().map(|edit| edit.0).collect())
                .await?;
            mine.retain(|&(index, num)| paths.get(index) != num);
            if mine.is_empty() {
                continue;
            }
            let mut spine = Spine::default();
            paths.rebuild(paths.top, &mine, &mut spine);
            halves.set(half, spine.finish());
            for new in spine.made {
                self.cache.put([(new.hash, Arc::new(new.node))]);
                nodes.push((new.hash, new.bytes));
            }
        }
        Ok(Written {
            root: root.with(halves),
            nodes,
        })
    }

    /// The keys at which two states differ, in order. Only what differs is read.
    pub fn diff<A: Snapshot, B: Snapshot>(&self, old: A, new: B) -> Diff<'_, S> {
        Diff::new(self, &old, &new)
    }

    /// The known entries of a state, or of one half of it, in order of their keys and from `from`
    /// on.
    pub fn entries(
        &self,
        root: impl Snapshot,
        half: Option<Half>,
        from: StateKeyNum,
    ) -> Entries<'_, S> {
        Entries::new(self, &root, half, from)
    }

    /// The nodes with these names, from the cache or else in one round trip.
    pub(super) async fn load(
        &self,
        hashes: &[NodeHash],
    ) -> Result<Vec<Arc<Node>>, TrieError<S::Error>> {
        let mut found = self.cache.get(hashes);
        let mut missing: Vec<NodeHash> = hashes
            .iter()
            .zip(&found)
            .filter(|(_, node)| node.is_none())
            .map(|(hash, _)| *hash)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let read: HashMap<_, _> = missing
                .iter()
                .copied()
                .zip(self.read(&missing).await?)
                .collect();
            self.cache
                .put(read.iter().map(|(hash, node)| (*hash, node.clone())));
            for (hash, node) in hashes.iter().zip(&mut found) {
                if node.is_none() {
                    *node = read.get(hash).cloned();
                }
            }
        }
        let whole = hashes
            .iter()
            .zip(found)
            .map(|(hash, node)| node.ok_or(TrieError::Missing(*hash)));
        whole.collect()
    }

    /// The nodes with these names, past the cache.
    pub(super) async fn read(
        &self,
        hashes: &[NodeHash],
    ) -> Result<Vec<Arc<Node>>, TrieError<S::Error>> {
        let read = self.source.nodes(hashes).await.map_err(TrieError::Source)?;
        let mut read = read.into_iter();
        let decode = |&hash: &NodeHash| {
            let bytes = read.next().flatten().ok_or(TrieError::Missing(hash))?;
            let node =
                Node::load(hash, &bytes).map_err(|source| TrieError::Damaged { hash, source })?;
            Ok(Arc::new(node))
        };
        hashes.iter().map(decode).collect()
    }

    /// Every node on the way to the keys with these indices, which are in order.
    async fn paths(
        &self,
        top: Option<NodeHash>,
        indices: Vec<u32>,
    ) -> Result<Paths, TrieError<S::Error>> {
        let mut nodes = HashMap::new();
        let mut level: Vec<(NodeHash, &[u32])> = top
            .filter(|_| !indices.is_empty())
            .map(|top| (top, indices.as_slice()))
            .into_iter()
            .collect();
        while !level.is_empty() {
            let hashes: Vec<_> = level.iter().map(|(hash, _)| *hash).collect();
            let mut below = Vec::new();
            for ((hash, indices), node) in level.into_iter().zip(self.load(&hashes).await?) {
                if let Node::Inner(inner) = node.as_ref() {
                    for (slot, child) in inner.children() {
                        let (_, indices, _) = cut(indices, inner.span_of(slot), |index| *index);
                        if !indices.is_empty() {
                            below.push((child, indices));
                        }
                    }
                }
                nodes.insert(hash, node);
            }
            level = below;
        }
        Ok(Paths { top, nodes })
    }
}

/// The nodes on the way to some keys.
struct Paths {
    top: Option<NodeHash>,
    nodes: HashMap<NodeHash, Arc<Node>>,
}

impl Paths {
    fn get(&self, index: u32) -> Option<u32> {
        let mut at = self.top;
        loop {
            match self.nodes.get(&at?)?.as_ref() {
                Node::Leaf(leaf) => return leaf.get(index),
                Node::Inner(inner) => {
                    let position = position_of(index);
                    let slot = inner.slot_of(position);
                    let (first, last) = inner.span_of(slot);
                    at = inner
                        .child(slot)
                        .filter(|_| (first..=last).contains(&position));
                }
            }
        }
    }

    /// Replays a subtree with edits (in order) into the spine: what no edit is under goes in as it
    /// is. The depth of the recursion is the trie's.
    fn rebuild(&self, subtree: Option<NodeHash>, edits: &[Edit], spine: &mut Spine) {
        let Some((hash, node)) = subtree.and_then(|hash| Some((hash, self.nodes.get(&hash)?)))
        else {
            for edits in edits.chunk_by(|a, b| position_of(a.0) == position_of(b.0)) {
                let position = edits.first().map_or(0, |edit| position_of(edit.0));
                add_edited(Leaf::new(position), edits, spine);
            }
            return;
        };
        let (before, within, after) = cut(edits, node.span(), |edit| edit.0);
        self.rebuild(None, before, spine);
        match node.as_ref() {
            _ if within.is_empty() => spine.add(node.span().0, hash),
            Node::Leaf(leaf) => add_edited(leaf.clone(), within, spine),
            Node::Inner(inner) => {
                for slot in 0..16 {
                    let span = inner.span_of(slot);
                    match (inner.child(slot), cut(within, span, |edit| edit.0).1) {
                        (Some(child), []) => spine.add(span.0, child),
                        (child, edits) => self.rebuild(child, edits, spine),
                    }
                }
            }
        }
        self.rebuild(None, after, spine);
    }
}

fn add_edited(mut leaf: Leaf, edits: &[Edit], spine: &mut Spine) {
    edits.iter().for_each(|&(index, num)| leaf.set(index, num));
    spine.add_leaf(leaf);
}

/// Cuts a sorted list in three: what lies before, under and after a span of leaves.
fn cut<T>(
    sorted: &[T],
    (first, last): (u32, u32),
    index: impl Fn(&T) -> u32,
) -> (&[T], &[T], &[T]) {
    let (before, rest) =
        sorted.split_at(sorted.partition_point(|item| position_of(index(item)) < first));
    let (within, after) =
        rest.split_at(rest.partition_point(|item| position_of(index(item)) <= last));
    (before, within, after)
}
