//! Following the logs: rooms that come to be replaced while users of ours are in the new one already.
//!
//! The cursor is stored with what was carried over, and now and then besides, so that a crash repeats little and
//! loses nothing.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use comity_accounts::AccountError;
use comity_protocol::id::RoomId;
use comity_rooms::{RoomError, log};
use comity_storage::{
    CommitError, Consumer, Follower, Heads, Home, Lane, Pos, ReadError, Record, Slot, Tenant,
};

use crate::{
    Inner, SuccessionError,
    tables::{Cursor, Cursors, LaneKey},
};

/// Before something is tried again that the store failed in.
const AGAIN: Duration = Duration::from_secs(1);
/// A lane's cursor is stored after so many positions in which there was nothing to do: storing it moves the log as
/// well, and would keep itself busy for ever.
const MOVED: Pos = 10_000;

/// Where the last run stopped. A lane that was never followed begins where it stands.
pub(crate) async fn load(tenant: &Tenant) -> Result<Heads, CommitError> {
    let mut cursor = tenant.heads();
    let reader = tenant.reader();
    for lane in tenant.lanes().all() {
        match reader.get::<Cursors>(&LaneKey(lane.0)).await? {
            Some(row) => cursor = cursor.with(lane, row.value.pos),
            None => store(tenant, lane, cursor.get(lane)).await?,
        }
    }
    Ok(cursor)
}

/// Begins to follow the logs, as long as somebody holds this.
pub(crate) fn begin(inner: &Arc<Inner>, from: Heads) {
    let consumer: Weak<dyn Consumer> = Arc::downgrade(inner) as _;
    let tenant = inner.rooms.tenant();
    tenant.keep_logs_for(consumer);
    let follow = follow(Arc::downgrade(inner), tenant.follow(from));
    drop(tenant.runtime().spawn("rooms replaced", follow));
}

async fn follow(held: Weak<Inner>, mut log: Follower) {
    loop {
        let commits = match log.next().await {
            Ok(commits) => commits,
            Err(error) => {
                tracing::warn!(%error, "the log can't be read");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let mut touched = BTreeSet::new();
        for commit in commits {
            for record in &commit.records {
                if record.kind == log::kind::REPLACED {
                    touched.insert(commit.lane);
                    if !settle(&held, record).await {
                        return;
                    }
                }
            }
        }
        let Some(inner) = held.upgrade() else { return };
        *inner.followed.lock() = log.cursor().clone();
        if let Err(error) = inner.save(&touched, MOVED).await {
            tracing::warn!(%error, "how far the log was followed could not be stored");
        }
    }
}

/// Does what a record asks for, however often the store fails in it; whether there is anybody to go on.
async fn settle(held: &Weak<Inner>, record: &Record) -> bool {
    loop {
        let Some(inner) = held.upgrade() else {
            return false;
        };
        match inner.replaced(record).await {
            Ok(()) => return true,
            Err(error) => {
                tracing::warn!(room_id = record.subject, %error, "nothing could be carried over");
                if !may_pass(&error) {
                    return true;
                }
            }
        }
        drop(inner);
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether an error is the store's for now, not one of what is stored.
fn may_pass(error: &SuccessionError) -> bool {
    matches!(
        error,
        SuccessionError::Room(RoomError::Read(ReadError::Engine(_)) | RoomError::Commit(_))
            | SuccessionError::Account(
                AccountError::Read(ReadError::Engine(_))
                    | AccountError::Commit(_)
                    | AccountError::Busy(_)
            )
    )
}

#[async_trait]
impl Consumer for Inner {
    async fn done(&self) -> Result<Heads, CommitError> {
        self.save(&BTreeSet::new(), 1).await
    }
}

impl Inner {
    /// Carries over what those made of a room who are in the one that replaces it.
    async fn replaced(&self, record: &Record) -> Result<(), SuccessionError> {
        let replaced: log::Replaced = log::read(record).map_err(RoomError::from)?;
        let Ok(room_id) = <&RoomId>::try_from(replaced.by.as_str()) else {
            return Ok(());
        };
        if self.rooms.replaces(room_id).await?.is_none() {
            return Ok(());
        }
        let view = self.rooms.view(room_id).await?;
        for user in view.joined_here().await? {
            self.carry_over(&user, room_id).await?;
        }
        Ok(())
    }

    /// Stores the cursors of these lanes, and those that have come so much further; where they are then.
    async fn save(&self, touched: &BTreeSet<Lane>, moved: Pos) -> Result<Heads, CommitError> {
        let mut saved = self.saved.lock().await;
        let followed = self.followed.lock().clone();
        let tenant = self.rooms.tenant();
        for lane in tenant.lanes().all() {
            let (from, to) = (saved.get(lane), followed.get(lane));
            let is_due = touched.contains(&lane) || to >= from.saturating_add(moved);
            if to > from && is_due {
                store(tenant, lane, to).await?;
                *saved = saved.with(lane, to);
            }
        }
        Ok(saved.clone())
    }
}

async fn store(tenant: &Tenant, lane: Lane, pos: Pos) -> Result<(), CommitError> {
    let writer = tenant.lane(Home::Fixed(Slot::new(lane.0)));
    let mut batch = writer.batch();
    batch.put::<Cursors>(&LaneKey(lane.0), &Cursor { pos });
    writer.commit(batch).await.map(drop)
}
