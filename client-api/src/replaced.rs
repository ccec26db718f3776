//! Rooms that come to be replaced while users of ours are in the new one already: by hand, or by
//! another server whose tombstone is late. What they made of the old room goes with them then.
//!
//! Whoever joins later takes it along as they join. Nothing is kept of how far the log was read: a
//! crash in the moment after a tombstone loses what would have been carried over.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-19>

use std::{sync::Weak, time::Duration};

use comity_protocol::{
    auth::Membership,
    id::{RoomId, UserId},
};
use comity_rooms::{log, state::Half};
use comity_storage::{Follower, Record};

use crate::{Api, ApiError, api::Capabilities, membership::carry_over};

/// Before the log is read again after it couldn't be.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the log as long as there is an API.
pub(crate) async fn follow(held: Weak<Capabilities>, mut log: Follower) {
    loop {
        let commits = match log.next().await {
            Ok(commits) => commits,
            Err(error) => {
                tracing::warn!(%error, "the log can't be read");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Some(api) = held.upgrade().map(Api::of) else {
            return;
        };
        let records = commits.iter().flat_map(|commit| &commit.records);
        for record in records.filter(|record| record.kind == log::kind::REPLACED) {
            if replaced(&api, record).await.is_err() {
                tracing::warn!(room_id = record.subject, "nothing could be carried over");
            }
        }
    }
}

async fn replaced(api: &Api, record: &Record) -> Result<(), ApiError> {
    let replaced: log::Replaced = log::read(record).map_err(comity_rooms::RoomError::from)?;
    let Ok(room_id) = <&RoomId>::try_from(replaced.by.as_str()) else {
        return Ok(());
    };
    if api.rooms.replaces(room_id).await?.is_none() {
        return Ok(());
    }
    let view = api.rooms.view(room_id).await?;
    for member in view.all_state(Some(Half::Members)).await? {
        let user = member.event.state_key();
        let user = user.and_then(|user| <&UserId>::try_from(user).ok());
        let Some(user) = user.filter(|user| user.server_name() == api.rooms.server_name()) else {
            continue;
        };
        if member.event.content_string("membership").as_deref() == Some(Membership::Join.as_str()) {
            carry_over(api, user, room_id).await?;
        }
    }
    Ok(())
}
