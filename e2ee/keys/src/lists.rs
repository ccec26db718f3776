//! Device lists as they change: a stream id for other servers, an entry in the order of changes for everybody.
//!
//! A stream id counts a user's changes; a new incarnation begins far beyond those of the last, at a number that was never sent: who
//! has heard of changes that are lost here misses the one before, and asks.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use comity_storage::{
    At, Batch, Expect, Heads, Home, Pos, Range, ReadError, Reader, Row, Slot, Tenant, key::SLOTS,
};

use crate::{
    Keys,
    change::{DeviceUpdate, ListChanged},
    tables::{ChangeKey, ChangedFor, Changes, List, Lists, UserKey},
};

/// A list that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whose.
    pub user: String,
    /// Only this user is to learn of it.
    pub only: Option<String>,
}

/// What changed of a user's list.
#[derive(Default)]
pub(crate) struct News<'a> {
    /// These devices, of a user of ours.
    pub devices: &'a [String],
    /// The cross-signing keys.
    pub cross_signing: bool,
    /// Something that users see.
    pub shown: bool,
}

/// Adds a change of a user's list to the batch that makes it.
pub(crate) async fn note(
    tenant: &Tenant,
    reader: &Reader,
    user: &str,
    news: News<'_>,
    batch: &mut Batch,
) -> Result<(), ReadError> {
    let key = UserKey(user.to_owned());
    let row = reader.get::<Lists>(&key).await?;
    let was = row
        .as_ref()
        .map_or(Expect::Absent, |row| Expect::At(row.pos));
    batch.expect::<Lists>(&key, was);
    let shown_at = row.as_ref().map(shown_at);
    let mut list = row.map(|row| row.value).unwrap_or_default();
    let begin = tenant.birth().counts_after();
    let mut devices = Vec::with_capacity(news.devices.len());
    for device in news.devices {
        let prev = list.id.max(begin);
        let id = prev + 1;
        list = List {
            id,
            prev,
            device: device.clone(),
            ..list
        };
        devices.push(DeviceUpdate {
            device: device.clone(),
            id,
            prev,
        });
    }
    if news.shown {
        let change = |pos| ChangeKey {
            slot: Home::User(user).slot().number(),
            pos,
            user: user.to_owned(),
        };
        if let Some(pos) = shown_at {
            batch.delete::<Changes>(&change(At::Is(pos)));
        }
        batch.put::<Changes>(&change(At::Commit), &ChangedFor::default());
        list.shown_at = None;
    } else {
        list.shown_at = Some(shown_at.unwrap_or(0));
    }
    batch.put::<Lists>(&key, &list);
    let changed = ListChanged {
        devices,
        cross_signing: news.cross_signing,
        shown: news.shown,
        only: None,
    };
    batch.log(changed.record(user));
    Ok(())
}

/// Adds to a batch of `signer`'s that they signed a key of another user's, which only they see. `before` is when they did so before.
pub(crate) fn note_signed(
    signer: &str,
    target: &str,
    before: impl IntoIterator<Item = Pos>,
    batch: &mut Batch,
) {
    for pos in before {
        forget_signed(signer, target, pos, batch);
    }
    let only = Some(signer.to_owned());
    let key = signed_at(signer, target, At::Commit);
    batch.put::<Changes>(&key, &ChangedFor { only: only.clone() });
    let changed = ListChanged {
        only,
        shown: true,
        ..ListChanged::default()
    };
    batch.log(changed.record(target));
}

/// Takes back that `signer` signed a key of another user's by the commit at this position.
pub(crate) fn forget_signed(signer: &str, target: &str, pos: Pos, batch: &mut Batch) {
    batch.delete::<Changes>(&signed_at(signer, target, At::Is(pos)));
}

fn signed_at(signer: &str, target: &str, pos: At) -> ChangeKey {
    ChangeKey {
        slot: Home::User(signer).slot().number(),
        pos,
        user: target.to_owned(),
    }
}

/// Where the entry of a list in the order of changes stands.
fn shown_at(row: &Row<List>) -> Pos {
    row.value.shown_at.unwrap_or(row.pos)
}

impl Keys {
    /// The lists whose latest change is after `from` and not beyond what the reader may see.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn changed_since(
        &self,
        reader: &Reader,
        from: &Heads,
    ) -> Result<Vec<Changed>, ReadError> {
        let lanes = self.0.tenant.lanes();
        let ranges = (0..SLOTS).filter_map(|slot| {
            let home = Home::Fixed(Slot::new(slot));
            let from = from.get(lanes.of(home.slot()));
            let to = reader.bound(home);
            (from < to).then(|| {
                Range::of(home, |key| {
                    key.u8(slot);
                })
                .from(|key| {
                    key.u64(from + 1);
                })
                .until(|key| {
                    key.u64(to + 1);
                })
            })
        });
        let ranges: Vec<Range> = ranges.collect();
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let rows = reader.scan_many::<Changes>(ranges).await?;
        let changed = rows.into_iter().flatten().map(|(key, row)| Changed {
            user: key.user,
            only: row.value.only,
        });
        Ok(changed.collect())
    }
}
