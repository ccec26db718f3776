//! What the collector must keep.
//!
//! Nodes carry no reference count. Now and then a room's actor marks all that its live roots reach
//! and removes the other nodes older than the longest read. The marking goes in steps between the
//! actor's other work; a root committed meanwhile is added with [`Marker::add`], so that after the
//! last step the mark covers every live root, and the removal follows in the same turn.
//!
//! It holds the name of every live node of the room, 16 bytes each, and never reads a leaf that
//! hangs under a node of the lowest level: those are most of the nodes.

use std::collections::HashSet;

use super::{NodeHash, NodeSource, Snapshot, StateTrie, TrieError, node::Node};

/// The set of nodes reachable from a room's live roots, under construction.
#[derive(Debug, Default)]
pub struct Marker {
    live: HashSet<NodeHash>,
    /// Live nodes whose children are not marked yet.
    pending: Vec<NodeHash>,
}

impl Marker {
    /// Adds a live root, at any time before the removal.
    pub fn add(&mut self, root: impl Snapshot) {
        let halves = root.halves();
        [halves.rest, halves.members]
            .into_iter()
            .flatten()
            .for_each(|top| self.visit(top));
    }

    /// Reads up to `count` nodes in one round trip, past the cache, and marks their children;
    /// whether everything reachable is marked now.
    ///
    /// # Errors
    /// [`TrieError`] when a node can't be read; the step can be repeated.
    pub async fn step<S: NodeSource>(
        &mut self,
        trie: &StateTrie<S>,
        count: usize,
    ) -> Result<bool, TrieError<S::Error>> {
        let first = self.pending.len().saturating_sub(count.max(1));
        let hashes = self.pending.get(first..).unwrap_or_default();
        if hashes.is_empty() {
            return Ok(true);
        }
        let nodes = trie.read(hashes).await?;
        self.pending.truncate(first);
        for node in nodes {
            let Node::Inner(inner) = node.as_ref() else {
                continue;
            };
            for (_, child) in inner.children() {
                if inner.level == 1 {
                    self.live.insert(child);
                } else {
                    self.visit(child);
                }
            }
        }
        Ok(self.pending.is_empty())
    }

    /// Whether a node must be kept. True of every live one once [`step`](Self::step) has said that
    /// all is marked.
    #[must_use]
    pub fn is_live(&self, hash: NodeHash) -> bool {
        self.live.contains(&hash)
    }

    fn visit(&mut self, hash: NodeHash) {
        if self.live.insert(hash) {
            self.pending.push(hash);
        }
    }
}
