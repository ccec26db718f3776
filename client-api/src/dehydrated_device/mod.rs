//! A device that nobody signs in by, and what it is sent: MSC3814, a draft.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

mod device;
mod events;

use axum::routing::get;

use crate::Routes;

const AT: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

pub(crate) fn routes() -> Routes {
    Routes::new()
        .at(AT, get(device::get).put(device::put).delete(device::delete))
        .at(
            &format!("{AT}/{{device_id}}/events"),
            get(events::get).post(events::post),
        )
}
