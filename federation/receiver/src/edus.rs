//! EDUs: what is told once and not kept, or kept only as its latest.
//!
//! Each is of users of the server that sent it, or ignored (threat F1); what is about a room counts
//! only from a server that the room lets in (F9) and for users who are in it. What can't be read, or
//! isn't known here, is ignored.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#edus>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use comity_accounts::presence::State;
use comity_keys::{KeysError, PeerSigningUpdate, PeerUpdate};
use comity_protocol::{
    auth::Membership,
    id::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId},
};
use comity_rooms::RoomError;
use comity_storage::{CommitError, ReadError, RoomKey};
use comity_to_device::DirectToDevice;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{Inner, tables::Line};

/// A user of another server types for so long after the last word of it, should its end get lost.
const TYPES: Duration = Duration::from_secs(60);
/// Presences and receipts taken of one transaction.
const MOST: usize = 1_000;
/// How long receipts wait for the events that came with them.
const SETTLES: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
pub(crate) struct Edu {
    edu_type: String,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

/// Room → `m.read` → user → receipt.
type Receipts = BTreeMap<OwnedRoomId, BTreeMap<String, BTreeMap<OwnedUserId, Receipt>>>;

#[derive(Deserialize)]
struct Receipt {
    event_ids: Vec<OwnedEventId>,
    data: ReceiptData,
}

#[derive(Deserialize)]
struct ReceiptData {
    ts: u64,
    thread_id: Option<String>,
}

#[derive(Deserialize)]
struct Presence {
    push: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Push {
    user_id: OwnedUserId,
    presence: String,
    status_msg: Option<String>,
    last_active_ago: Option<u64>,
    #[serde(default)]
    currently_active: bool,
}

impl Inner {
    /// Takes the messages to devices, which must not be lost: they are in their queues when this returns. The other EDUs.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>
    pub(crate) async fn messages(
        &self,
        origin: &ServerName,
        edus: Vec<Box<RawValue>>,
    ) -> Result<Vec<Edu>, CommitError> {
        let mut messages: Vec<DirectToDevice> = Vec::new();
        let mut others = Vec::new();
        for edu in edus.iter().filter_map(|edu| read::<Edu>(edu)) {
            if edu.edu_type == "m.direct_to_device" {
                messages.extend(read::<DirectToDevice>(&edu.content));
            } else {
                others.push(edu);
            }
        }
        self.to_device.receive(origin, messages).await?;
        Ok(others)
    }

