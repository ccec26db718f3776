//! Rooms that are being entered, and what comes of them meanwhile.
//!
//! Whoever lets us in counts us in at once, and so does everybody they tell; here the room is known when the answer to
//! the join has come and is stored. What is sent of it until then is answered, so nobody sends it again. So it is held,
//! and staged when the entry has ended, whichever server it went by. In memory, for a crash ends the entry as well; one
//! between the entry and the staging loses what was held, and what follows it later asks for it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use comity_protocol::id::{OwnedRoomId, RoomId, ServerName};
use comity_runtime::watch;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::{sync::Semaphore, time::sleep};

use crate::{Inner, TransactionError};

/// Bytes of events held, of all rooms; beyond it whoever sends more is to repeat it.
const HELD_BYTES: usize = 16 << 20;
/// What holding events costs beside their bytes.
const HELD_EACH: usize = 4 << 10;
/// Before events are staged again that couldn't be; doubled each time. After one longer than the second they are given up.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The rooms that are being entered. Cheap to clone.
#[derive(Clone, Default)]
pub struct Entering(Arc<Mutex<BTreeMap<OwnedRoomId, Weak<watch::Sender<()>>>>>);

/// An attempt to enter a room; it ends when this is dropped.
#[must_use]
pub struct Attempt {
    _told: Arc<watch::Sender<()>>,
}

impl Entering {
    /// A room is being entered from now on.
    pub fn begin(&self, room_id: &RoomId) -> Attempt {
        let mut rooms = self.0.lock();
        rooms.retain(|_, told| told.strong_count() > 0);
        let others = rooms.get(room_id).and_then(Weak::upgrade);
        let told = others.unwrap_or_default();
        rooms.insert(room_id.to_owned(), Arc::downgrade(&told));
        Attempt { _told: told }
    }

    /// What ends when nobody tries to enter a room any more; `None` where nobody does. To be asked before the room is looked at: an entry
    /// that ends in between has made it known.
    pub(crate) fn end_of(&self, room_id: &RoomId) -> Option<watch::Receiver<()>> {
        let told = self.0.lock().get(room_id)?.upgrade()?;
        Some(told.subscribe())
    }
}

/// Room for what is held.
pub(crate) fn held() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(HELD_BYTES))
}

impl Inner {
    /// Holds events of a room that is being entered until it is there; those of another are dropped.
    ///
    /// # Errors
    /// [`TransactionError::Busy`]: too much is held.
    pub(crate) fn stage_later(
        self: &Arc<Self>,
        origin: &ServerName,
        entering: Option<watch::Receiver<()>>,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<(), TransactionError> {
        let (Some(mut entering), false) = (entering, pdus.is_empty()) else {
            return Ok(());
        };
        let bytes: usize = pdus.iter().map(|pdu| pdu.get().len()).sum();
        let permits = u32::try_from(bytes.saturating_add(HELD_EACH)).unwrap_or(u32::MAX);
        let held = self.held.clone().try_acquire_many_owned(permits);
        let held = held.map_err(|_| TransactionError::Busy)?;
        let (inner, origin) = (Arc::downgrade(self), origin.to_owned());
        // Boxed, for what it calls has called this.
        let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            while entering.changed().await.is_ok() {}
            let mut wait = RETRY.0;
            while let (Some(inner), true) = (inner.upgrade(), wait <= RETRY.1) {
                let turn = inner.turns.turn(&origin).await;
                let Err(error) = inner.stage(&origin, pdus.clone()).await else {
                    break;
                };
                tracing::warn!(%origin, %error, "events of a room that was entered can't be kept yet");
                drop((turn, inner));
                sleep(wait).await;
                wait *= 2;
            }
            drop(held);
        });
        drop(self.runtime.spawn("federation early events", work));
        Ok(())
    }
}
