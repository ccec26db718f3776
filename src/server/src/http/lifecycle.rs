//! Where the process is between start and stop, for all who act on it: readiness, accept loops, connections.

use std::sync::Arc;

use comity_runtime::watch;

/// The phases, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not ready for requests.
    Starting,
    /// Serving.
    Ready,
    /// Asked to stop: no new connections, answers under way are finished.
    Draining,
    /// What is still open is cut.
    Closed,
}

/// A shared view of the phase. It only moves forward.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<watch::Sender<Phase>>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Starting)))
    }
}

impl Lifecycle {
    /// Where the process is.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves to `phase`, unless it is there or past it.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
    }

    /// Waits until `phase` is reached or past.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives in `self`: it cannot be gone.
        let _ = self
            .0
            .subscribe()
            .wait_for(|current| *current >= phase)
            .await;
    }
}
