//! Reading: typed rows, batch-first, each call one round trip to the engine.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    batch::after_prefix,
    engine::{RowKey, Scan},
    error::ReadError,
    heads::{Heads, Pos},
    key::{Home, Key, KeyWriter, Slot},
    store::Shared,
    table::{self, Family, Row, Table},
};

/// Rows appended and not yet readable in the engine: `None` is a deletion.
pub(crate) type Overlay = RwLock<BTreeMap<(Family, Bytes), (Pos, Option<Bytes>)>>;

/// Reads a tenant's rows. One from [`crate::Tenant::reader`] sees what the engine has and knows the
/// published heads; what it does with a row newer than those is decided by the row's kind. One
/// from [`crate::LaneWriter::reader`] also sees what its lane has appended.
///
/// It holds no connection and no transaction between calls, and is cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) overlay: Option<Arc<Overlay>>,
    pub(crate) bound: Heads,
}

/// Which rows of a table to scan.
#[derive(Debug, Clone)]
pub struct Range {
    slot: Option<Slot>,
    prefix: KeyWriter,
    from: Option<KeyWriter>,
    until: Option<KeyWriter>,
    reverse: bool,
    limit: usize,
}

impl Range {
    /// The rows of one home whose fields begin as `prefix` writes them.
    pub fn of(home: Home<'_>, prefix: impl FnOnce(&mut KeyWriter)) -> Self {
        Self {
            slot: Some(home.slot()),
            ..Self::everywhere(prefix)
        }
    }

    /// The rows of any home whose fields begin so.
    pub fn everywhere(prefix: impl FnOnce(&mut KeyWriter)) -> Self {
        let mut fields = KeyWriter::default();
        prefix(&mut fields);
        Self {
            slot: None,
            prefix: fields,
            from: None,
            until: None,
            reverse: false,
            limit: usize::MAX,
        }
    }

    /// Only from these further fields on.
    #[must_use]
    pub fn from(mut self, fields: impl FnOnce(&mut KeyWriter)) -> Self {
        let mut from = self.prefix.clone();
        fields(&mut from);
        self.from = Some(from);
        self
    }

    /// Only before these further fields.
    #[must_use]
    pub fn until(mut self, fields: impl FnOnce(&mut KeyWriter)) -> Self {
        let mut until = self.prefix.clone();
        fields(&mut until);
        self.until = Some(until);
        self
    }

    /// The last ones first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// So many at the most.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

impl Reader {
    /// How far it may see the lane of this home.
    pub fn bound(&self, home: Home<'_>) -> Pos {
        self.bound.get(self.shared.lanes.of(home.slot()))
    }

    /// How far it may see, lane by lane.
    pub fn heads(&self) -> &Heads {
        &self.bound
    }

    /// The same with another bound: an older one, a token's.
    #[must_use]
    pub fn at(&self, bound: Heads) -> Self {
        Self {
            bound,
            ..self.clone()
        }
    }

    /// A row.
    pub async fn get<T: Table>(&self, key: &T::Key) -> Result<Option<Row<T::Value>>, ReadError> {
        Ok(self
            .get_many::<T>(std::slice::from_ref(key))
            .await?
            .pop()
            .flatten())
    }

    /// Rows, in the order of the keys: one round trip.
    pub async fn get_many<T: Table>(
        &self,
        keys: &[T::Key],
    ) -> Result<Vec<Option<Row<T::Value>>>, ReadError> {
        let rows: Vec<RowKey> = keys
            .iter()
            .map(|key| {
                let (bytes, _) = table::key_of::<T>(self.shared.tenant, key);
                RowKey {
                    family: T::FAMILY,
                    slot: key.home().slot(),
                    key: bytes.into(),
                }
            })
            .collect();
        let values = self.raw(&rows).await?;
        values
            .into_iter()
            .map(|value| value.map(|v| Ok(table::read_value::<T>(&v)?)).transpose())
            .collect()
    }

    /// Rows of a range, in order.
    pub async fn scan<T: Table>(
        &self,
        range: Range,
    ) -> Result<Vec<(T::Key, Row<T::Value>)>, ReadError> {
        Ok(self
            .scan_many::<T>(vec![range])
            .await?
            .pop()
            .unwrap_or_default())
    }

