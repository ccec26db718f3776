//! One's devices: <https://spec.matrix.org/v1.19/client-server-api/#device-management>.

mod delete_devices;
mod device;
mod list;

use axum::routing::{get, post};
use comity_accounts::DeviceInfo;
use serde::Serialize;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/devices", get(list::get))
        .v3(
            "/devices/{device_id}",
            get(device::get).put(device::put).delete(device::delete),
        )
        .v3("/delete_devices", post(delete_devices::post))
}

/// A device as its owner sees it.
#[derive(Serialize)]
struct Device {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ts: Option<u64>,
}

impl From<DeviceInfo> for Device {
    fn from(info: DeviceInfo) -> Self {
        let (last_seen_ts, last_seen_ip) = info.seen.map(|seen| (seen.ts, seen.ip)).unzip();
        Self {
            device_id: info.device_id,
            display_name: info.display_name,
            last_seen_ip,
            last_seen_ts,
        }
    }
}
