//! Who has how much of a queue that is filling. Half of it is anybody's; of the rest each has a tenth of the whole at the most, so that
//! whoever floods a device doesn't silence the others.
//!
//! What is counted is a user of this server, or another server with all its users: of their names there is no end. Only from half full
//! on a row says who put what there. It counts as long as the latest of that is in the queue, and then begins anew.

use comity_storage::{Batch, Pos, ReadError, Reader, Row};

use crate::{
    bounded::Bound,
    queue::BOUND,
    tables::{Crowd, Crowded, Hash, Message, Shares, hash},
};

/// What is anybody's.
pub(crate) const FREE: Bound = BOUND.part(2);
/// What one may put there beyond.
const SHARE: Bound = BOUND.part(10);
/// Those who are counted one by one; any others have one share together.
const COUNTED: usize = 1_000;

/// The shares of one device's queue.
pub(crate) struct Sharing {
    device: Crowd,
    shares: Shares,
    changed: bool,
}

impl Sharing {
    /// Of these devices' queues, each of which holds what came at the position beside it and later.
    pub(crate) async fn of(
        reader: &Reader,
        devices: Vec<(Crowd, Option<Pos>)>,
    ) -> Result<Vec<Self>, ReadError> {
        let (devices, since): (Vec<Crowd>, Vec<Option<Pos>>) = devices.into_iter().unzip();
        let rows = if devices.is_empty() {
            Vec::new()
        } else {
            reader.get_many::<Crowded>(&devices).await?
        };
        let shares = rows.into_iter().zip(since).map(|(row, since)| {
            let row: Row<Shares> = row?;
            (row.pos >= since?).then_some(row.value)
        });
        let sharing = devices.into_iter().zip(shares);
        let sharing = sharing.map(|(device, shares)| Self {
            device,
            shares: shares.unwrap_or_default(),
            changed: false,
        });
        Ok(sharing.collect())
    }

    /// Takes of its sender's share what a message needs, if there is as much.
    pub(crate) fn take(&mut self, message: &Message) -> bool {
        let mut whose = whose(&message.sender, &self.device.user);
        let Shares(shares) = &mut self.shares;
        if shares.len() >= COUNTED && !shares.contains_key(&whose) {
            whose = Hash::default();
        }
        let (items, bytes) = shares.entry(whose).or_default();
        if !SHARE.takes(*items, *bytes, message.size()) {
            return false;
        }
        *items += 1;
        *bytes += message.size() as u64;
        self.changed = true;
        true
    }

    pub(crate) fn write(&self, batch: &mut Batch) {
        if self.changed {
            batch.put::<Crowded>(&self.device, &self.shares);
        }
    }
}

/// Whose share a message takes: its sender's, if they are of the same server as the user that gets it, else their server's.
fn whose(sender: &str, user: &str) -> Hash {
    let server = |id| str::split_once(id, ':').map_or(id, |(_, server)| server);
    let of_us = server(sender) == server(user);
    hash(&[if of_us { sender } else { server(sender) }])
}
