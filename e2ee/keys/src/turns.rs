//! One change of a user's keys at a time, first come, first served. Only saves deciding in vain: what holds is the batch's
//! conditions.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Users whose turns are kept though nobody has one.
const KEPT: usize = 1_000;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Turns by user.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Turn>>);

impl Turns {
    /// Waits for a turn of this user's; it is over when the answer is dropped.
    pub async fn of(&self, user: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            if turns.len() >= KEPT && !turns.contains_key(user) {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(user.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
