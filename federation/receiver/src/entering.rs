//! Rooms that are being entered, and what comes of them meanwhile.
//!
//! Whoever lets us in counts us in at once, and so does everybody they tell; here the room is known when the answer to
//! the join has come and is stored. What is sent of it until then is answered, so nobody sends it again. So it is held,
//! and staged when the entry has ended, whichever server it went by. In memory, for a crash ends the entry as well; one
//! between the entry and the staging loses what was held, as does a store that keeps nothing for a minute, and as is lost what doesn't
//! fit; what follows it later asks for it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use comity_protocol::id::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use comity_runtime::watch;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::{Inner, transaction::Results};

/// Bytes of events held; what doesn't fit is a missing parent of what follows it once the room is there.
const HELD_BYTES: usize = 16 << 20;
/// Of these what one server sent: any may write events of a room whose entry it draws out, and the others are to find a place.
const OF_SERVER: usize = 4 << 20;
/// And of one room.
const OF_ROOM: usize = 8 << 20;
/// What holding events costs beside their bytes.
const HELD_EACH: usize = 4 << 10;
/// Before events are staged again that couldn't be; doubled each time. When it is longer than the second they are given up.
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

/// What is held. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    all: usize,
    of_server: BTreeMap<OwnedServerName, usize>,
    of_room: BTreeMap<OwnedRoomId, usize>,
}

/// A place for events of a server and room, until it is dropped.
pub(crate) struct Place {
    held: Held,
    server: OwnedServerName,
    room_id: OwnedRoomId,
    bytes: usize,
}

impl Held {
    fn place(&self, server: &ServerName, room_id: &RoomId, bytes: usize) -> Option<Place> {
        let mut held = self.0.lock();
        let of_server = held.of_server.get(server).copied().unwrap_or_default();
        let of_room = held.of_room.get(room_id).copied().unwrap_or_default();
        let taken = [
            (held.all, HELD_BYTES),
            (of_server, OF_SERVER),
            (of_room, OF_ROOM),
        ];
        let fits = |(taken, most): (usize, usize)| taken.saturating_add(bytes) <= most;
        if !taken.into_iter().all(fits) {
            return None;
        }
        held.all += bytes;
        held.of_server.insert(server.to_owned(), of_server + bytes);
        held.of_room.insert(room_id.to_owned(), of_room + bytes);
        Some(Place {
            held: self.clone(),
            server: server.to_owned(),
            room_id: room_id.to_owned(),
            bytes,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.0.lock();
        held.all = held.all.saturating_sub(self.bytes);
        give_back(&mut held.of_server, &self.server, self.bytes);
        give_back(&mut held.of_room, &self.room_id, self.bytes);
    }
}

fn give_back<K: Ord>(taken: &mut BTreeMap<K, usize>, of: &K, bytes: usize) {
    let left = taken.get(of).map_or(0, |taken| taken.saturating_sub(bytes));
    match taken.get_mut(of) {
        Some(taken) if left > 0 => *taken = left,
        _ => drop(taken.remove(of)),
    }
}

impl Inner {
    /// Holds events of a room that is being entered until it is there; those of another are dropped, and so is what doesn't fit: were it
    /// refused, all that its sender has for us would wait behind it.
    pub(crate) fn stage_later(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        entering: Option<watch::Receiver<()>>,
        pdus: Vec<Box<RawValue>>,
        place: &mut Option<Place>,
    ) {
        let (Some(mut entering), false) = (entering, pdus.is_empty()) else {
            return;
        };
        let bytes: usize = pdus.iter().map(|pdu| pdu.get().len()).sum();
        let bytes = bytes.saturating_add(HELD_EACH);
        let place = place.take();
        let place = place.or_else(|| self.held.place(origin, room_id, bytes));
        let Some(place) = place else {
            tracing::debug!(%origin, %room_id, "too much waits for a room that is being entered");
            return;
        };
        let (inner, origin, room_id) =
            (Arc::downgrade(self), origin.to_owned(), room_id.to_owned());
        // Boxed, for what it calls has called this.
        let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            while entering.changed().await.is_ok() {}
            let (mut wait, mut place) = (RETRY.0, Some(place));
            while let Some(inner) = inner.upgrade() {
                let turn = inner.turns.turn(&origin).await;
                let mut results = Results::new();
                let staged =
                    inner.stage_in(&origin, &room_id, pdus.clone(), &mut results, &mut place);
                let Err(error) = staged.await else {
                    break;
                };
                tracing::warn!(%origin, %error, "events of a room that was entered can't be kept yet");
                if wait > RETRY.1 {
                    break;
                }
                drop((turn, inner));
                sleep(wait).await;
                wait *= 2;
            }
            drop(place);
        });
        drop(self.runtime.spawn("federation early events", work));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::World;

    /// Law 11: what would be staged while its room is entered anew is held on, and counts once.
    #[tokio::test(start_paused = true)]
    async fn what_is_held_on_counts_once() {
        let world = World::new().await;
        let inner = &world.receiver.0;
        let room = <&RoomId>::try_from("!entered:evil.test").unwrap();
        let all = || inner.held.0.lock().all;
        let attempt = inner.fetcher.entering.begin(room);
        let event = json!({ "room_id": room, "content": { "x": "x".repeat(OF_SERVER / 2) } });
        world.send_json(&event).await.unwrap();
        let held = all();
        assert!(held > OF_SERVER / 2);
        // Nothing of the server is staged before another attempt has begun.
        let turn = inner.turns.turn(&world.peer.name).await;
        drop(attempt);
        let another = inner.fetcher.entering.begin(room);
        drop(turn);
        sleep(2 * RETRY.1).await;
        assert_eq!(all(), held);
        drop(another);
        sleep(RETRY.0).await;
        assert_eq!(all(), 0);
    }

    /// Law 11: what is held is bounded in all, by its room and by who sent it, until it is given back.
    #[test]
    fn nobody_takes_all_that_is_held() {
        const MIB: usize = 1 << 20;
        let held = Held::default();
        let place = |server: &str, room: &str, mib: usize| {
            let server: &ServerName = server.try_into().unwrap();
            held.place(server, room.try_into().unwrap(), mib * MIB)
        };
        let one = place("a", "!a:x", 3).unwrap();
        assert!(place("a", "!a:x", 2).is_none(), "of one server");
        assert!(place("a", "!b:x", 2).is_none(), "whatever the room");
        let mut others = vec![place("a", "!a:x", 1).unwrap()];
        others.push(place("b", "!a:x", 4).unwrap());
        assert!(place("c", "!a:x", 1).is_none(), "of one room");
        others.push(place("c", "!b:x", 4).unwrap());
        others.push(place("d", "!b:x", 4).unwrap());
        assert!(place("e", "!c:x", 1).is_none(), "in all");
        drop(one);
        assert!(place("a", "!c:x", 3).is_some());
        drop(others);
        let left = held.0.lock();
        assert_eq!(
            (left.all, left.of_server.len(), left.of_room.len()),
            (0, 0, 0)
        );
    }
}
