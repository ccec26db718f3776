//! Rooms that are being entered, and what comes of them meanwhile.
//!
//! Whoever lets us in counts us in at once, and so does everybody they tell; here the room is known when the answer to
//! the join has come and is stored. What is sent of it until then is answered, so nobody sends it again. So it is held,
//! and staged when the entry has ended, whichever server it went by. In memory, for a crash ends the entry as well; one
//! between the entry and the staging loses what was held, as does a store that keeps nothing for a minute, and as is lost what doesn't
//! fit; what follows it later asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use comity_protocol::id::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use comity_runtime::watch;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::{sync::oneshot, time::timeout};

use crate::{Inner, transaction::Results};

/// Bytes of events held, of those that come from servers by which rooms are entered and as many of others; what doesn't fit is a missing
/// parent of what follows it once the room is there.
const HELD_BYTES: usize = 16 << 20;
/// Of these what one server sent: any may write events of a room whose entry it draws out, and the others are to find a place.
const OF_SERVER: usize = 4 << 20;
/// And of one room.
const OF_ROOM: usize = 8 << 20;
/// Servers by which one room is entered that are told from others.
const THROUGH: usize = 50;
/// What holding events costs beside their bytes.
const HELD_EACH: usize = 4 << 10;
/// Before events are staged again that couldn't be; doubled each time. When it is longer than the second they are given up.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// By which servers a room is entered.
type Servers = BTreeSet<OwnedServerName>;

/// The rooms that are being entered. Cheap to clone.
#[derive(Clone, Default)]
pub struct Entering(Arc<Mutex<BTreeMap<OwnedRoomId, Weak<watch::Sender<Servers>>>>>);

/// An attempt to enter a room; it ends when this is dropped.
#[must_use]
pub struct Attempt {
    _told: Arc<watch::Sender<Servers>>,
}

impl Entering {
    /// A room is being entered from now on, by one of these servers.
    pub fn begin(&self, room_id: &RoomId, servers: &[OwnedServerName]) -> Attempt {
        let mut rooms = self.0.lock();
        rooms.retain(|_, told| told.strong_count() > 0);
        let others = rooms.get(room_id).and_then(Weak::upgrade);
        let told = others.unwrap_or_default();
        told.send_modify(|through| {
            let more = THROUGH.saturating_sub(through.len());
            through.extend(servers.iter().take(more).cloned());
        });
        rooms.insert(room_id.to_owned(), Arc::downgrade(&told));
        Attempt { _told: told }
    }

    /// What ends when nobody tries to enter a room any more; `None` where nobody does. To be asked before the room is looked at: an entry
    /// that ends in between has made it known.
    pub(crate) fn end_of(&self, room_id: &RoomId) -> Option<watch::Receiver<Servers>> {
        let told = self.0.lock().get(room_id)?.upgrade()?;
        Some(told.subscribe())
    }
}

/// What is held. Whoever has most of it gives way to who has less, so that it takes as many servers to displace what one has sent as
/// have sent as much. Names cost strangers little, so they share none of it with the servers that rooms are entered by. Cheap to
/// clone.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    last: u64,
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    from: Source,
    bytes: usize,
    /// Dropped where it gives way.
    _stays: oneshot::Sender<Infallible>,
}

/// Who sent events, and of which room they are.
#[derive(Clone, PartialEq, Eq)]
struct Source {
    server: OwnedServerName,
    room_id: OwnedRoomId,
    /// Whether the room is entered by that server.
    through: bool,
}

/// A place for events of a server and room, until it is dropped.
pub(crate) struct Place {
    held: Held,
    number: u64,
    stays: oneshot::Receiver<Infallible>,
}

impl Held {
    fn place(&self, from: Source, bytes: usize) -> Option<Place> {
        let mut places = self.0.lock();
        if !places.make_room(&from, bytes) {
            return None;
        }
        let (told, stays) = oneshot::channel();
        places.last += 1;
        let number = places.last;
        let taken = Taken {
            from,
            bytes,
            _stays: told,
        };
        places.taken.insert(number, taken);
        Some(Place {
            held: self.clone(),
            number,
            stays,
        })
    }
}

