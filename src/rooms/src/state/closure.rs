//! Whether states are closed: all nodes that roots lead to are there, and are what their names say.
//!
//! Each node is read once, past every cache, however many roots share it. What whole states reach comes first, then
//! what only partial ones do, so that whoever looks at the entries can tell them apart.

use std::collections::{BTreeSet, HashSet};

use super::{AnyRoot, EventNum, Half, NodeHash, NodeSource, StateKeyNum, node::Node, root::Inside};

/// A walk over all that some roots reach.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    seen: HashSet<NodeHash>,
    ahead: Vec<(Half, NodeHash)>,
    /// Tops of partial states, for when nothing else is left.
    partial: BTreeSet<(Half, NodeHash)>,
    is_partial: bool,
}

/// What a step met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Entries of the states.
    pub entries: Vec<(StateKeyNum, EventNum)>,
    /// Whether these are of partial states alone.
    pub is_partial: bool,
    /// Nodes that aren't there.
    pub missing: Vec<NodeHash>,
    /// Nodes that are no nodes, or others.
    pub damaged: Vec<NodeHash>,
}

impl Closure {
    /// Adds a root, before the first step.
    pub fn add(&mut self, root: AnyRoot) {
        let halves = root.halves();
        for half in [Half::Rest, Half::Members] {
            let Some(top) = halves.get(half) else {
                continue;
            };
            if root.is_partial() {
                self.partial.insert((half, top));
            } else if self.seen.insert(top) {
                self.ahead.push((half, top));
            }
        }
    }

    /// Reads up to `count` nodes in one round trip; `None` once all has been read.
    pub async fn step<S: NodeSource>(
        &mut self,
        source: &S,
        count: usize,
    ) -> Result<Option<Met>, S::Error> {
        if self.ahead.is_empty() {
            self.is_partial = true;
            let seen = &mut self.seen;
            let partial = std::mem::take(&mut self.partial).into_iter();
            self.ahead = partial.filter(|(_, top)| seen.insert(*top)).collect();
        }
        let nodes = self.ahead.split_off(self.ahead.len().saturating_sub(count));
        if nodes.is_empty() {
            return Ok(None);
        }
        let names: Vec<NodeHash> = nodes.iter().map(|(_, name)| *name).collect();
        let mut met = Met {
            is_partial: self.is_partial,
            ..Met::default()
        };
        for ((half, name), bytes) in nodes.into_iter().zip(source.nodes(&names).await?) {
            let Some(bytes) = bytes else {
                met.missing.push(name);
                continue;
            };
            match Node::load(name, &bytes) {
                Err(_) => met.damaged.push(name),
                Ok(Node::Leaf(leaf)) => {
                    let entries = leaf.entries();
                    met.entries
                        .extend(entries.map(|(index, num)| (half.key(index), EventNum(num))));
                }
                Ok(Node::Inner(inner)) => {
                    for (_, child) in inner.children() {
                        if self.seen.insert(child) {
                            self.ahead.push((half, child));
                        }
                    }
                }
            }
        }
        Ok(Some(met))
    }
}
