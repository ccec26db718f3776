//! Which verdict may follow which.

use crate::tables::Verdict;

impl Verdict {
    /// Whether an event of this verdict may get that one.
    ///
    /// An outlier comes again with its place in the graph. A rejected event is judged again only
    /// when it was judged without one. All else is settled for good, but for what was judged by a partial
    /// state ([`super::complete`]).
    pub(crate) const fn may_become(self, to: Self) -> bool {
        use Verdict::{Accepted, Named, Outlier, Rejected, SoftFailed};
        match (self, to) {
            (_, Named) => false,
            (Named, _) | (Rejected, Rejected | SoftFailed | Accepted) => true,
            (Outlier, Rejected | SoftFailed | Accepted) => true,
            (Outlier | Rejected | SoftFailed | Accepted, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// data-model.md, Events: what is settled stays, and a name alone is never gone back to.
    #[test]
    fn only_these_verdicts_follow() {
        use Verdict::{Accepted, Named, Outlier, Rejected, SoftFailed};
        let all = [Named, Outlier, Rejected, SoftFailed, Accepted];
        let after = |from: Verdict| all.map(|to| from.may_become(to));
        let table = [
            (Named, [false, true, true, true, true]),
            (Outlier, [false, false, true, true, true]),
            (Rejected, [false, false, true, true, true]),
            (SoftFailed, [false; 5]),
            (Accepted, [false; 5]),
        ];
        for (from, expected) in table {
            assert_eq!(after(from), expected, "{from:?}");
        }
    }
}
