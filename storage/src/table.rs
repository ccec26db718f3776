//! Typed tables: what a row's key and value are, and how a value carries its format and position.
//!
//! A stored value is `format (1 byte) · position (8 bytes, where the table is stamped) · payload`.
//! A node reads the newest format and the one before it.

use crate::key::{Key, KeyReader, KeyWriter, Slot, TenantId};

/// Rows with like habits live together: one column family, one PostgreSQL table each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// Lanes' logs: appended, read in order, pruned from the front.
    Log,
    /// Event bodies: large, compressed, rewritten by redaction.
    Body,
    /// What finds things: ids, headers, statuses, timelines.
    Index,
    /// Content-addressed state nodes and chain covers.
    Node,
    /// Small rows rewritten often: heads, memberships, receipts, accounts.
    Hot,
    /// Queues: written once, read once, deleted.
    Queue,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] = [
        Self::Log,
        Self::Body,
        Self::Index,
        Self::Node,
        Self::Hot,
        Self::Queue,
    ];

    /// Its name in an engine.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Body => "body",
            Self::Index => "index",
            Self::Node => "node",
            Self::Hot => "hot",
            Self::Queue => "queue",
        }
    }
}

/// A stored row that can't be read: its bytes are not what this table writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored row is damaged: {0}")]
pub struct Damaged(pub &'static str);

/// What a row holds.
pub trait Value: Sized {
    /// The format this build writes; the byte a stored value starts with.
    const FORMAT: u8 = 1;
    /// Appends the payload.
    fn write(&self, to: &mut Vec<u8>);
    /// Reads a payload of that format (this one or the one before).
    fn read(format: u8, payload: &[u8]) -> Result<Self, Damaged>;
}

/// A table: a family, a tag of its own, a key and a value.
pub trait Table {
    /// What operators and tests call it.
    const NAME: &'static str;
    /// Where its rows live.
    const FAMILY: Family;
    /// The two bytes after the tenant in each key; no other table has them.
    const TAG: [u8; 2];
    /// Whether each row carries the position of the commit that wrote it (all mutable rows do).
    const STAMPED: bool = true;
    /// Its key.
    type Key: Key;
    /// Its value.
    type Value: Value;
}

/// A table as a value, for those who go through all of them: [`crate::check`], and the test that no
/// two have one tag.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    /// Its name.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
    /// Its tag.
    pub tag: [u8; 2],
    /// Parses a stored key and tells its home's slot.
    pub slot: fn(&[u8]) -> Result<Slot, Damaged>,
    /// Parses a stored value and tells its position, if it carries one.
    pub pos: fn(&[u8]) -> Result<Option<u64>, Damaged>,
}

impl Registered {
    /// The table.
    pub fn of<T: Table>() -> Self {
        Self {
            name: T::NAME,
            family: T::FAMILY,
            tag: T::TAG,
            slot: |bytes| {
                let key = read_key::<T>(bytes)?;
                let mut again = KeyWriter::default();
                key.write(&mut again);
                if Some(again.finish().0.as_slice()) == bytes.get(6..) {
                    Ok(key.home().slot())
                } else {
                    Err(Damaged("a key is not as its table writes it"))
                }
            },
            pos: |bytes| read_value::<T>(bytes).map(|row| T::STAMPED.then_some(row.pos)),
        }
    }
}

/// Pairs of tables that share a tag or a name; this crate's own count. There must be none.
pub fn collisions(tables: &[Registered]) -> Vec<(&'static str, &'static str)> {
    let mut all = crate::system::tables().to_vec();
    all.extend_from_slice(tables);
    let mut pairs = Vec::new();
    for (n, one) in all.iter().enumerate() {
        let others = all.iter().skip(n + 1);
        let same = others.filter(|other| other.tag == one.tag || other.name == one.name);
        pairs.extend(same.map(|other| (one.name, other.name)));
    }
    pairs
}

pub(crate) fn tag_of<T: Table>() -> [u8; 2] {
    T::TAG
}

