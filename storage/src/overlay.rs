//! Rows that a lane has appended and the engine may not have yet, as they lie over the stored ones.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{engine::Op, heads::Pos, table::Family};

type At = (Family, Bytes);

/// Appended changes, each with the position that made it. A row leaves it only once the engine has
/// it: whoever looks here first and there second misses nothing.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// `None` is a deletion.
    rows: BTreeMap<At, (Pos, Option<Bytes>)>,
    /// Ranges removed, oldest first. What was put later stands in `rows`.
    removed: Vec<(Pos, Removed)>,
}

/// A removed range of a family: `from <= key < to`.
#[derive(Debug, Clone)]
struct Removed {
    family: Family,
    from: Bytes,
    to: Bytes,
}

/// What an overlay says of a range of keys.
#[derive(Debug, Default)]
pub(crate) struct Laid {
    rows: BTreeMap<Bytes, Option<Bytes>>,
    removed: Vec<Removed>,
}

impl Overlay {
    /// Lays a commit's changes over what is there.
    pub fn lay(&mut self, pos: Pos, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put(row, value) => {
                    let at = (row.family, row.key.clone());
                    self.rows.insert(at, (pos, Some(value.clone())));
                }
                Op::Delete(row) => {
                    self.rows.insert((row.family, row.key.clone()), (pos, None));
                }
                Op::DeleteRange(row, to) => {
                    let removed = Removed {
                        family: row.family,
                        from: row.key.clone(),
                        to: to.clone(),
                    };
                    if removed.from < removed.to {
                        self.rows
                            .range_mut(bounds(removed.family, &removed.from, &removed.to))
                            .for_each(|(_, entry)| *entry = (pos, None));
                        self.removed.push((pos, removed));
                    }
                }
            }
        }
    }

    /// The appended value of a row, if there is one: `Some(None)` is a deletion.
    pub fn value(&self, family: Family, key: &Bytes) -> Option<Option<Bytes>> {
        match self.rows.get(&(family, key.clone())) {
            Some((_, value)) => Some(value.clone()),
            None => self
                .removed
                .iter()
                .any(|(_, removed)| removed.holds(family, key))
                .then_some(None),
        }
    }

    /// What it says of the keys `from..to`.
    pub fn range(&self, family: Family, from: &Bytes, to: &Bytes) -> Laid {
        if from >= to {
            return Laid::default();
        }
        let rows = self.rows.range(bounds(family, from, to));
        Laid {
            rows: rows
                .map(|((_, key), (_, value))| (key.clone(), value.clone()))
                .collect(),
            removed: self
                .removed
                .iter()
                .filter(|(_, r)| r.family == family && r.from < *to && *from < r.to)
                .map(|(_, r)| r.clone())
                .collect(),
        }
    }

    /// The engine has everything up to here.
    pub fn forget_up_to(&mut self, pos: Pos) {
        self.rows.retain(|_, (at, _)| *at > pos);
        self.removed.retain(|(at, _)| *at > pos);
    }

    /// What is here will never be written.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.removed.clear();
    }
}

impl Laid {
    /// Whether nothing was appended in the range.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.removed.is_empty()
    }

    /// The stored rows as they are once the appended changes are made, in the order of keys.
    pub fn over(&self, family: Family, stored: Vec<(Bytes, Bytes)>) -> BTreeMap<Bytes, Bytes> {
        let mut rows: BTreeMap<Bytes, Bytes> = stored
            .into_iter()
            .filter(|(key, _)| !self.removed.iter().any(|r| r.holds(family, key)))
            .collect();
        for (key, value) in &self.rows {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        rows
    }
}

impl Removed {
    fn holds(&self, family: Family, key: &Bytes) -> bool {
        self.family == family && self.from <= *key && *key < self.to
    }
}

fn bounds(family: Family, from: &Bytes, to: &Bytes) -> (Bound<At>, Bound<At>) {
    (
        Bound::Included((family, from.clone())),
        Bound::Excluded((family, to.clone())),
    )
}
