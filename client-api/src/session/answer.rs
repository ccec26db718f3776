//! What whoever signed in is told, by login and by registration.

use comity_accounts::Issued;
use serde::Serialize;

use crate::Api;

/// A session and its tokens.
#[derive(Serialize)]
pub(crate) struct SignedIn {
    user_id: String,
    device_id: String,
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
    /// Deprecated, and still read by clients.
    home_server: String,
}

impl SignedIn {
    pub(crate) fn new(api: &Api, issued: Issued) -> Self {
        Self {
            user_id: issued.user_id,
            device_id: issued.device_id,
            access_token: issued.access_token,
            refresh_token: issued.refresh_token,
            expires_in_ms: issued.expires_in_ms,
            home_server: api.rooms.server_name().to_string(),
        }
    }
}
