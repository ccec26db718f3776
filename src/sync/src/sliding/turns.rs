//! Of a connection the request that began last goes on. A client that asks anew has given up what it asked before, though nothing may
//! have told us, and an answer to that would take the place of the one that it waits for.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md>

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::tables::OfDevice;

/// Of each connection the latest request under way.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<OfDevice, Arc<Notify>>>);

/// A request's, until it ends or another of its connection begins.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    of: OfDevice,
    over: Arc<Notify>,
}

impl Turns {
    /// From now on no request of the connection goes on that began before.
    pub(super) fn begin(&self, of: OfDevice) -> Turn<'_> {
        let over = Arc::new(Notify::new());
        let before = self.0.lock().insert(of.clone(), Arc::clone(&over));
        if let Some(before) = before {
            before.notify_one();
        }
        let turns = self;
        Turn { turns, of, over }
    }
}

impl Turn<'_> {
    pub(super) fn is_over(&self) -> bool {
        let turns = self.turns.0.lock();
        let latest = turns.get(&self.of);
        latest.is_none_or(|latest| !Arc::ptr_eq(latest, &self.over))
    }

    /// Waits until it is.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        if turns
            .get(&self.of)
            .is_some_and(|latest| Arc::ptr_eq(latest, &self.over))
        {
            turns.remove(&self.of);
        }
    }
}
