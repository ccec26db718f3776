//! `GET /admin/whois/{userId}`: from where a user's devices were last seen; for administrators, and for the user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_accounts::DeviceInfo;
use comity_protocol::id::OwnedUserId;
use serde::Serialize;

use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Answer {
    user_id: OwnedUserId,
    devices: BTreeMap<String, Device>,
}

/// A device has one session at a time, and of that the last connection is kept.
#[derive(Serialize)]
struct Device {
    sessions: [Session; 1],
}

#[derive(Serialize)]
struct Session {
    connections: Vec<Connection>,
}

#[derive(Serialize)]
struct Connection {
    ip: String,
    last_seen: u64,
    user_agent: String,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
) -> Result<Json<Answer>, ApiError> {
    if user.id != of {
        user.must_be_admin()?;
    }
    if api.accounts.user(of.as_str()).await?.is_none() {
        return Err(ApiError::not_found("User not found"));
    }
    let devices = api.accounts.devices(of.as_str()).await?;
    Ok(Json(Answer {
        user_id: of,
        devices: devices.into_iter().map(device).collect(),
    }))
}

fn device(info: DeviceInfo) -> (String, Device) {
    let seen = info.seen.map(|seen| Connection {
        ip: seen.ip,
        last_seen: seen.ts,
        user_agent: seen.user_agent,
    });
    let connections = seen.into_iter().collect();
    let sessions = [Session { connections }];
    (info.device_id, Device { sessions })
}
