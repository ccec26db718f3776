//! Into the queues of a user's devices, by the owner of the user's lane.

use std::collections::BTreeMap;

use async_trait::async_trait;
use comity_accounts::{
    Belongings,
    tables::{Devices, UserPart},
};
use comity_storage::{
    Apply, At, Batch, CommitError, Expect, Home, Owed, Pos, Range, Reader, Record, Target,
    table::{from_postcard, to_postcard},
};
use serde::{Deserialize, Serialize};

use crate::{
    bounded::{Bound, Load},
    log,
    shares::{FREE, Sharing},
    tables::{Crowd, Crowded, InQueue, Message, Queues, hash},
};

/// All of a user's devices.
pub(crate) const ALL: &str = "*";
/// What a device's queue holds. What comes to a full one is lost: whoever fills it had better not push out what is there.
pub(crate) const BOUND: Bound = Bound {
    items: 10_000,
    bytes: 32 << 20,
};

/// What one commit puts into queues, in bytes; a message to all of many devices counts as often. What is beyond is lost.
const MAX_COMMIT_BYTES: usize = 64 << 20;

/// A message and the device it is to, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addressed {
    pub device: String,
    pub message: Message,
}

/// Messages by user, each user's in the order they came.
pub(crate) type ByUser = BTreeMap<String, Vec<Addressed>>;

/// What another lane is to put into the queues of a user. A commit owes a user one such debt at the most: two would take the same
/// places.
pub(crate) fn owed(user: &str, messages: &[Addressed]) -> Result<Owed, CommitError> {
    let body = to_postcard(&messages).map_err(comity_storage::ReadError::from)?;
    Ok(Owed {
        kind: log::MESSAGES,
        target: Target::User(user.to_owned()),
        body,
    })
}

/// Puts messages to devices of users of a lane into a batch of it: two reads, however many they are, and a third where queues are
/// filling. Devices that aren't there get nothing, and so do users who aren't, or are no more (threat F2).
pub(crate) async fn enqueue<M: AsRef<[Addressed]>>(
    reader: &Reader,
    post: &[(&str, M)],
    batch: &mut Batch,
) -> Result<(), CommitError> {
    let users = post.iter().map(|(user, _)| devices_of(user)).collect();
    let devices = reader.scan_many::<Devices>(users).await?;
    let mut wanted: Vec<(&UserPart, Pos, Vec<&Message>)> = Vec::new();
    for ((user, messages), devices) in post.iter().zip(&devices) {
        let before = wanted.len();
        for (device, row) in devices {
            let messages = messages.as_ref().iter();
            let theirs = messages.filter(|to| to.device == ALL || to.device == device.part);
            let theirs: Vec<&Message> = theirs.map(|to| &to.message).collect();
            if !theirs.is_empty() {
                wanted.push((device, row.pos, theirs));
            }
        }
        if wanted.len() > before {
            batch.log(Record {
                kind: log::MESSAGES,
                subject: (*user).to_owned(),
                body: Vec::new(),
            });
        }
    }
    let queues: Vec<Range> = wanted
        .iter()
        .map(|(device, ..)| of_device(&device.user, &device.part))
        .collect();
    let loads = Load::of::<Queues, _>(reader, queues, Message::size).await?;
    let filling = wanted.iter().zip(&loads).map(|((.., messages), load)| {
        let bytes = messages.iter().map(|message| message.size()).sum();
        !load.fits(FREE, messages.len(), bytes)
    });
    let filling: Vec<bool> = filling.collect();
    let crowds = wanted.iter().zip(&loads).zip(&filling);
    let crowds = crowds.filter(|(_, filling)| **filling);
    let crowds = crowds.map(|(((device, ..), load), _)| (Crowd::of(device), load.since));
    let mut sharing = Sharing::of(reader, crowds.collect()).await?.into_iter();
    let mut left = MAX_COMMIT_BYTES;
    for (((device, pos, messages), mut load), filling) in wanted.into_iter().zip(loads).zip(filling)
    {
        let mut shares = if filling { sharing.next() } else { None };
        for message in messages {
            let size = message.size();
            let is_free = load.fits(FREE, 1, size);
            let fits = size <= left
                && load.fits(BOUND, 1, size)
                && (is_free || shares.as_mut().is_none_or(|shares| shares.take(message)));
            let place = fits
                .then(|| load.add(BOUND, size, message.clone()))
                .flatten();
            let Some((index, row)) = place else {
                tracing::debug!(user = %device.user, "a device's queue is full, a message to it is lost");
                continue;
            };
            left -= size;
            let key = InQueue {
                user: device.user.clone(),
                device: hash(&[&device.part]),
                pos: At::Commit,
                index,
            };
            batch.put::<Queues>(&key, &row);
        }
        if let Some(shares) = shares {
            shares.write(batch);
        }
        // A device that goes meanwhile leaves no queue behind.
        batch.expect::<Devices>(device, Expect::At(pos));
    }
    Ok(())
}

/// A user's devices.
fn devices_of(user: &str) -> Range {
    Range::of(Home::User(user), |key| {
        key.str(user);
    })
}

/// A device's queue.
pub(crate) fn of_device(user: &str, device: &str) -> Range {
    Range::of(Home::User(user), |key| {
        key.str(user).fixed(&hash(&[device]));
    })
}

impl Crowd {
    fn of(device: &UserPart) -> Self {
        Self {
            user: device.user.clone(),
            device: hash(&[&device.part]),
        }
    }
}

impl Message {
    /// What it counts for.
    pub(crate) fn size(&self) -> usize {
        self.sender.len() + self.event_type.len() + self.content.len()
    }
}

/// Queues go with their devices.
pub(crate) struct OfDevices;

impl Belongings for OfDevices {
    fn remove(&self, user_id: &str, device: &str, batch: &mut Batch) {
        batch.delete_all::<Queues>(Home::User(user_id), |key| {
            key.str(user_id).fixed(&hash(&[device]));
        });
        batch.delete::<Crowded>(&Crowd {
            user: user_id.to_owned(),
            device: hash(&[device]),
        });
    }
}

/// Pays what other lanes owe to users.
pub(crate) struct Payer;

#[async_trait]
impl Apply for Payer {
    fn kind(&self) -> u16 {
        log::MESSAGES
    }

    async fn apply(
        &self,
        reader: &Reader,
        owed: &[&Owed],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        let mut post: Vec<(&str, Vec<Addressed>)> = Vec::with_capacity(owed.len());
        for owed in owed {
            let Target::User(user) = &owed.target else {
                continue;
            };
            match from_postcard(&owed.body) {
                Ok(messages) => post.push((user, messages)),
                // It won't be readable later either, and nothing behind it may wait for it.
                Err(error) => {
                    tracing::error!(%error, "messages owed to a user's devices can't be read");
                }
            }
        }
        enqueue(reader, &post, batch).await
    }
}