    /// Takes the EDUs of a transaction whose events are in these lines.
    ///
    /// # Errors
    /// The store could not keep what is told once: the transaction is to be sent again.
    pub(crate) async fn edus(
        &self,
        origin: &ServerName,
        edus: Vec<Edu>,
        lines: &BTreeSet<Line>,
    ) -> Result<(), CommitError> {
        let mut left = MOST;
        for edu in edus {
            let taken = match edu.edu_type.as_str() {
                "m.typing" => self.typing(origin, &edu.content).await,
                "m.receipt" => self.receipts(origin, &edu.content, lines, &mut left).await,
                "m.device_list_update" => {
                    self.device_list(origin, &edu.content).await?;
                    Ok(())
                }
                "m.signing_key_update" => {
                    self.signing_keys(origin, &edu.content).await?;
                    Ok(())
                }
                "m.presence" => self.presence(origin, &edu.content, &mut left).await,
                _ => Ok(()),
            };
            if let Err(error) = taken {
                tracing::debug!(%origin, %error, "an EDU was not taken");
            }
        }
        Ok(())
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#typing-notifications>
    async fn typing(&self, origin: &ServerName, content: &RawValue) -> Result<(), RoomError> {
        let Some(typing) = read::<Typing>(content) else {
            return Ok(());
        };
        if self.is_in(origin, &typing.user_id, &typing.room_id).await? {
            let until = typing.typing.then_some(TYPES);
            let rooms = self.rooms.typing();
            rooms.set(&typing.room_id, &typing.user_id, until);
        }
        Ok(())
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#receipts>
    async fn receipts(
        &self,
        origin: &ServerName,
        content: &RawValue,
        lines: &BTreeSet<Line>,
        left: &mut usize,
    ) -> Result<(), RoomError> {
        for (room_id, mut kinds) in read::<Receipts>(content).unwrap_or_default() {
            let line = Line {
                room: RoomKey::of(room_id.as_str()),
                origin: origin.to_owned(),
            };
            // What was read may have come in the same transaction.
            if lines.contains(&line) {
                drop(timeout(SETTLES, self.staging.ended(&line)).await);
            }
            for (user, receipt) in kinds.remove("m.read").unwrap_or_default() {
                let Some(event_id) = receipt.event_ids.last() else {
                    continue;
                };
                if *left == 0 || !self.is_in(origin, &user, &room_id).await? {
                    continue;
                }
                *left -= 1;
                let ReceiptData { ts, thread_id } = receipt.data;
                let thread = thread_id.as_deref();
                let moved = self
                    .rooms
                    .receive_receipt(&user, &room_id, event_id, thread, ts);
                if let Err(error) = moved.await {
                    tracing::debug!(%origin, %error, "a receipt was not taken");
                }
            }
        }
        Ok(())
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#presence>
    async fn presence(
        &self,
        origin: &ServerName,
        content: &RawValue,
        left: &mut usize,
    ) -> Result<(), RoomError> {
        let pushed = read::<Presence>(content).map_or_else(Vec::new, |presence| presence.push);
        for push in pushed.iter().filter_map(|push| read::<Push>(push)) {
            let Some(state) = State::parse(&push.presence) else {
                continue;
            };
            if *left == 0 || push.user_id.server_name() != origin {
                continue;
            }
            *left -= 1;
            // Who shares no room with us is nobody's to ask about, and there may be any number of them.
            if self.is_known(&push.user_id).await? {
                let ago = if push.currently_active {
                    Some(Duration::ZERO)
                } else {
                    push.last_active_ago.map(Duration::from_millis)
                };
                let presence = self.accounts.presence();
                presence.hear(push.user_id.as_str(), state, push.status_msg, ago);
            }
        }
        Ok(())
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#definition-mdevice_list_update>
    async fn device_list(
        &self,
        origin: &ServerName,
        content: &RawValue,
    ) -> Result<(), CommitError> {
        match read::<PeerUpdate>(content) {
            Some(update) => kept(origin, self.keys.receive_update(origin, update).await),
            None => Ok(()),
        }
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#definition-msigning_key_update>
    async fn signing_keys(
        &self,
        origin: &ServerName,
        content: &RawValue,
    ) -> Result<(), CommitError> {
        match read::<PeerSigningUpdate>(content) {
            Some(update) => kept(
                origin,
                self.keys.receive_signing_update(origin, update).await,
            ),
            None => Ok(()),
        }
    }

    /// Whether a user is of this server, in the room, and the room lets the server take part.
    async fn is_in(
        &self,
        origin: &ServerName,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<bool, RoomError> {
        if user.server_name() != origin {
            return Ok(false);
        }
        let is_joined = match self.rooms.member(user, room_id).await? {
            Some(row) => row.value.membership() == Membership::Join,
            // Whose members haven't come yet: the server is taken at its word.
            None => match self.rooms.view(room_id).await {
                Err(RoomError::UnknownRoom) => false,
                view => {
                    let view = view?;
                    view.root().is_partial() && view.has_server(origin).await?
                }
            },
        };
        Ok(is_joined && self.rooms.lets_in(origin, room_id).await?)
    }

    /// Whether a user is in any room of ours.
    async fn is_known(&self, user: &UserId) -> Result<bool, RoomError> {
        let joined = self.rooms.rooms_with(user, Membership::Join).await?;
        Ok(!joined.is_empty())
    }
}

/// What came of an update of keys. The next of its kind may not show that this one is missing, so what the store did not take has to
/// come again; what is damaged here would be so then too.
fn kept(origin: &ServerName, outcome: Result<(), KeysError>) -> Result<(), CommitError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(KeysError::Commit(error)) => Err(error),
        Err(KeysError::Read(error @ ReadError::Engine(_))) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%origin, %error, "an update of keys was not taken");
            Ok(())
        }
    }
}

fn read<T: DeserializeOwned>(json: &RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}
