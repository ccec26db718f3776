//! Which verdict may follow which.

use crate::tables::Verdict;

impl Verdict {
    /// Whether an event of this verdict may get that one.
    ///
    /// An outlier comes again with its place in the graph. A rejected event is judged again only
    /// when it was judged without one. All else is settled for good.
    pub(crate) const fn may_become(self, to: Self) -> bool {
        use Verdict::{Accepted, Named, OutOfBand, Outlier, Rejected, SoftFailed};
        match (self, to) {
            (_, Named) => false,
            (Named, _) | (Rejected, Rejected | SoftFailed | Accepted) => true,
            (Outlier | OutOfBand, Rejected | SoftFailed | Accepted) | (OutOfBand, Outlier) => true,
            (Outlier | OutOfBand | Rejected | SoftFailed | Accepted, _) => false,
        }
    }
}