impl Places {
    /// Lets those who have most give way until so much fits; whether it does.
    fn make_room(&mut self, new: &Source, bytes: usize) -> bool {
        let of_kind = |from: &Source| from.through == new.through;
        let of_room = |from: &Source| of_kind(from) && from.room_id == new.room_id;
        loop {
            let (all, here) = (self.shares(of_kind), self.shares(of_room));
            if share(&all, &new.server) + bytes > OF_SERVER {
                return false;
            }
            let lacking = |shares: &Shares, most: usize| {
                let taken = shares.values().sum::<usize>() + bytes;
                Some(taken.saturating_sub(most)).filter(|lacking| *lacking > 0)
            };
            let (shares, lacking, in_room) =
                match (lacking(&here, OF_ROOM), lacking(&all, HELD_BYTES)) {
                    (Some(lacking), _) => (here, lacking, true),
                    (None, Some(lacking)) => (all, lacking, false),
                    (None, None) => return true,
                };
            let own = share(&shares, &new.server) + bytes;
            let most = shares.into_iter().max_by_key(|(_, share)| *share);
            let Some((server, most)) = most.filter(|(_, share)| *share > own) else {
                return false;
            };
            let gives_way = |from: &Source| {
                from.server == server
                    && if in_room {
                        of_room(from)
                    } else {
                        of_kind(from)
                    }
            };
            self.take_back(gives_way, lacking.min(most - own));
        }
    }

    fn shares(&self, counts: impl Fn(&Source) -> bool) -> Shares {
        let mut shares = Shares::new();
        for taken in self.taken.values().filter(|taken| counts(&taken.from)) {
            *shares.entry(taken.from.server.clone()).or_default() += taken.bytes;
        }
        shares
    }

    /// Takes back so many bytes of these, what came last first.
    fn take_back(&mut self, gives_way: impl Fn(&Source) -> bool, bytes: usize) {
        let mut left = bytes;
        let of_these = self.taken.iter().rev();
        let of_these = of_these.filter(|(_, taken)| gives_way(&taken.from));
        let back = of_these.map_while(|(number, taken)| {
            let wanted = left > 0;
            left = left.saturating_sub(taken.bytes);
            wanted.then_some(*number)
        });
        let back: Vec<u64> = back.collect();
        for number in back {
            self.taken.remove(&number);
        }
    }
}

/// Bytes by server.
type Shares = BTreeMap<OwnedServerName, usize>;

fn share(shares: &Shares, server: &ServerName) -> usize {
    shares.get(server).copied().unwrap_or_default()
}

impl Place {
    /// Waits until it has to give way.
    async fn lost(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.stays).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.0.lock().taken.remove(&self.number);
    }
}

