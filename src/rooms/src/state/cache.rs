//! Decoded nodes that were read or written lately, shared by all rooms, bounded in bytes.
//!
//! A node's name is the hash of its content, so an entry can't go stale and the cache needs no
//! invalidation. It answers reads alone: a writer puts every node of its path into its batch
//! whether or not the cache knows it, because the collector may have removed the row since.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{NodeHash, node::Node};

/// What an entry costs beside its node: hash, stamps, the maps' slots.
const OVERHEAD: usize = 120;

/// A cache of state nodes: the least recently used go first when it is over its bytes.
#[derive(Debug)]
pub struct NodeCache {
    capacity: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    nodes: HashMap<NodeHash, (u64, Arc<Node>)>,
    by_use: BTreeMap<u64, NodeHash>,
    uses: u64,
    bytes: usize,
}

impl NodeCache {
    /// A cache of at most `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inside: Mutex::default(),
        }
    }

    /// The bytes it holds now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inside.lock().bytes
    }

    pub(super) fn get(&self, hashes: &[NodeHash]) -> Vec<Option<Arc<Node>>> {
        let mut inside = self.inside.lock();
        hashes.iter().map(|hash| inside.touch(*hash)).collect()
    }

    pub(super) fn put(&self, nodes: impl IntoIterator<Item = (NodeHash, Arc<Node>)>) {
        let mut inside = self.inside.lock();
        for (hash, node) in nodes {
            if inside.touch(hash).is_some() {
                continue;
            }
            inside.bytes += node.weight() + OVERHEAD;
            let used = inside.uses;
            inside.nodes.insert(hash, (used, node));
            inside.by_use.insert(used, hash);
        }
        while inside.bytes > self.capacity {
            let Some((_, oldest)) = inside.by_use.pop_first() else {
                break;
            };
            if let Some((_, node)) = inside.nodes.remove(&oldest) {
                inside.bytes -= node.weight() + OVERHEAD;
            }
        }
    }
}

impl Inside {
    fn touch(&mut self, hash: NodeHash) -> Option<Arc<Node>> {
        self.uses += 1;
        let (used, node) = self.nodes.get_mut(&hash)?;
        self.by_use.remove(used);
        *used = self.uses;
        self.by_use.insert(self.uses, hash);
        Some(node.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::node::Leaf, *};

    fn node(position: u32) -> (NodeHash, Arc<Node>) {
        let mut leaf = Leaf::new(position);
        leaf.set(position << 6, Some(1));
        let node = Node::Leaf(leaf);
        (NodeHash::of(&node.encode()), Arc::new(node))
    }

    #[test]
    fn it_keeps_what_was_used_last_and_stays_within_its_bytes() {
        let one = node(0).1.weight() + OVERHEAD;
        let cache = NodeCache::new(one * 10);
        let first = node(0);
        for position in 0..100 {
            cache.put([node(position)]);
            assert!(
                cache.get(&[first.0])[0].is_some(),
                "used every time, so never evicted"
            );
            assert!(cache.bytes() <= one * 10);
        }
        let kept = (0..100)
            .filter(|&position| cache.get(&[node(position).0])[0].is_some())
            .count();
        assert_eq!(kept, 10);
    }
}
