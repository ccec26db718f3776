//! A table's rows, a page at a time: what is kept of media may be more than fits into memory.

use comity_storage::{Key, KeyWriter, Range, ReadError, Reader, Row, Table};

/// Rows read at a time.
const PAGE: usize = 1_000;

/// The pages that are left of a range.
pub(crate) struct Pages<T: Table> {
    range: Range,
    last: Option<T::Key>,
    ended: bool,
}

impl<T: Table> Pages<T>
where
    T::Key: Clone,
{
    /// Of all rows.
    pub fn all() -> Self {
        Self::of(Range::everywhere(|_| {}))
    }

    /// Of the rows whose fields begin with this byte.
    pub fn beginning(first: u8) -> Self {
        let from = |key: &mut KeyWriter| {
            key.u8(first);
        };
        let range = Range::everywhere(|_| {}).from(from);
        Self::of(match first.checked_add(1) {
            Some(next) => range.until(|key| {
                key.u8(next);
            }),
            None => range,
        })
    }

    fn of(range: Range) -> Self {
        Self {
            range,
            last: None,
            ended: false,
        }
    }

    /// The next one; `None` after the last.
    ///
    /// # Errors
    /// The store's.
    pub async fn next(
        &mut self,
        reader: &Reader,
    ) -> Result<Option<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let range = self.range.clone().limit(PAGE);
        let range = match &self.last {
            Some(last) => range.from(|key| {
                last.write(key);
                key.u8(0);
            }),
            None => range,
        };
        let rows = reader.scan::<T>(range).await?;
        self.ended = rows.len() < PAGE;
        self.last = rows.last().map(|(key, _)| key.clone());
        Ok((!rows.is_empty()).then_some(rows))
    }
}
