//! What a user's clients keep on the server: <https://spec.matrix.org/v1.19/client-server-api/#client-config>.

mod global;
mod room;
mod tag;
mod tags;

use axum::routing::{delete, get, put};
use comity_accounts::AccountError;
use http::StatusCode;

use crate::{ApiError, Routes};

/// Where account data is deleted, as long as that is a draft.
const MSC3391: &str = "/_matrix/client/unstable/org.matrix.msc3391";

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3(
            "/user/{user}/account_data/{type}",
            get(global::get).put(global::put),
        )
        .v3(
            "/user/{user}/rooms/{room}/account_data/{type}",
            get(room::get).put(room::put),
        )
        .v3("/user/{user}/rooms/{room}/tags", get(tags::get))
        .v3(
            "/user/{user}/rooms/{room}/tags/{tag}",
            put(tag::put).delete(tag::delete),
        )
        .at(
            &format!("{MSC3391}/user/{{user}}/account_data/{{type}}"),
            delete(global::delete),
        )
        .at(
            &format!("{MSC3391}/user/{{user}}/rooms/{{room}}/account_data/{{type}}"),
            delete(room::delete),
        )
}

/// Types that the server writes itself are 405 `M_BAD_JSON`.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-13>
fn refused(error: AccountError) -> ApiError {
    match error {
        AccountError::Forbidden(text) => {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", text)
        }
        other => other.into(),
    }
}