impl Inner {
    /// Holds events of a room that is being entered until it is there; those of another are dropped, and so is what doesn't fit: were it
    /// refused, all that its sender has for us would wait behind it.
    pub(crate) fn stage_later(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        entering: Option<watch::Receiver<Servers>>,
        pdus: Vec<Box<RawValue>>,
        place: &mut Option<Place>,
    ) {
        let (Some(mut entering), false) = (entering, pdus.is_empty()) else {
            return;
        };
        let bytes: usize = pdus.iter().map(|pdu| pdu.get().len()).sum();
        let bytes = bytes.saturating_add(HELD_EACH);
        let place = place.take();
        let from = Source {
            server: origin.to_owned(),
            room_id: room_id.to_owned(),
            through: entering.borrow().contains(origin),
        };
        let place = place.or_else(|| self.held.place(from, bytes));
        let Some(mut place) = place else {
            tracing::debug!(%origin, %room_id, "too much waits for a room that is being entered");
            return;
        };
        let (inner, origin, room_id) =
            (Arc::downgrade(self), origin.to_owned(), room_id.to_owned());
        // Boxed, for what it calls has called this.
        let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let ended = async { while entering.changed().await.is_ok() {} };
            tokio::select! {
                biased;
                () = ended => {}
                () = place.lost() => return,
            }
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
                let Some(place) = &mut place else {
                    break;
                };
                if timeout(wait, place.lost()).await.is_ok() {
                    break;
                }
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
    use tokio::{sync::oneshot::error::TryRecvError, time::sleep};

    use super::*;
    use crate::tests::World;

    /// Law 11: what would be staged while its room is entered anew is held on, and counts once.
    #[tokio::test(start_paused = true)]
    async fn what_is_held_on_counts_once() {
        let world = World::new().await;
        let inner = &world.receiver.0;
        let room = <&RoomId>::try_from("!entered:evil.test").unwrap();
        let all = || {
            let places = inner.held.0.lock();
            places
                .taken
                .values()
                .map(|taken| taken.bytes)
                .sum::<usize>()
        };
        let attempt = inner.fetcher.entering.begin(room, &[]);
        let event = json!({ "room_id": room, "content": { "x": "x".repeat(OF_SERVER / 2) } });
        world.send_json(&event).await.unwrap();
        let held = all();
        assert!(held > OF_SERVER / 2);
        // Nothing of the server is staged before another attempt has begun.
        let turn = inner.turns.turn(&world.peer.name).await;
        drop(attempt);
        let another = inner.fetcher.entering.begin(room, &[]);
        drop(turn);
        sleep(2 * RETRY.1).await;
        assert_eq!(all(), held);
        drop(another);
        sleep(RETRY.0).await;
        assert_eq!(all(), 0);
    }

    /// Law 11: what is held is bounded in all, by its room and by who sent it, until it is given back; whoever has most gives way to
    /// who has less, of the room or of all, and nobody to those of another kind.
    #[test]
    fn who_has_most_gives_way() {
        const MIB: usize = 1 << 20;
        let held = Held::default();
        let place = |server: &str, room: &str, through: bool, mib: usize| {
            let from = Source {
                server: server.try_into().unwrap(),
                room_id: room.try_into().unwrap(),
                through,
            };
            held.place(from, mib * MIB)
        };
        let stays = |place: &mut Place| place.stays.try_recv() == Err(TryRecvError::Empty);
        let mut first = place("a", "!a:x", false, 1).unwrap();
        let mut second = place("a", "!a:x", false, 3).unwrap();
        assert!(place("a", "!b:x", false, 1).is_none(), "of one server");
        let mut other = place("b", "!a:x", false, 4).unwrap();
        assert!(place("c", "!a:x", false, 4).is_none(), "of one room");
        let mut through = place("c", "!a:x", true, 4).unwrap();
        // Of equals it is the last by name; the next has less than `a`, of which what came last goes.
        let mut small = place("c", "!a:x", false, 1).unwrap();
        assert!(!stays(&mut other) && stays(&mut second));
        let _fourth = place("d", "!a:x", false, 3).unwrap();
        assert!(stays(&mut first) && stays(&mut second));
        let _fifth = place("e", "!a:x", false, 1).unwrap();
        assert!(stays(&mut first) && !stays(&mut second) && stays(&mut small));
        let others = ["x", "y"].map(|name| place(name, &format!("!{name}:x"), false, 4).unwrap());
        let _sixth = place("f", "!d:x", false, 2).unwrap();
        assert!(place("g", "!e:x", false, 4).is_none(), "in all");
        let mut seventh = place("g", "!e:x", false, 1).unwrap();
        assert!(
            stays(&mut through) && stays(&mut first) && stays(&mut small) && stays(&mut seventh)
        );
        drop(others);
        let left = held.0.lock().taken.len();
        assert_eq!(left, 7);
    }
}
