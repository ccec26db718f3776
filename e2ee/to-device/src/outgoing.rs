//! To devices of other servers: EDUs that have to arrive, in their order. They are rows of the server's lane until the server has
//! taken them; their message ids let it tell what it has had already.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>

use std::collections::BTreeMap;

use async_trait::async_trait;
use comity_protocol::id::{OwnedServerName, OwnedUserId, ServerName, UserId};
use comity_storage::{
    Apply, At, Batch, CommitError, Expect, Home, Owed, Pos, Range, ReadError, Reader, Record,
    Target,
    table::{from_postcard, to_postcard},
};
use serde_json::{json, value::RawValue};

use crate::{
    ToDevice,
    bounded::{Bound, Load},
    log,
    tables::{Edu, InOutgoing, Outgoing, Owed as OwedRows, Server},
};

/// The largest EDU.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#edus>
const MAX_EDU_BYTES: usize = 64 << 10;
/// What an EDU has beside its messages.
pub(crate) const FRAME_BYTES: usize = 2 << 10;
/// What waits for a server that doesn't answer. What comes beyond is lost.
const BOUND: Bound = Bound {
    items: 50_000,
    bytes: 64 << 20,
};

/// The EDUs that take messages to one server: as few as their size allows.
#[derive(Default)]
pub(crate) struct Parcel {
    done: Vec<BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>>,
    size: usize,
}

impl Parcel {
    pub(crate) fn add(&mut self, user: &UserId, device: String, content: Box<RawValue>) {
        let size = user.as_str().len() + device.len() + content.get().len() + 16;
        if self.done.is_empty() || self.size + size > MAX_EDU_BYTES - FRAME_BYTES {
            self.done.push(BTreeMap::new());
            self.size = 0;
        }
        self.size += size;
        if let Some(messages) = self.done.last_mut() {
            let devices = messages.entry(user.to_owned()).or_default();
            devices.insert(device, content);
        }
    }

    /// Written with ids that `id` makes up.
    pub(crate) fn write(
        self,
        sender: &UserId,
        event_type: &str,
        id: impl Fn() -> String,
    ) -> Vec<Edu> {
        let edu = |messages| {
            let content = json!({ "sender": sender, "type": event_type, "message_id": id() });
            // Put together as text: what clients sent goes out as it came.
            let content = content.to_string();
            let messages = serde_json::to_string(&messages).unwrap_or_default();
            let open = content.strip_suffix('}').unwrap_or_default();
            Edu(format!(
                r#"{{"edu_type":"m.direct_to_device","content":{open},"messages":{messages}}}}}"#
            ))
        };
        self.done.into_iter().map(edu).collect()
    }
}

/// What another lane is to put into a server's queue. A commit owes a server one such debt at the most.
pub(crate) fn owed(server: &ServerName, edus: &[Edu]) -> Result<Owed, CommitError> {
    let body = to_postcard(&edus).map_err(ReadError::from)?;
    Ok(Owed {
        kind: log::OUTGOING,
        target: Target::Server(server.to_string()),
        body,
    })
}

/// Puts EDUs for servers of a lane into a batch of it: one read, however many they are.
pub(crate) async fn enqueue(
    reader: &Reader,
    post: Vec<(&str, Vec<Edu>)>,
    batch: &mut Batch,
) -> Result<(), CommitError> {
    let queues = post.iter().map(|(server, _)| of_server(server)).collect();
    let size = |edu: &Edu| edu.0.len();
    let loads = Load::of::<Outgoing, _>(reader, queues, size).await?;
    for ((server, edus), mut load) in post.into_iter().zip(loads) {
        for edu in edus {
            let Some((index, row)) = load.add(BOUND, edu.0.len(), edu) else {
                tracing::warn!(%server, "a server's queue is full, messages to its devices are lost");
                continue;
            };
            let key = InOutgoing {
                server: server.to_owned(),
                pos: At::Commit,
                index,
            };
            batch.put::<Outgoing>(&key, &row);
        }
        batch.put::<OwedRows>(&Server(server.to_owned()), &());
        batch.log(Record {
            kind: log::OUTGOING,
            subject: server.to_owned(),
            body: Vec::new(),
        });
    }
    Ok(())
}

/// EDUs dropped in one commit.
const REMOVED: usize = 500;

fn of_server(server: &str) -> Range {
    Range::of(Home::Server(server), |key| {
        key.str(server);
    })
}

/// Pays what other lanes owe to servers.
pub(crate) struct Payer;

#[async_trait]
impl Apply for Payer {
    fn kind(&self) -> u16 {
        log::OUTGOING
    }

    async fn apply(
        &self,
        reader: &Reader,
        owed: &[&Owed],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        let mut post: Vec<(&str, Vec<Edu>)> = Vec::with_capacity(owed.len());
        for owed in owed {
            let Target::Server(server) = &owed.target else {
                continue;
            };
            match from_postcard(&owed.body) {
                Ok(edus) => post.push((server, edus)),
                // It won't be readable later either, and nothing behind it may wait for it.
                Err(error) => tracing::error!(%error, "messages owed to a server can't be read"),
            }
        }
        enqueue(reader, post, batch).await
    }
}

