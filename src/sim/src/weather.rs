//! What the disk does in a life: mostly nothing, now and then what real ones do.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use comity_storage::engine::{Memory, memory::Fault};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use crate::world::World;

/// Longer than any life: the disk hangs while the power goes.
const FOR_GOOD: u64 = 3_600_000;

/// How a life of the server ends, and who waits for what.
pub(crate) struct Weather {
    /// The power goes now.
    pub end: Arc<Notify>,
    cut: Arc<Notify>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Weather {
    /// Lets the disk fail from now on, as this generator says.
    pub fn begin(disk: &Memory, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (end, cut) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let told = Arc::new(Mutex::new(Vec::new()));
        // In some lives the power goes with a certain write or sync, between two moments that a timer could tell.
        let mut left: Option<u32> = (rng.random_range(0..2) == 0).then(|| rng.random_range(1..400));
        let rough = rng.random_range(0..3_u32);
        let (ends, cuts, tells) = (end.clone(), cut.clone(), told.clone());
        disk.set_faults(Some(Box::new(move |apply| {
            if let Some(count) = &mut left {
                *count -= 1;
                if *count == 0 {
                    left = None;
                    ends.notify_one();
                    return Fault::Stall(FOR_GOOD);
                }
            }
            let dice = rng.random_range(0..1_000_u32);
            let fault = match (dice, apply) {
                (0..60, _) => Fault::Stall(rng.random_range(1..400)),
                (60..80, true) if rough > 0 => Fault::NotApplied,
                (80..95, true) if rough > 0 => Fault::UnknownApplied,
                (95..110, true) if rough > 0 => Fault::UnknownLost,
                (110..113, true) if rough > 1 => {
                    cuts.notify_one();
                    Fault::CutOff(rng.random_range(0..2) == 0)
                }
                // A sync that fails ends the process: rarely, or lives would be short.
                (113, false) if rough > 1 => Fault::UnknownLost,
                _ => Fault::None,
            };
            if fault != Fault::None {
                tells.lock().push(format!("disk: {fault:?}"));
            }
            fault
        })));
        Self { end, cut, told }
    }

    /// What the disk did since this was asked last.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock())
    }

    /// Brings the store back some time after it was cut off.
    pub async fn mend(&self, disk: &Memory, world: &Rc<RefCell<&mut World>>) {
        loop {
            self.cut.notified().await;
            let wait = world.borrow_mut().rng.random_range(1..3_000);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            disk.reconnect();
        }
    }
}
