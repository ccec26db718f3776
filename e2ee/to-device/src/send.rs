//! What a device of ours sends to others.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid>

use std::collections::{BTreeMap, BTreeSet};

use comity_accounts::tables::{UserKey, Users};
use comity_protocol::id::{OwnedServerName, OwnedUserId, ServerName, UserId};
use comity_storage::{Attempts, Batch, CommitError, Expect, Home, LaneWriter, Reader};
use serde_json::value::RawValue;

use crate::{
    ToDevice, ToDeviceError,
    outgoing::{self, FRAME_BYTES, Parcel},
    queue::{self, Addressed, ByUser},
    tables::{Edu, Message, Txn, Txns, hash},
    tend::day,
};

/// Messages of one request, or of another server's transaction, at the most.
pub(crate) const MAX_MESSAGES: usize = 10_000;
/// Other servers that one request says something to, at the most.
const MAX_SERVERS: usize = 1_000;
const MAX_TYPE_BYTES: usize = 255;
/// Longer names are no device's.
const MAX_DEVICE_BYTES: usize = 255;
/// The largest content, in bytes: with all that goes around it, it has to fit an EDU.
const MAX_CONTENT_BYTES: usize = (64 << 10) - 2 * FRAME_BYTES;

/// Contents by user and device; the device may be `*`, all of the user's.
pub type Contents = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

/// Which request of a device it is; the same one again does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// Who.
    pub sender: &'a UserId,
    /// With which device.
    pub device: &'a str,
    /// The event type.
    pub event_type: &'a str,
    /// The transaction id.
    pub txn: &'a str,
}

/// What is to go where, by lanes.
#[derive(Default)]
pub(crate) struct Post {
    pub users: ByUser,
    pub servers: BTreeMap<OwnedServerName, Vec<Edu>>,
}

impl ToDevice {
    /// Sends a device's messages: when this returns, they are in the queues of this server's users, and will reach other servers.
    ///
    /// # Errors
    /// [`ToDeviceError::InvalidParam`], [`ToDeviceError::TooLarge`]: nothing is sent. The store's.
    pub async fn send(
        &self,
        transaction: Transaction<'_>,
        contents: Contents,
    ) -> Result<(), ToDeviceError> {
        check(&transaction, &contents)?;
        let Transaction {
            sender,
            device,
            event_type,
            txn,
        } = transaction;
        let home = Home::User(sender.as_str());
        let lane = self.0.tenant.lane(home);
        let txn = hash(&[device, event_type, txn]);
        let post = self.sorted(sender, event_type, contents);
        let mut attempts = Attempts::default();
        let pos = loop {
            let turn = self.turn(lane).await;
            let today = day(self.now_ms());
            let key = |day| Txn {
                day,
                user: sender.to_string(),
                txn,
            };
            let days = [today, today.saturating_sub(1)].map(key);
            let reader = lane.reader();
            let done = reader.get_many::<Txns>(&days).await?;
            if let Some(done) = done.into_iter().flatten().next() {
                break done.pos;
            }
            let mut batch = lane.batch();
            let [today, _] = &days;
            batch.expect::<Txns>(today, Expect::Absent);
            batch.put::<Txns>(today, &());
            put(lane, &reader, &post, &mut batch).await?;
            let appended = attempts.append(lane, batch).await?;
            drop(turn);
            if let Some(appended) = appended {
                break appended.durable().await?;
            }
        };
        // Also where it was done before: that may be on its way still.
        self.0.tenant.settled(home, pos).await;
        self.0.tenant.paid(home, pos).await;
        Ok(())
    }

    fn sorted(&self, sender: &UserId, event_type: &str, contents: Contents) -> Post {
        let mut post = Post::default();
        let mut parcels: BTreeMap<OwnedServerName, Parcel> = BTreeMap::new();
        for (user, devices) in contents {
            let server = user.server_name();
            if server != sender.server_name() {
                let parcel = parcels.entry(server.to_owned()).or_default();
                for (device, content) in devices {
                    parcel.add(&user, device, content);
                }
                continue;
            }
            for (device, content) in devices {
                let message = Message {
                    sender: sender.to_string(),
                    event_type: event_type.to_owned(),
                    content: content.get().to_owned(),
                };
                let messages = post.users.entry(user.to_string()).or_default();
                messages.push(Addressed { device, message });
            }
        }
        let id = || self.0.tenant.runtime().random().alphanumeric(24);
        let parcels = parcels.into_iter();
        post.servers = parcels
            .map(|(server, parcel)| (server, parcel.write(sender, event_type, id)))
            .collect();
        post
    }
}

/// Puts what is for users and servers of the lane into the batch, and owes the rest. Nobody is owed to who has no account: of names
/// there is no end (threat F2).
pub(crate) async fn put(
    lane: &LaneWriter,
    reader: &Reader,
    post: &Post,
    batch: &mut Batch,
) -> Result<(), CommitError> {
    let users = post.users.iter();
    let (ours, others): (Vec<(&str, _)>, Vec<(&str, _)>) = users
        .map(|(user, messages)| (user.as_str(), messages))
        .partition(|(user, _)| lane.owns(Home::User(user)));
    queue::enqueue(reader, &ours, batch).await?;
    let keys = others.iter().map(|(user, _)| UserKey((*user).to_owned()));
    let accounts = reader.get_many::<Users>(&keys.collect::<Vec<_>>()).await?;
    for ((user, messages), account) in others.into_iter().zip(accounts) {
        if account.is_some() {
            batch.owe(queue::owed(user, messages)?);
        }
    }
    let mut ours: Vec<(&str, Vec<Edu>)> = Vec::new();
    for (server, edus) in &post.servers {
        if lane.owns(Home::Server(server.as_str())) {
            ours.push((server.as_str(), edus.clone()));
        } else {
            batch.owe(outgoing::owed(server, edus)?);
        }
    }
    outgoing::enqueue(reader, ours, batch).await
}

fn check(transaction: &Transaction<'_>, contents: &Contents) -> Result<(), ToDeviceError> {
    if transaction.event_type.is_empty() || transaction.event_type.len() > MAX_TYPE_BYTES {
        return Err(ToDeviceError::InvalidParam(
            "The event type is empty or too long",
        ));
    }
    let messages = || contents.values().flatten();
    if messages().count() > MAX_MESSAGES {
        return Err(ToDeviceError::TooLarge("These are too many messages"));
    }
    let servers: BTreeSet<&ServerName> = contents.keys().map(|user| user.server_name()).collect();
    if servers.len() > MAX_SERVERS {
        return Err(ToDeviceError::TooLarge("These are too many servers"));
    }
    if messages().any(|(device, _)| device.is_empty() || device.len() > MAX_DEVICE_BYTES) {
        return Err(ToDeviceError::InvalidParam(
            "A device's id is empty or too long",
        ));
    }
    match messages().find_map(|(_, content)| fault(content)) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

/// Why this can't be the content of a message.
pub(crate) fn fault(content: &RawValue) -> Option<ToDeviceError> {
    if !content.get().starts_with('{') {
        return Some(ToDeviceError::InvalidParam("A message is no object"));
    }
    (content.get().len() > MAX_CONTENT_BYTES)
        .then_some(ToDeviceError::TooLarge("A message is too large"))
}
