//! Positions of a tenant's lanes, taken together: how far a reader, a token or a cursor has come.

use std::{cmp::Ordering, sync::Arc};

use crate::key::{Lane, Lanes};

/// A place in a lane's log. The first commit is 1; a new incarnation jumps by 2³².
pub type Pos = u64;

/// One position a lane. Absent lanes are at 0. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Heads(Arc<[Pos]>);

impl Heads {
    /// All lanes at 0.
    pub fn zero(lanes: Lanes) -> Self {
        Self(vec![0; usize::from(lanes.count())].into())
    }

    /// These positions, lane 0 first.
    pub fn new(positions: impl Into<Arc<[Pos]>>) -> Self {
        Self(positions.into())
    }

    /// The position of a lane, 0 where there is none.
    pub fn get(&self, lane: Lane) -> Pos {
        self.0.get(usize::from(lane.0)).copied().unwrap_or(0)
    }

    /// The same with one lane at another position.
    #[must_use]
    pub fn with(&self, lane: Lane, pos: Pos) -> Self {
        let mut positions = self.0.to_vec();
        let at = usize::from(lane.0);
        if positions.len() <= at {
            positions.resize(at + 1, 0);
        }
        if let Some(p) = positions.get_mut(at) {
            *p = pos;
        }
        Self(positions.into())
    }

    /// The positions, lane 0 first.
    pub fn positions(&self) -> &[Pos] {
        &self.0
    }

    /// Whether every lane has come at least as far as in `other`.
    pub fn reached(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .enumerate()
            .all(|(n, pos)| self.0.get(n).copied().unwrap_or(0) >= *pos)
    }

    /// Lane by lane the smaller position.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        let n = self.0.len().max(other.0.len());
        Self((0..n).map(|i| at(self, i).min(at(other, i))).collect())
    }
}

fn at(heads: &Heads, n: usize) -> Pos {
    heads.0.get(n).copied().unwrap_or(0)
}

/// Vectors are ordered only where one has come at least as far in every lane.
impl PartialOrd for Heads {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.reached(other), other.reached(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}
