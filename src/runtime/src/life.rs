//! The end of a simulated process: what runs in it stops where it stands.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Life {
    over: AtomicBool,
    end: Notify,
}

impl Life {
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.end.notify_waiters();
    }

    /// The future's outcome, or `None` once the life is over. The end is looked at first each time, so nothing is done after it.
    pub async fn within<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut end = pin!(self.end.notified());
        end.as_mut().enable();
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        tokio::select! {
            biased;
            () = end => None,
            outcome = future => Some(outcome),
        }
    }
}
