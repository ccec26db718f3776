//! Reading: typed rows, batch-first, each call one round trip to the engine.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    batch::after_prefix,
    engine::{RowKey, Scan},
    error::ReadError,
    heads::{Heads, Pos},
    key::{Home, Key, KeyWriter, Slot},
    overlay::{Laid, Overlay},
    store::Shared,
    table::{self, Row, Table},
};

/// Reads a tenant's rows. One from [`crate::Tenant::reader`] sees what the engine has and knows the
/// published heads; what it does with a row newer than those is decided by the row's kind. One
/// from [`crate::LaneWriter::reader`] also sees what its lane has appended.
///
/// It holds no connection and no transaction between calls, and is cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) overlay: Option<Arc<RwLock<Overlay>>>,
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

    /// Only what comes after this row, which is one of the range's.
    #[must_use]
    pub fn after(mut self, row: &impl Key) -> Self {
        let mut from = KeyWriter::default();
        row.write(&mut from);
        from.u8(0);
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
        let laid: Vec<_> = scans.iter().map(|scan| self.laid(scan)).collect();
        let mut found = self.shared.scan_many(&scans).await?;
        for ((scan, laid), rows) in scans.into_iter().zip(laid).zip(&mut found) {
            if !laid.is_empty() {
                *rows = self.lay_over(&laid, scan, std::mem::take(rows)).await?;
            }
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
                *value = overlay.value(row.family, &row.key);
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
    fn laid(&self, scan: &Scan) -> Laid {
        self.overlay.as_ref().map_or_else(Laid::default, |overlay| {
            overlay.read().range(scan.family, &scan.from, &scan.to)
        })
    }

    /// Puts appended changes over the stored rows. Deletions may have eaten into the limit: then
    /// more is read.
    async fn lay_over(
        &self,
        laid: &Laid,
        mut scan: Scan,
        mut stored: Vec<(Bytes, Bytes)>,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let limit = scan.limit;
        loop {
            let whole = stored.len() < scan.limit;
            // Beyond the last stored row there may be others: what was appended there waits.
            let last = stored.last().map(|(key, _)| key.clone());
            let merged = laid.over(scan.family, stored).into_iter();
            let reached = |(key, _): &(Bytes, Bytes)| match &last {
                Some(last) if !whole && scan.reverse => key >= last,
                Some(last) if !whole => key <= last,
                _ => true,
            };
            let rows: Vec<_> = if scan.reverse {
                merged.rev().take_while(reached).take(limit).collect()
            } else {
                merged.take_while(reached).take(limit).collect()
            };
            if whole || rows.len() == limit {
                return Ok(rows);
            }
            scan.limit = scan.limit.saturating_mul(2);
            let mut found = self.shared.scan_many(std::slice::from_ref(&scan)).await?;
            stored = found.pop().unwrap_or_default();
        }
    }
}
