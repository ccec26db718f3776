//! What is new: <https://spec.matrix.org/v1.19/client-server-api/#syncing>, and the ways of before.

mod events;
mod filter;
mod initial_sync;
mod sliding;
#[expect(
    clippy::module_inception,
    reason = "the endpoint is called like its group"
)]
mod sync;

use std::pin::Pin;

use axum::routing::{get, post};
use comity_accounts::AccountError;

use crate::{ApiError, Routes, User};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/events", get(events::get))
        .v3("/initialSync", get(initial_sync::get))
        .v3("/sync", get(sync::get))
        .at(sliding::simplified::PATH, post(sliding::simplified::post))
        .at(sliding::v4::PATH, post(sliding::v4::post))
        .at(
            sliding::thread_updates::PATH,
            get(sliding::thread_updates::get),
        )
        .v3("/user/{user_id}/filter", post(filter::post))
        .v3("/user/{user_id}/filter/{filter_id}", get(filter::get))
}

/// Waits for an answer as long as the session lasts: what happens after its end is not for it to see.
///
/// The answer is pinned by the caller: moved in here, it would take its room twice for as long as somebody waits.
async fn while_signed_in<T>(
    user: &User,
    answer: Pin<&mut impl Future<Output = Result<T, ApiError>>>,
) -> Result<T, ApiError> {
    tokio::select! {
        biased;
        () = user.session.ended() => Err(AccountError::UnknownToken { soft_logout: false }.into()),
        answer = answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        events,
        sliding::{simplified, v4},
        sync,
    };

    /// W4 asks for 20 kB a waiting client, of which hyper's buffers take ten and the connection three.
    const MOST: usize = 4 << 10;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// W4: what a request holds while it waits, whichever way it asks.
    #[test]
    fn w4_what_waits_is_small() {
        let simplified = size(|api, user, (query, body)| simplified::post(api, user, query, body));
        for (name, size) in [
            ("sync", size(sync::get)),
            ("events", size(events::get)),
            ("v4", size(v4::post)),
            ("simplified", simplified),
        ] {
            assert!(size <= MOST, "{name}: {size}");
        }
    }
}
