//! A table's rows a page at a time: there may be more of them than fit into memory.

use std::marker::PhantomData;

use crate::{
    error::ReadError,
    read::{Range, Reader},
    table::{Row, Table},
};

/// Rows read at a time.
pub(crate) const PAGE: usize = 1000;

/// The pages that are left of a table's rows, in the order of their keys.
#[derive(Debug)]
pub struct Pages<T> {
    /// All of them.
    range: Range,
    /// Where the next page begins; `None` at the end.
    next: Option<Range>,
    table: PhantomData<fn() -> T>,
}

impl<T: Table> Pages<T> {
    /// Of all rows.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Range::everywhere(|_| {}))
    }

    /// Of the rows of a range.
    #[must_use]
    pub fn of(range: Range) -> Self {
        let range = range.limit(PAGE);
        Self {
            next: Some(range.clone()),
            range,
            table: PhantomData,
        }
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn next(
        &mut self,
        reader: &Reader,
    ) -> Result<Option<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        let Some(range) = self.next.take() else {
            return Ok(None);
        };
        let rows = reader.scan::<T>(range).await?;
        let last = rows.last().filter(|_| rows.len() == PAGE);
        self.next = last.map(|(last, _)| self.range.clone().after(last));
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }
}