    /// Rows of several ranges: one round trip.
    pub async fn scan_many<T: Table>(
        &self,
        ranges: Vec<Range>,
    ) -> Result<Vec<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        let scans: Vec<Scan> = ranges
            .into_iter()
            .map(|range| self.scan_of::<T>(range))
            .collect();
        // The overlay first: a row leaves it only once the engine has it.
        let appended: Vec<_> = scans.iter().map(|scan| self.appended(scan)).collect();
        let mut found = self.shared.scan_many(&scans).await?;
        for ((scan, appended), rows) in scans.iter().zip(appended).zip(&mut found) {
            self.lay_over(appended, scan, rows).await?;
        }
        found
            .into_iter()
            .map(|rows| {
                rows.into_iter()
                    .map(|(key, value)| {
                        Ok((table::read_key::<T>(&key)?, table::read_value::<T>(&value)?))
                    })
                    .collect()
            })
            .collect()
    }

    fn scan_of<T: Table>(&self, range: Range) -> Scan {
        let whole = |fields: KeyWriter| {
            let mut key = KeyWriter::new(self.shared.tenant, T::TAG);
            key.fixed(&fields.finish().0);
            key.finish().0
        };
        let prefix = whole(range.prefix);
        let to = range
            .until
            .map_or_else(|| after_prefix(&prefix), |fields| whole(fields).into());
        let from = range.from.map_or(prefix, whole).into();
        Scan {
            family: T::FAMILY,
            slot: range.slot,
            from,
            to,
            reverse: range.reverse,
            limit: range.limit,
        }
    }

    async fn raw(&self, rows: &[RowKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        // The overlay first: a row leaves it only once the engine has it.
        let mut values: Vec<Option<Option<Bytes>>> = vec![None; rows.len()];
        if let Some(overlay) = &self.overlay {
            let overlay = overlay.read();
            for (row, value) in rows.iter().zip(&mut values) {
                *value = overlay
                    .get(&(row.family, row.key.clone()))
                    .map(|(_, value)| value.clone());
            }
        }
        let missing: Vec<RowKey> = rows
            .iter()
            .zip(&values)
            .filter(|(_, value)| value.is_none())
            .map(|(row, _)| row.clone())
            .collect();
        let mut stored = if missing.is_empty() {
            Vec::new()
        } else {
            self.shared.get_many(&missing).await?
        }
        .into_iter();
        Ok(values
            .into_iter()
            .map(|value| value.unwrap_or_else(|| stored.next().flatten()))
            .collect())
    }

    /// What the lane has appended in the range and the engine may not have yet.
    fn appended(&self, scan: &Scan) -> Vec<(Bytes, Option<Bytes>)> {
        let Some(overlay) = &self.overlay else {
            return Vec::new();
        };
        if scan.from >= scan.to {
            return Vec::new();
        }
        let from = Bound::Included((scan.family, scan.from.clone()));
        let to = Bound::Excluded((scan.family, scan.to.clone()));
        overlay
            .read()
            .range((from, to))
            .map(|((_, key), (_, value))| (key.clone(), value.clone()))
            .collect()
    }

    /// Puts appended rows over the stored ones. A deletion may have eaten into the limit: then the
    /// rest is read as well.
    async fn lay_over(
        &self,
        appended: Vec<(Bytes, Option<Bytes>)>,
        scan: &Scan,
        rows: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), ReadError> {
        if appended.is_empty() {
            return Ok(());
        }
        let deletions = appended.iter().filter(|(_, value)| value.is_none()).count();
        if deletions > 0 && rows.len() == scan.limit {
            let wider = Scan {
                limit: scan.limit.saturating_add(deletions),
                ..scan.clone()
            };
            *rows = self
                .shared
                .scan_many(&[wider])
                .await?
                .pop()
                .unwrap_or_default();
        }
        let mut merged: BTreeMap<Bytes, Bytes> = rows.drain(..).collect();
        for (key, value) in appended {
            match value {
                Some(value) => merged.insert(key, value),
                None => merged.remove(&key),
            };
        }
        if scan.reverse {
            rows.extend(merged.into_iter().rev().take(scan.limit));
        } else {
            rows.extend(merged.into_iter().take(scan.limit));
        }
        Ok(())
    }
}
