//! `GET /capabilities`: what users of this server can do.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_protocol::room_version::RoomVersion;
use serde_json::{Value, json};

use crate::{Api, Json, User};

pub(super) async fn get(State(api): State<Api>, user: User) -> Json<Value> {
    let available: BTreeMap<&str, &str> = RoomVersion::ALL
        .iter()
        .map(|version| (version.as_str(), "stable"))
        .collect();
    let may_act = user.may_act().is_ok();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.set_displayname": { "enabled": may_act },
        "m.set_avatar_url": { "enabled": may_act },
        "m.profile_fields": { "enabled": may_act },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": true },
        "m.room_versions": {
            "default": api.rooms.default_version().as_str(),
            "available": available,
        },
        "org.comity.encryption": { "rooms": api.rooms.encryption().as_str() },
        "org.comity.url_previews": { "enabled": api.media.previews_pages() },
    });
    // Left out for those who may do neither.
    if user.must_be_admin().is_ok()
        && let Some(capabilities) = capabilities.as_object_mut()
    {
        let may = json!({ "suspend": true, "lock": true });
        capabilities.insert("m.account_moderation".to_owned(), may);
    }
    Json(json!({ "capabilities": capabilities }))
}
