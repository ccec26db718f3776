//! What a device has left to be given away, as every sync tells it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync>

use std::collections::BTreeMap;

use comity_storage::{Pos, ReadError, Row};

use crate::{
    Keys,
    tables::{DeviceKey, Supplies, Supply},
};

/// Always counted, so that a client sees when it has none.
const COUNTED: &str = "signed_curve25519";

/// What a device has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// One-time keys by algorithm.
    pub one_time_keys: BTreeMap<String, u32>,
    /// Algorithms whose fallback key has not been given away.
    pub unused_fallback: Vec<String>,
    /// The position that changed it last, 0 if it is as it was in the beginning.
    pub pos: Pos,
}

impl Keys {
    /// What a device has left now.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn left(&self, user: &str, device: &str) -> Result<Left, ReadError> {
        let key = DeviceKey::new(user, device);
        let row = self.0.tenant.reader().get::<Supplies>(&key).await?;
        let pos = row.as_ref().map_or(0, |row| row.pos);
        let supply = of_incarnation(row, self.began_at(user));
        Ok(Left {
            one_time_keys: counts(&supply),
            unused_fallback: supply.unused_fallback,
            pos,
        })
    }
}

/// What a row says, if it was written in this incarnation: keys that were there before may have been given away in what was lost.
pub(crate) fn of_incarnation(row: Option<Row<Supply>>, began_at: Pos) -> Supply {
    row.filter(|row| row.pos > began_at)
        .map(|row| row.value)
        .unwrap_or_default()
}

/// The counts as clients are told.
pub(crate) fn counts(supply: &Supply) -> BTreeMap<String, u32> {
    let mut counts = supply.one_time_keys.clone();
    counts.entry(COUNTED.to_owned()).or_default();
    counts
}
