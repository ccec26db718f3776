//! Walking two states side by side, to see where they differ, or one from end to end.
//!
//! Subtrees with the same name are the same and are passed over. What remains is a stack of pairs
//! of subtrees in the order of their keys; each step reads the nodes of the topmost pairs in one
//! round trip and puts their children in their place. So a small difference costs as many round
//! trips as the trie is deep, a large one a round trip per [`BATCH`] nodes, and what is held is
//! never more than the batch times the fan-out times the depth. Listing a state is its difference
//! from the empty one.

use std::{collections::VecDeque, sync::Arc};

use super::{
    EventNum, Half, Lookup, NodeHash, NodeSource, Snapshot, StateKeyNum, StateTrie, TrieError,
    node::{Node, position_of},
};

/// Pairs of nodes read in one round trip.
const BATCH: usize = 64;

/// A key at which two states differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: StateKeyNum,
    /// What the first state says of it.
    pub old: Lookup,
    /// What the second state says of it.
    pub new: Lookup,
}

/// The difference of two states, page by page.
///
/// Between partial states it lists the keys that at least one of them knows; what both don't know
/// is no difference.
#[derive(Debug)]
pub struct Diff<'a, S> {
    trie: &'a StateTrie<S>,
    /// What is still to come, the next on top.
    stack: Vec<Item>,
    from: StateKeyNum,
    /// By half: whether it is open in the old state, in the new one.
    open: [(bool, bool); 2],
}

/// The entries of a state, page by page.
#[derive(Debug)]
pub struct Entries<'a, S>(Diff<'a, S>);

#[derive(Debug)]
enum Item {
    /// Two subtrees over the same keys that differ.
    Pair(Half, Side, Side),
    Changes(VecDeque<Change>),
}

/// A subtree, if there is one, and its top node, if it has been read.
type Side = Option<(NodeHash, Option<Arc<Node>>)>;

impl<'a, S: NodeSource> Diff<'a, S> {
    pub(super) fn new(trie: &'a StateTrie<S>, old: &impl Snapshot, new: &impl Snapshot) -> Self {
        let open = [Half::Rest, Half::Members].map(|half| (old.is_open(half), new.is_open(half)));
        let mut diff = Self {
            trie,
            stack: Vec::new(),
            from: StateKeyNum::other(0),
            open,
        };
        for half in [Half::Members, Half::Rest] {
            diff.push(
                half,
                subtree(old.halves().get(half)),
                subtree(new.halves().get(half)),
            );
        }
        diff
    }

    /// The next differences in the order of their keys, at most `count`; empty at the end. After
    /// an error it can be called again.
    ///
    /// # Errors
    /// [`TrieError`] when a node can't be read.
    pub async fn next_page(&mut self, count: usize) -> Result<Vec<Change>, TrieError<S::Error>> {
        let mut page = Vec::new();
        while page.len() < count {
            match self.stack.last_mut() {
                None => break,
                Some(Item::Changes(changes)) => match changes.pop_front() {
                    Some(change) => page.push(change),
                    None => _ = self.stack.pop(),
                },
                Some(Item::Pair(..)) => self.descend(count.clamp(1, BATCH)).await?,
            }
        }
        Ok(page)
    }

    /// Reads the nodes of up to `batch` items from the top and puts what is below in their place.
    async fn descend(&mut self, batch: usize) -> Result<(), TrieError<S::Error>> {
        let first = self.stack.len().saturating_sub(batch);
        let unread: Vec<NodeHash> = self
            .stack
            .iter()
            .skip(first)
            .flat_map(Item::sides)
            .filter_map(unread)
            .collect();
        let mut read = self.trie.load(&unread).await?.into_iter();
        for mut item in self.stack.split_off(first) {
            // The same order as above: items upwards, old before new.
            item.sides_mut().for_each(|side| fill(side, &mut read));
            match item {
                Item::Pair(half, old, new) => self.split(half, old, new),
                changes @ Item::Changes(_) => self.stack.push(changes),
            }
        }
        Ok(())
    }

