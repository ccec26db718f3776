//! Rooms that are this server's alone, so that what is said in them costs the dispatcher no read.

use std::collections::BTreeSet;

/// Rooms remembered at most; beyond, all are forgotten and looked at again.
const ROOMS: usize = 16_384;

/// Rooms in which no other server is, as of the record of the log that is being dispatched. Only what comes from another
/// server, or changes a membership, can end that, and each says so in the log, behind what was read.
#[derive(Default)]
pub(crate) struct Alone(BTreeSet<String>);

impl Alone {
    pub fn holds(&self, room: &str) -> bool {
        self.0.contains(room)
    }

    pub fn add(&mut self, room: &str) {
        if self.0.len() == ROOMS {
            self.0.clear();
        }
        self.0.insert(room.to_owned());
    }

    pub fn forget(&mut self, room: &str) {
        self.0.remove(room);
    }
}