/// EDUs on their way to a server.
#[derive(Debug, Default)]
pub struct OnTheirWay {
    /// As they go onto the wire.
    pub edus: Vec<Box<RawValue>>,
    /// Whether there are more than these.
    pub more: bool,
    keys: Vec<InOutgoing>,
    /// The server's row as it was before they were read, if that can go with them.
    owed: Option<Pos>,
}

impl ToDevice {
    /// The servers for which something waits.
    ///
    /// # Errors
    /// The store's.
    pub async fn servers_owed(&self) -> Result<Vec<OwnedServerName>, ReadError> {
        let reader = self.0.tenant.reader();
        let rows = reader
            .scan::<OwedRows>(Range::everywhere(|_| {}))
            .await?
            .into_iter();
        Ok(rows
            .filter_map(|(Server(name), _)| name.try_into().ok())
            .collect())
    }

    /// The first `most` EDUs that wait for a server, those that are durable.
    ///
    /// # Errors
    /// The store's.
    pub async fn for_server(
        &self,
        server: &ServerName,
        most: usize,
    ) -> Result<OnTheirWay, ReadError> {
        let reader = self.0.tenant.reader();
        let bound = reader.bound(Home::Server(server.as_str()));
        let owed = reader.get::<OwedRows>(&Server(server.to_string())).await?;
        let Some(owed) = owed else {
            return Ok(OnTheirWay::default());
        };
        let range = of_server(server.as_str()).limit(most);
        let rows = reader.scan::<Outgoing>(range).await?;
        let more = rows.len() == most;
        // Those that aren't durable are told of when they are.
        let whole = !more && rows.iter().all(|(_, row)| row.pos <= bound);
        let mut found = OnTheirWay {
            more,
            owed: whole.then_some(owed.pos),
            ..OnTheirWay::default()
        };
        for (key, row) in rows.into_iter().filter(|(_, row)| row.pos <= bound) {
            found.keys.push(key);
            // Written by us, from JSON.
            found
                .edus
                .extend(RawValue::from_string(row.value.item.0).ok());
        }
        Ok(found)
    }

    /// Drops what waits for a server that isn't there any more, or never was.
    ///
    /// # Errors
    /// The store's; what is left waits on.
    pub async fn give_up(&self, server: &ServerName) -> Result<(), CommitError> {
        loop {
            let found = self.for_server(server, REMOVED).await?;
            let more = found.more;
            self.taken(server, found).await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// The server has these, or refused them for good.
    ///
    /// # Errors
    /// The commit's: they will go out again, under the same message ids.
    pub async fn taken(&self, server: &ServerName, edus: OnTheirWay) -> Result<(), CommitError> {
        let lane = self.0.tenant.lane(Home::Server(server.as_str()));
        if edus.keys.is_empty() && edus.owed.is_none() {
            return Ok(());
        }
        let remove = |owed: Option<Pos>| {
            let mut batch = lane.batch();
            for key in &edus.keys {
                batch.delete::<Outgoing>(key);
            }
            if let Some(owed) = owed {
                let server = Server(server.to_string());
                batch.expect::<OwedRows>(&server, Expect::At(owed));
                batch.delete::<OwedRows>(&server);
            }
            batch
        };
        match lane.commit(remove(edus.owed)).await {
            // Something has come meanwhile.
            Err(CommitError::Conflict(_)) => lane.commit(remove(None)).await.map(drop),
            done => done.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Threat F3: however much a client sends at once, no EDU is larger than other servers take, and each has an id of its own.
    #[test]
    fn f3_parcels_are_split_at_the_largest_edu() {
        let mut parcel = Parcel::default();
        let user = OwnedUserId::try_from("@u:x").unwrap();
        for n in 0..20 {
            let content = json!({ "n": n, "text": "x".repeat(10_000) }).to_string();
            let content = RawValue::from_string(content).unwrap();
            parcel.add(&user, format!("D{n}"), content);
        }
        let ids = std::cell::Cell::new(0);
        let edus = parcel.write(&user, "m.type \"", || {
            ids.set(ids.get() + 1);
            ids.get().to_string()
        });
        assert_eq!((edus.len(), ids.get()), (4, 4));
        let mut devices = Vec::new();
        for (n, Edu(text)) in edus.iter().enumerate() {
            assert!(text.len() <= MAX_EDU_BYTES);
            let edu: Value = serde_json::from_str(text).unwrap();
            assert_eq!(edu["edu_type"], "m.direct_to_device");
            assert_eq!(edu["content"]["sender"], "@u:x");
            assert_eq!(edu["content"]["type"], "m.type \"");
            assert_eq!(edu["content"]["message_id"], (n + 1).to_string());
            let messages = edu["content"]["messages"]["@u:x"].as_object().unwrap();
            devices.extend(messages.keys().cloned());
        }
        devices.sort_unstable();
        devices.dedup();
        assert_eq!(devices.len(), 20);
    }
}
