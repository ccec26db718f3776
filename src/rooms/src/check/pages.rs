//! A table's rows, of one room or of all, a page at a time.

use std::marker::PhantomData;

use comity_storage::{Home, Key, Range, ReadError, Reader, RoomKey, Row, Table};

/// Rows read in one go.
const PAGE: usize = 1_000;

/// Where the reading of a table is.
pub(super) struct Pages<T> {
    room: Option<RoomKey>,
    next: Option<Range>,
    table: PhantomData<T>,
}

impl<T: Table> Pages<T> {
    /// All rows of the table.
    pub fn everywhere() -> Self {
        Self::new(None)
    }

    /// The rows of one room, whose key is the first field of theirs.
    pub fn of(room: RoomKey) -> Self {
        Self::new(Some(room))
    }

    fn new(room: Option<RoomKey>) -> Self {
        let mut pages = Self {
            room,
            next: None,
            table: PhantomData,
        };
        pages.next = Some(pages.range().from(|key| {
            if let Some(room) = room {
                key.room(room);
            }
        }));
        pages
    }

    /// The rows from wherever on.
    fn range(&self) -> Range {
        let Some(room) = self.room else {
            return Range::everywhere(|_| {}).limit(PAGE);
        };
        let range = Range::of(Home::Room(room), |_| {}).limit(PAGE);
        match u128::from_be_bytes(room.0).checked_add(1) {
            Some(next) => range.until(|key| {
                key.fixed(&next.to_be_bytes());
            }),
            None => range,
        }
    }

    /// The next rows; `None` at the end.
    pub async fn next(
        &mut self,
        reader: &Reader,
    ) -> Result<Option<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        let Some(range) = self.next.take() else {
            return Ok(None);
        };
        let rows = reader.scan::<T>(range).await?;
        self.next = rows.last().filter(|_| rows.len() == PAGE).map(|(last, _)| {
            self.range().from(|key| {
                last.write(key);
                key.u8(0);
            })
        });
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }
}
