//! How users show themselves: <https://spec.matrix.org/v1.19/client-server-api/#profiles>.

mod field;
mod whole;

use axum::routing::get;
use comity_accounts::Limit;
use comity_protocol::id::UserId;
use serde_json::{Map, Value};

use crate::{Address, Api, ApiError, Routes};

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/profile/{user}", get(whole::get)).v3(
        "/profile/{user}/{field}",
        get(field::get).put(field::put).delete(field::delete),
    )
}

/// A user's profile, or one field of it; another server's users are asked for there, each time anew.
async fn profile_of(
    api: &Api,
    address: &Address,
    user: &UserId,
    field: Option<&str>,
) -> Result<Map<String, Value>, ApiError> {
    if user.server_name() == api.rooms.server_name() {
        return Ok(api.accounts.profile(user.as_str()).await?);
    }
    api.limit(Limit::Elsewhere, &address.0)?;
    Ok(api.rooms.profile_elsewhere(user, field).await?)
}
