//! What keys need of others: of other servers what they know of their users, of rooms who shares one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use comity_protocol::id::{ServerName, UserId};
use comity_storage::{Heads, ReadError};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{Claimed, Wanted};

/// Another server brought no answer; the text is for whoever asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// Another server's answer about its users' keys.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery>
#[derive(Debug, Default, Deserialize)]
pub struct PeerKeys {
    /// User → device → identity keys.
    #[serde(default, deserialize_with = "or_nothing")]
    pub device_keys: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    /// Master keys.
    #[serde(default, deserialize_with = "or_nothing")]
    pub master_keys: BTreeMap<String, Box<RawValue>>,
    /// Self-signing keys.
    #[serde(default, deserialize_with = "or_nothing")]
    pub self_signing_keys: BTreeMap<String, Box<RawValue>>,
}

/// Another server's answer about one user's list.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>
#[derive(Debug, Deserialize)]
pub struct PeerDevices {
    /// Up to which change it is complete.
    pub stream_id: u64,
    /// The devices.
    #[serde(deserialize_with = "or_nothing")]
    pub devices: Vec<PeerDevice>,
    /// The master key.
    pub master_key: Option<Box<RawValue>>,
    /// The self-signing key.
    pub self_signing_key: Option<Box<RawValue>>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub struct PeerDevice {
    /// Its id.
    pub device_id: String,
    /// Its identity keys.
    pub keys: Option<Box<RawValue>>,
    /// Its name.
    pub device_display_name: Option<String>,
}

/// Reads `null` as nothing, for so some servers write what has nothing in it.
fn or_nothing<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Asks other servers.
#[async_trait]
pub trait Elsewhere: Send + Sync {
    /// The keys of a server's users.
    async fn query(&self, server: &ServerName, users: &[&str]) -> Result<PeerKeys, Unreachable>;

    /// One-time keys of a server's users.
    async fn claim(&self, server: &ServerName, wanted: &Wanted) -> Result<Claimed, Unreachable>;

    /// The list of a user of another server.
    async fn devices(&self, user: &UserId) -> Result<PeerDevices, Unreachable>;
}

/// Knows who is in a room with whom.
#[async_trait]
pub trait Neighbours: Send + Sync {
    /// Whether a user of another server is in a room with anybody of ours, as far as can be known.
    async fn is_near(&self, user: &UserId) -> Result<bool, ReadError>;

    /// Whether each of these users is in a room with `viewer` in which both have been all the time since the positions beside them.
    async fn are_since(
        &self,
        viewer: &UserId,
        users: &[(&UserId, Heads)],
    ) -> Result<Vec<bool>, ReadError>;
}
