//! Which members a device has been told of, so that lazy loading doesn't repeat itself.
//!
//! Only in memory: forgetting means telling again, which does no harm.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>

use std::collections::{BTreeMap, HashMap};

use comity_rooms::num::EventNum;
use comity_storage::{Pos, RoomKey};
use parking_lot::Mutex;

/// Devices remembered.
const DEVICES: usize = 20_000;
/// Members remembered of one device.
const MEMBERS: usize = 5_000;

/// By member event, the head of the room's lane in the answer that told it: an answer may get lost, so
/// it counts once the client has come back from there.
type Device = BTreeMap<(RoomKey, EventNum), Pos>;

/// See the module.
#[derive(Default)]
pub(crate) struct SentMembers(Mutex<HashMap<(String, String), Device>>);

impl SentMembers {
    /// Forgets what a device was told of a room: it starts from nothing there.
    pub fn forget(&self, user: &str, device: &str, room: RoomKey) {
        if let Some(sent) = self.0.lock().get_mut(&(user.to_owned(), device.to_owned())) {
            sent.retain(|(of, _), _| *of != room);
        }
    }

    /// Forgets what answers after `since` told a device: it has come back from there, so it had none of them.
    pub fn back_at(&self, user: &str, device: &str, since: Pos) {
        if let Some(sent) = self.0.lock().get_mut(&(user.to_owned(), device.to_owned())) {
            sent.retain(|_, told| *told <= since);
        }
    }

    /// Those of the member events that the device has not been told of up to `since`; the answer up to
    /// `bound` tells it.
    pub fn unsent(
        &self,
        user: &str,
        device: &str,
        room: RoomKey,
        members: Vec<EventNum>,
        (since, bound): (Option<Pos>, Pos),
    ) -> Vec<EventNum> {
        let mut devices = self.0.lock();
        if devices.len() >= DEVICES {
            devices.clear();
        }
        let sent = devices
            .entry((user.to_owned(), device.to_owned()))
            .or_default();
        if sent.len() >= MEMBERS {
            sent.clear();
        }
        let mut tell = |num: &EventNum| {
            let told = sent.get(&(room, *num)).copied();
            let known = told.is_some_and(|told| since.is_some_and(|since| told <= since));
            if !known {
                sent.insert((room, *num), bound);
            }
            !known
        };
        members.into_iter().filter(|num| tell(num)).collect()
    }
}
