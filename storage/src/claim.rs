//! Claims to lanes: an epoch row that every write of the lane must find unchanged (law 3).
//!
//! Each claim raises the epoch and bears a number of its own, so that two who claim at once can
//! tell whose it is, and one whose claim's answer was lost can look whether it stands.

use bytes::Bytes;
use comity_runtime::Runtime;

use crate::{
    engine::{Engine, Fence, RowKey},
    error::{CommitError, ReadError},
    key::{Key, Lane, TenantId},
    system::{Epoch, Epochs, Head, LaneHeads, LaneKey},
    table::{self, Row, Table},
};

/// A lane that is ours as long as the epoch row says so.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub fence: Fence,
    pub epoch: u64,
}

impl Claim {
    fn new(tenant: TenantId, lane: Lane, epoch: u64, runtime: &Runtime) -> Self {
        let owner = runtime.random().u64();
        let value = table::write_value::<Epochs>(&Epoch { epoch, owner });
        let fence = Fence {
            tenant,
            lane,
            row: row_of::<Epochs>(tenant, &LaneKey(lane)),
            epoch: value.into(),
        };
        Self { fence, epoch }
    }

    /// The claim that would follow this one.
    pub fn next(&self, runtime: &Runtime) -> Self {
        Self::new(self.fence.tenant, self.fence.lane, self.epoch + 1, runtime)
    }

    /// Takes a lane from whoever has it.
    pub async fn take(
        engine: &Engine,
        runtime: &Runtime,
        tenant: TenantId,
        lane: Lane,
    ) -> Result<Self, CommitError> {
        let row = row_of::<Epochs>(tenant, &LaneKey(lane));
        let stored = get(engine, &row).await?;
        let last = stored
            .as_ref()
            .map(|value| table::read_value::<Epochs>(value))
            .transpose()
            .map_err(ReadError::from)?
            .map_or(0, |row| row.value.epoch);
        let claim = Self::new(tenant, lane, last + 1, runtime);
        let epoch = &claim.fence.epoch;
        engine.claim(&row, stored.as_ref(), epoch).await?;
        Ok(claim)
    }

    /// Follows this claim by `next`, so that a write of ours still on its way can't land any more.
    /// May be called again with the same `next` when the answer was lost.
    pub async fn renew(&self, engine: &Engine, next: &Self) -> Result<(), CommitError> {
        let (old, new) = (&self.fence.epoch, &next.fence.epoch);
        let mut tries = 0;
        loop {
            let stored = get(engine, &self.fence.row).await?;
            if stored.as_ref() == Some(new) {
                return Ok(());
            }
            if stored.as_ref() != Some(old) {
                return Err(CommitError::Fenced);
            }
            match engine.claim(&self.fence.row, Some(old), new).await {
                // An earlier try of ours may have come in between.
                Err(CommitError::Fenced) if tries == 0 => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Whether the lane is still ours.
    pub async fn stands(&self, engine: &Engine) -> Result<bool, ReadError> {
        Ok(get(engine, &self.fence.row).await?.as_ref() == Some(&self.fence.epoch))
    }
}

/// The head of a lane as stored.
pub(crate) async fn head(
    engine: &Engine,
    tenant: TenantId,
    lane: Lane,
) -> Result<Option<Head>, ReadError> {
    Ok(read::<LaneHeads>(engine, tenant, &LaneKey(lane))
        .await?
        .map(|row| row.value))
}

/// A row of the store's own.
pub(crate) async fn read<T: Table>(
    engine: &Engine,
    tenant: TenantId,
    key: &T::Key,
) -> Result<Option<Row<T::Value>>, ReadError> {
    let value = get(engine, &row_of::<T>(tenant, key)).await?;
    Ok(value.map(|v| table::read_value::<T>(&v)).transpose()?)
}

/// The address of a row.
pub(crate) fn row_of<T: Table>(tenant: TenantId, key: &T::Key) -> RowKey {
    let (bytes, _) = table::key_of::<T>(tenant, key);
    RowKey {
        family: T::FAMILY,
        slot: key.home().slot(),
        key: bytes.into(),
    }
}

async fn get(engine: &Engine, row: &RowKey) -> Result<Option<Bytes>, ReadError> {
    let mut found = engine.get_many(std::slice::from_ref(row)).await?;
    Ok(found.pop().flatten())
}