    /// Puts what lies below two subtrees onto the stack, the first keys on top.
    fn split(&mut self, half: Half, old: Side, new: Side) {
        let (a, b) = (top(&old), top(&new));
        if let (Some(a), Some(b)) = (a, b)
            && (a.span().1 < b.span().0 || b.span().1 < a.span().0)
        {
            let old_first = a.span().1 < b.span().0;
            let mut apart = [(old, None), (None, new)];
            if old_first {
                apart.reverse();
            }
            apart
                .into_iter()
                .for_each(|(old, new)| self.push(half, old, new));
            return;
        }
        let level = |node: Option<&Node>| match node {
            Some(Node::Inner(inner)) => inner.level,
            Some(Node::Leaf(_)) | None => 0,
        };
        let widest = if level(a) >= level(b) { a } else { b };
        let Some(Node::Inner(frame)) = widest else {
            let changes = self.changes(half, a, b);
            self.stack.push(Item::Changes(changes));
            return;
        };
        for slot in (0..16).rev() {
            // A subtree as wide as the frame has a child here; a narrower one lies in one slot whole.
            let under = |side: &Side| match top(side)? {
                Node::Inner(inner) if inner.level == frame.level => subtree(inner.child(slot)),
                narrow => side
                    .clone()
                    .filter(|_| frame.slot_of(narrow.span().0) == slot),
            };
            let last = frame.span_of(slot).1;
            if half == Half::of(self.from) && last < position_of(self.from.index()) {
                continue;
            }
            self.push(half, under(&old), under(&new));
        }
    }

    fn push(&mut self, half: Half, old: Side, new: Side) {
        let name = |side: &Side| side.as_ref().map(|(hash, _)| *hash);
        if name(&old) != name(&new) {
            self.stack.push(Item::Pair(half, old, new));
        }
    }

    /// Where two leaves over the same keys differ.
    fn changes(&self, half: Half, old: Option<&Node>, new: Option<&Node>) -> VecDeque<Change> {
        let [old, new] = [old, new].map(|node| match node {
            Some(Node::Leaf(leaf)) => Some(leaf),
            Some(Node::Inner(_)) | None => None,
        });
        let indices = [old, new]
            .into_iter()
            .flatten()
            .flat_map(|leaf| leaf.entries().map(|(index, _)| index));
        let mut indices: Vec<u32> = indices.collect();
        indices.sort_unstable();
        indices.dedup();
        let [rest, members] = self.open;
        let open = if half == Half::Rest { rest } else { members };
        let change = |index| Change {
            key: half.key(index),
            old: Lookup::new(old.and_then(|leaf| leaf.get(index)), open.0),
            new: Lookup::new(new.and_then(|leaf| leaf.get(index)), open.1),
        };
        let changes = indices.into_iter().map(change);
        changes
            .filter(|change| change.old != change.new && change.key >= self.from)
            .collect()
    }
}

impl<'a, S: NodeSource> Entries<'a, S> {
    pub(super) fn new(
        trie: &'a StateTrie<S>,
        root: &impl Snapshot,
        half: Option<Half>,
        from: StateKeyNum,
    ) -> Self {
        let mut diff = Diff {
            trie,
            stack: Vec::new(),
            from,
            open: Default::default(),
        };
        for each in [Half::Members, Half::Rest] {
            if half.is_none_or(|half| half == each) && each >= Half::of(from) {
                diff.push(each, None, subtree(root.halves().get(each)));
            }
        }
        Self(diff)
    }

    /// The next entries in the order of their keys, at most `count`; empty at the end. After an
    /// error it can be called again.
    ///
    /// # Errors
    /// [`TrieError`] when a node can't be read.
    pub async fn next_page(
        &mut self,
        count: usize,
    ) -> Result<Vec<(StateKeyNum, EventNum)>, TrieError<S::Error>> {
        let page = self.0.next_page(count).await?;
        Ok(page
            .into_iter()
            .filter_map(|change| Some((change.key, change.new.present()?)))
            .collect())
    }
}

impl Item {
    fn sides(&self) -> impl Iterator<Item = &Side> {
        match self {
            Self::Pair(_, old, new) => [Some(old), Some(new)],
            Self::Changes(_) => [None, None],
        }
        .into_iter()
        .flatten()
    }

    fn sides_mut(&mut self) -> impl Iterator<Item = &mut Side> {
        match self {
            Self::Pair(_, old, new) => [Some(old), Some(new)],
            Self::Changes(_) => [None, None],
        }
        .into_iter()
        .flatten()
    }
}

fn subtree(hash: Option<NodeHash>) -> Side {
    hash.map(|hash| (hash, None))
}

fn unread(side: &Side) -> Option<NodeHash> {
    side.as_ref()
        .filter(|(_, node)| node.is_none())
        .map(|(hash, _)| *hash)
}

fn fill(side: &mut Side, read: &mut impl Iterator<Item = Arc<Node>>) {
    if let Some((_, node @ None)) = side {
        *node = read.next();
    }
}

fn top(side: &Side) -> Option<&Node> {
    side.as_ref()?.1.as_deref()
}
