//! Into the queues of a user's devices, by the owner of the user's lane.

use std::collections::BTreeMap;

use async_trait::async_trait;
use comity_accounts::{
    Belongings, DeviceChange,
    tables::{Devices, UserPart},
};
use comity_storage::{
    Apply, At, Batch, CommitError, Expect, Home, Owed, Range, Reader, Record, Row, Target,
    table::{from_postcard, to_postcard},
};
use serde::{Deserialize, Serialize};

use crate::{
    bounded::{Bound, Load},
    log,
    tables::{InQueue, Message, Queues, hash},
};

/// All of a user's devices.
pub(crate) const ALL: &str = "*";
/// What a device's queue holds. What comes to a full one is lost: whoever fills it had better not push out what is there.
const BOUND: Bound = Bound {
    items: 10_000,
    bytes: 32 << 20,
};

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

/// Puts messages to a user's devices into a batch of the user's lane. Devices that aren't there get nothing, and so do users who
/// aren't, or are no more (threat F2).
pub(crate) async fn enqueue(
    reader: &Reader,
    user: &str,
    messages: &[Addressed],
    batch: &mut Batch,
) -> Result<(), CommitError> {
    let range = Range::of(Home::User(user), |key| {
        key.str(user);
    });
    let devices: BTreeMap<String, Row<_>> = reader
        .scan::<Devices>(range)
        .await?
        .into_iter()
        .map(|(key, row)| (key.part, row))
        .collect();
    let mut wanted: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for Addressed { device, message } in messages {
        let all = device == ALL;
        for (id, _) in devices.iter().filter(|(id, _)| all || *id == device) {
            wanted.entry(id).or_default().push(message);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let queues = wanted.keys().map(|device| of_device(user, device));
    let size = |message: &Message| message.size();
    let loads = Load::of::<Queues, _>(reader, queues.collect(), size).await?;
    for ((device, messages), mut load) in wanted.into_iter().zip(loads) {
        for message in messages {
            let Some((index, row)) = load.add(BOUND, message.size(), message.clone()) else {
                tracing::debug!(%user, "a device's queue is full, a message to it is lost");
                continue;
            };
            let key = InQueue {
                user: user.to_owned(),
                device: hash(&[device]),
                pos: At::Commit,
                index,
            };
            batch.put::<Queues>(&key, &row);
        }
        if let Some(row) = devices.get(device) {
            // A device that goes meanwhile leaves no queue behind.
            let key = UserPart {
                user: user.to_owned(),
                part: device.to_owned(),
            };
            batch.expect::<Devices>(&key, Expect::At(row.pos));
        }
    }
    batch.log(Record {
        kind: log::MESSAGES,
        subject: user.to_owned(),
        body: Vec::new(),
    });
    Ok(())
}

/// A device's queue.
pub(crate) fn of_device(user: &str, device: &str) -> Range {
    Range::of(Home::User(user), |key| {
        key.str(user).fixed(&hash(&[device]));
    })
}

impl Message {
    /// What it counts for.
    fn size(&self) -> usize {
        self.sender.len() + self.event_type.len() + self.content.len()
    }
}

/// Queues go with their devices.
pub(crate) struct OfDevices;

#[async_trait]
impl Belongings for OfDevices {
    async fn follow(
        &self,
        _: &Reader,
        user_id: &str,
        changes: &[DeviceChange],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        for change in changes {
            if let DeviceChange::Removed { device } = change {
                batch.delete_all::<Queues>(Home::User(user_id), |key| {
                    key.str(user_id).fixed(&hash(&[device]));
                });
            }
        }
        Ok(())
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
        owed: &Owed,
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        let Target::User(user) = &owed.target else {
            return Ok(());
        };
        match from_postcard::<Vec<Addressed>>(&owed.body) {
            Ok(messages) => enqueue(reader, user, &messages, batch).await,
            Err(error) => {
                // It won't be readable later either, and nothing behind it may wait for it.
                tracing::error!(%error, "messages owed to a user's devices can't be read");
                Ok(())
            }
        }
    }
}
