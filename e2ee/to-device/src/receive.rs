//! What devices of other servers send to ours.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::id::{OwnedUserId, ServerName, UserId};
use comity_storage::{Attempts, CommitError, Expect, Home};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    ToDevice,
    queue::Addressed,
    send::{MAX_MESSAGES, Post, fault, put},
    tables::{Hash, Ids, Message, Received, hash},
    tend::week,
};

/// Longer ids and types are nobody's. The specification's bound of an id is 32 characters.
const MAX_NAME_BYTES: usize = 255;

/// The content of a `m.direct_to_device` EDU.
#[derive(Debug, Deserialize)]
pub struct DirectToDevice {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    event_type: String,
    message_id: String,
    messages: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
}

impl ToDevice {
    /// Takes what a server sent in one transaction: when this returns, it is in the queues. What came before under its id does
    /// nothing (also under another transaction's); what isn't of that server's users (threat F1), isn't for ours, can't be a
    /// message or is beyond the 10,000th (F2, F3) is left out.
    ///
    /// # Errors
    /// The commit's: the server is to send it again.
    pub async fn receive(
        &self,
        origin: &ServerName,
        edus: Vec<DirectToDevice>,
    ) -> Result<(), CommitError> {
        let home = Home::Server(origin.as_str());
        let lane = self.0.tenant.lane(home);
        let edus: Vec<(Hash, DirectToDevice)> = edus
            .into_iter()
            .filter(|edu| edu.sender.server_name() == origin)
            .filter(|edu| edu.message_id.len() <= MAX_NAME_BYTES)
            .filter(|edu| edu.event_type.len() <= MAX_NAME_BYTES)
            .map(|edu| (hash(&[&edu.message_id]), edu))
            .collect();
        if edus.is_empty() {
            return Ok(());
        }
        let mut attempts = Attempts::default();
        let pos = loop {
            let turn = self.turn(lane).await;
            let now = week(self.now_ms());
            let key = |week| {
                move |(message, _): &(Hash, DirectToDevice)| Received {
                    week,
                    server: origin.to_string(),
                    message: *message,
                }
            };
            let here: Vec<Received> = edus.iter().map(key(now)).collect();
            let before: Vec<Received> = edus.iter().map(key(now.saturating_sub(1))).collect();
            let reader = lane.reader();
            let known = reader.get_many::<Ids>(&[&*here, &*before].concat()).await?;
            let mut seen: BTreeMap<Hash, u64> = BTreeMap::new();
            for ((id, _), row) in edus.iter().chain(&edus).zip(&known) {
                if let Some(row) = row {
                    seen.insert(*id, row.pos);
                }
            }
            let mut fresh = BTreeSet::new();
            let mut batch = lane.batch();
            let mut post = Post::default();
            let mut left = MAX_MESSAGES;
            for ((id, edu), key) in edus.iter().zip(&here) {
                if !seen.contains_key(id) && fresh.insert(*id) {
                    batch.expect::<Ids>(key, Expect::Absent);
                    batch.put::<Ids>(key, &());
                    self.add(edu, &mut post, &mut left);
                }
            }
            if fresh.is_empty() {
                // What came before may be on its way to the queues still.
                break seen.values().copied().max().unwrap_or(0);
            }
            put(lane, &reader, &post, &mut batch).await?;
            let appended = attempts.append(lane, batch).await?;
            drop(turn);
            if let Some(appended) = appended {
                break appended.durable().await?;
            }
        };
        self.0.tenant.settled(home, pos).await;
        self.0.tenant.paid(home, pos).await;
        Ok(())
    }

    /// The messages of an EDU that are for users of ours, and no more than are left.
    fn add(&self, edu: &DirectToDevice, post: &mut Post, left: &mut usize) {
        for (user, devices) in &edu.messages {
            let ours = <&UserId>::try_from(user.as_str())
                .is_ok_and(|user| user.server_name() == self.0.server_name);
            if !ours {
                continue;
            }
            for (device, content) in devices {
                if *left == 0 || fault(content).is_some() {
                    continue;
                }
                *left -= 1;
                let message = Message {
                    sender: edu.sender.to_string(),
                    event_type: edu.event_type.clone(),
                    content: content.get().to_owned(),
                };
                let device = device.clone();
                let messages = post.users.entry(user.clone()).or_default();
                messages.push(Addressed { device, message });
            }
        }
    }
}
