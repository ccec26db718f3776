//! Making nodes from entries that come in order.
//!
//! [`Spine`] holds the right edge of a trie under construction: the subtree added last, and above
//! it the inner nodes that may still get children. Adding the next subtree closes what ends before
//! it and opens the node under which the two meet. That is all there is to building: a change
//! replays the untouched subtrees and the new leaves of its path through the same spine, so a
//! trie built at once and one grown change by change can't differ.

use bytes::Bytes;

use super::{
    EventNum, Half, NodeHash, Root, StateKeyNum,
    node::{Inner, Leaf, Node, level_of_fork, position_of},
    root::Halves,
};

/// A node that was made: its name, its bytes, itself.
pub(super) struct NewNode {
    pub hash: NodeHash,
    pub bytes: Bytes,
    pub node: Node,
}

/// The right edge of a trie under construction.
#[derive(Default)]
pub(super) struct Spine {
    /// Inner nodes still open, from the top down; each waits for `last` or what will hold it.
    open: Vec<Inner>,
    /// The subtree added last: a leaf's position in it, and its name.
    last: Option<(u32, NodeHash)>,
    /// The nodes finished so far.
    pub made: Vec<NewNode>,
}

impl Spine {
    /// Adds a subtree that exists, all of whose leaves come after those added before. `position`
    /// is any leaf's place in the slot that is the subtree's own.
    pub fn add(&mut self, position: u32, hash: NodeHash) {
        if let Some((before, _)) = self.last {
            let level = level_of_fork(before, position);
            self.close_below(level);
            if let Some((before, child)) = self.last {
                if self.open.last().is_none_or(|top| top.level > level) {
                    self.open.push(Inner::new(level, before));
                }
                self.hang(before, child);
            }
        }
        self.last = Some((position, hash));
    }

    /// Makes a leaf and adds it, unless it is empty.
    pub fn add_leaf(&mut self, leaf: Leaf) {
        if !leaf.is_empty() {
            let position = leaf.position;
            let hash = self.make(Node::Leaf(leaf));
            self.add(position, hash);
        }
    }

    /// Closes everything; the top node's name, if there is any.
    pub fn finish(&mut self) -> Option<NodeHash> {
        self.close_below(u8::MAX);
        self.last.take().map(|(_, hash)| hash)
    }

    fn close_below(&mut self, level: u8) {
        while self.open.last().is_some_and(|top| top.level < level) {
            let Some((position, child)) = self.last else {
                return;
            };
            self.hang(position, child);
            if let Some(top) = self.open.pop() {
                self.last = Some((position, self.make(Node::Inner(top))));
            }
        }
    }

    fn hang(&mut self, position: u32, child: NodeHash) {
        if let Some(top) = self.open.last_mut() {
            top.push(top.slot_of(position), child);
        }
    }

    fn make(&mut self, node: Node) -> NodeHash {
        let bytes = node.encode();
        let hash = NodeHash::of(&bytes);
        self.made.push(NewNode { hash, bytes, node });
        hash
    }
}

/// Collects a state that arrives as a list in any order, as in the answer to a join. Holds eight
/// bytes an entry, no node.
#[derive(Debug, Default)]
pub struct StateBuilder {
    entries: Vec<(StateKeyNum, EventNum)>,
}

/// Two events for one key: the list was no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two events for one state key")]
pub struct DuplicateKey(pub StateKeyNum);

/// The nodes of a state, made as they are asked for.
pub struct StateNodes {
    entries: Vec<(StateKeyNum, EventNum)>,
    done: usize,
    spine: Spine,
    halves: Halves,
    finished: bool,
}

impl StateBuilder {
    /// Adds an entry.
    pub fn push(&mut self, key: StateKeyNum, num: EventNum) {
        self.entries.push((key, num));
    }

    /// The nodes of the state that the entries make up.
    ///
    /// # Errors
    /// [`DuplicateKey`] when a key came twice.
    pub fn finish(mut self) -> Result<StateNodes, DuplicateKey> {
        self.entries.sort_unstable();
        for pair in self.entries.windows(2) {
            if let [(a, _), (b, _)] = pair
                && a == b
            {
                return Err(DuplicateKey(*a));
            }
        }
        Ok(StateNodes {
            entries: self.entries,
            done: 0,
            spine: Spine::default(),
            halves: Halves::default(),
            finished: false,
        })
    }
}

impl StateNodes {
    /// The next nodes to store, at least `count` (and at most a path more) while there are so
    /// many; empty when all have been given.
    pub fn next_nodes(&mut self, count: usize) -> Vec<(NodeHash, Bytes)> {
        while self.spine.made.len() < count.max(1) && !self.finished {
            self.step();
        }
        self.spine
            .made
            .drain(..)
            .map(|new| (new.hash, new.bytes))
            .collect()
    }

    /// The state's root, once [`next_nodes`](Self::next_nodes) has given all of it.
    #[must_use]
    pub fn root(&self) -> Option<Root> {
        (self.finished && self.spine.made.is_empty()).then_some(Root(self.halves))
    }

    /// Makes the next leaf, and what is complete with it.
    fn step(&mut self) {
        let rest = self.entries.get(self.done..).unwrap_or_default();
        let Some(&(first, _)) = rest.first() else {
            self.finished = true;
            return;
        };
        let position = position_of(first.index());
        let mut leaf = Leaf::new(position);
        for &(key, num) in rest {
            if key.is_member() != first.is_member() || position_of(key.index()) != position {
                break;
            }
            leaf.set(key.index(), Some(num.0));
            self.done += 1;
        }
        self.spine.add_leaf(leaf);
        let next = self.entries.get(self.done);
        if next.is_none_or(|(next, _)| next.is_member() != first.is_member()) {
            self.halves.set(Half::of(first), self.spine.finish());
        }
    }
}
