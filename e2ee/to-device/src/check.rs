//! Whether the rows of messages to devices agree with one another: what `comity check` asks of them once each row by itself is as
//! its table writes it ([`comity_storage::check`]).
//!
//! A queue is of a device that is there; what one commit put into it stands there in its order, each with the totals of what went
//! before and its own; messages to another server's devices are known to be owed. Totals go on from commit to commit only where
//! nothing else was being put into the queue at the time, so that is not asked. Nothing is written, and a page of rows is held at a
//! time.

use std::collections::BTreeSet;

use comity_accounts::tables::Devices;
use comity_storage::{
    At, Home, Pages, Range, ReadError, Reader, broken,
    check::{Contradiction, Listener},
};

use crate::tables::{Edu, Hash, Outgoing, Owed, Queued, Queues, Server, hash};

/// Something that rows of messages to devices say differently.
pub type Finding = Contradiction<Broken>;

broken! {
    NoDevice: "the device isn't there",
    Order: "one that came with it is missing",
    Totals: "its totals are not those of the messages",
    NotOwed: "the server is not among those that are owed something",
}

/// Walks all queues of a tenant.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read.
pub async fn tenant(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    queues(reader, to).await?;
    outgoing(reader, to).await
}

async fn queues(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let mut pages = Pages::<Queues>::all();
    let mut user: Option<String> = None;
    let mut devices = BTreeSet::new();
    let mut before: Option<(Hash, Place)> = None;
    while let Some(rows) = to.page(reader, &mut pages).await? {
        for (key, row) in rows {
            if user.as_ref() != Some(&key.user) {
                devices = devices_of(reader, &key.user).await?;
                user = Some(key.user.clone());
                before = None;
            }
            let queue = before.filter(|(device, _)| *device == key.device);
            if queue.is_none() && !devices.contains(&key.device) {
                to.say::<Queues>(&key.user, Broken::NoDevice);
            }
            let place = Place::of(&key.pos, key.index, &row.value);
            let broken = place.broken(queue.map(|(_, place)| place), row.value.item.size());
            if let Some(broken) = broken {
                to.say::<Queues>(&key.user, broken);
            }
            before = Some((key.device, place));
        }
    }
    Ok(())
}

async fn outgoing(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let mut pages = Pages::<Outgoing>::all();
    let mut before: Option<(String, Place)> = None;
    while let Some(rows) = to.page(reader, &mut pages).await? {
        for (key, row) in rows {
            let queue = before.filter(|(server, _)| *server == key.server);
            if queue.is_none() {
                let owed = reader.get::<Owed>(&Server(key.server.clone())).await?;
                if owed.is_none() {
                    to.say::<Outgoing>(&key.server, Broken::NotOwed);
                }
            }
            let place = Place::of(&key.pos, key.index, &row.value);
            let Edu(edu) = &row.value.item;
            if let Some(broken) = place.broken(queue.map(|(_, place)| place), edu.len()) {
                to.say::<Outgoing>(&key.server, broken);
            }
            before = Some((key.server, place));
        }
    }
    Ok(())
}

/// The devices of a user, as queues name them.
async fn devices_of(reader: &Reader, user: &str) -> Result<BTreeSet<Hash>, ReadError> {
    let range = Range::of(Home::User(user), |key| {
        key.str(user);
    });
    let devices = reader.scan::<Devices>(range).await?;
    Ok(devices
        .iter()
        .map(|(device, _)| hash(&[&device.part]))
        .collect())
}

/// Where something stands in its queue, and the totals there.
#[derive(Clone, Copy)]
struct Place {
    pos: u64,
    index: u32,
    nth: u64,
    bytes: u64,
}

impl Place {
    fn of<I>(pos: &At, index: u32, queued: &Queued<I>) -> Self {
        Self {
            // What is read has a position.
            pos: match pos {
                At::Is(pos) => *pos,
                At::Commit => 0,
            },
            index,
            nth: queued.nth,
            bytes: queued.bytes,
        }
    }

    /// What is wrong with it, of that size, after the one before it in its queue. What was there before the first has been taken.
    fn broken(&self, before: Option<Self>, size: usize) -> Option<Broken> {
        let size = size as u64;
        match before {
            Some(before) if before.pos == self.pos => {
                if before.index.checked_add(1) != Some(self.index) {
                    return Some(Broken::Order);
                }
                let nth = before.nth.checked_add(1);
                let bytes = before.bytes.checked_add(size);
                let goes_on = nth == Some(self.nth) && bytes == Some(self.bytes);
                (!goes_on).then_some(Broken::Totals)
            }
            Some(_) if self.index > 0 => Some(Broken::Order),
            _ => {
                let counts = self.nth > u64::from(self.index) && self.bytes >= size;
                (!counts).then_some(Broken::Totals)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two commits put into a queue of which the beginning was taken, each broken once.
    #[test]
    fn a_place_follows_the_one_before_it() {
        let place = |pos, index, nth, bytes| Place {
            pos,
            index,
            nth,
            bytes,
        };
        let queue = [
            place(5, 1, 7, 70),
            place(5, 2, 8, 80),
            // Put there while the other commit was.
            place(6, 0, 7, 70),
        ];
        let look = |queue: &[Place]| {
            let befores = std::iter::once(None).chain(queue.iter().copied().map(Some));
            let mut broken = befores.zip(queue);
            broken.find_map(|(before, place)| place.broken(before, 10))
        };
        assert_eq!(look(&queue), None);
        let [first, second, third] = queue;
        for (queue, what) in [
            (vec![place(5, 7, 7, 70)], Broken::Totals),
            (vec![place(5, 1, 7, 9)], Broken::Totals),
            (vec![first, place(5, 2, 9, 80)], Broken::Totals),
            (vec![first, place(5, 2, 8, 81)], Broken::Totals),
            (vec![first, place(5, 3, 8, 80)], Broken::Order),
            (
                vec![first, second, Place { index: 1, ..third }],
                Broken::Order,
            ),
        ] {
            assert_eq!(look(&queue), Some(what));
        }
    }
}