/// A row as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<V> {
    /// The lane position that wrote it; 0 in tables that are not stamped.
    pub pos: u64,
    /// What it holds.
    pub value: V,
}

/// The bytes of a key, and where the commit's position goes.
pub(crate) fn key_of<T: Table>(tenant: TenantId, key: &T::Key) -> (Vec<u8>, Option<usize>) {
    let mut to = KeyWriter::new(tenant, T::TAG);
    key.write(&mut to);
    to.finish()
}

/// A key from stored bytes.
pub(crate) fn read_key<T: Table>(bytes: &[u8]) -> Result<T::Key, Damaged> {
    let fields = bytes.get(6..).ok_or(Damaged("a key ends early"))?;
    let mut fields = KeyReader::new(fields);
    let key = T::Key::read(&mut fields)?;
    fields.end()?;
    Ok(key)
}

/// Where the position stands in a stamped value.
pub(crate) const VALUE_STAMP: usize = 1;

/// The stored bytes of a value, its position yet to be stamped.
pub(crate) fn write_value<T: Table>(value: &T::Value) -> Vec<u8> {
    let mut to = vec![T::Value::FORMAT];
    if T::STAMPED {
        to.extend_from_slice(&[0; 8]);
    }
    value.write(&mut to);
    to
}

/// A row from stored bytes.
pub(crate) fn read_value<T: Table>(bytes: &[u8]) -> Result<Row<T::Value>, Damaged> {
    let (&format, rest) = bytes.split_first().ok_or(Damaged("a value is empty"))?;
    let newest = T::Value::FORMAT;
    if format == 0 || (format != newest && Some(format) != newest.checked_sub(1)) {
        return Err(Damaged("a value's format is not known to this build"));
    }
    let (pos, payload) = if T::STAMPED {
        let (pos, rest) = rest
            .split_first_chunk()
            .ok_or(Damaged("a value ends early"))?;
        (u64::from_be_bytes(*pos), rest)
    } else {
        (0, rest)
    };
    Ok(Row {
        pos,
        value: T::Value::read(format, payload)?,
    })
}

/// Gives a serde type a [`Value`] in postcard's compact form.
#[macro_export]
macro_rules! postcard_value {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::Value for $type {
            fn write(&self, to: &mut Vec<u8>) {
                // Writing to a vector can't fail, and no map of ours has an unknown length.
                if let Ok(bytes) = $crate::table::to_postcard(self) {
                    to.extend_from_slice(&bytes);
                }
            }
            fn read(_: u8, payload: &[u8]) -> Result<Self, $crate::Damaged> {
                $crate::table::from_postcard(payload)
            }
        }
    )+};
}

/// Declares a crate's tables, each by its documentation, name, tag, family, key and value, and `all`, their list.
#[macro_export]
macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident: $name:literal, $tag:literal, $family:ident, $key:ty => $value:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $table;
        impl $crate::Table for $table {
            const NAME: &'static str = $name;
            const FAMILY: $crate::Family = $crate::Family::$family;
            const TAG: [u8; 2] = *$tag;
            type Key = $key;
            type Value = $value;
        }
    )+

        /// Every table of this crate, for the check of a store.
        pub fn all() -> Vec<$crate::Registered> {
            vec![$($crate::Registered::of::<$table>()),+]
        }
    };
}

#[doc(hidden)]
pub fn to_postcard<V: serde::Serialize>(value: &V) -> Result<Vec<u8>, Damaged> {
    postcard::to_stdvec(value).map_err(|_| Damaged("a value can't be written"))
}

#[doc(hidden)]
pub fn from_postcard<V: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<V, Damaged> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(Damaged("a value has more than its fields")),
        Err(_) => Err(Damaged("a value's fields don't parse")),
    }
}

impl Value for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: u8, _: &[u8]) -> Result<Self, Damaged> {
        Ok(())
    }
}

impl Value for bytes::Bytes {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
    fn read(_: u8, payload: &[u8]) -> Result<Self, Damaged> {
        Ok(Self::copy_from_slice(payload))
    }
}
