//! Where a row lives: tenant, home, slot, lane, and keys that sort as their parts do.
//!
//! A row's *home* (a room, a user, a server or a fixed slot) hashes to one of 64 slots, for good;
//! `lane = slot mod N`. Only the owner of the lane writes the row. A key's bytes are
//! `tenant · table · fields`, each field encoded so that bytes compare as the fields do.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::table::Damaged;

/// Slots per tenant, fixed for good: what a home hashes to.
pub const SLOTS: u8 = 64;

/// Longest key in bytes that every engine takes; longer parts must be hashed by the table.
pub const MAX_KEY: usize = 512;

/// One hosted server name. The number is given once and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantId(pub u32);

/// The fixed hash class of a home, `0..64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(u8);

impl Slot {
    /// The slot of that number, folded into range.
    pub const fn new(n: u8) -> Self {
        Self(n % SLOTS)
    }

    /// Its number, `0..64`.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The unit of order and ownership: `slot mod N`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane(pub u8);

/// How many lanes a tenant has: a power of two from 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lanes(u8);

impl Lanes {
    /// A single lane.
    pub const ONE: Self = Self(1);

    /// `None` unless `n` is a power of two from 1 to 64.
    pub const fn new(n: u8) -> Option<Self> {
        if n.is_power_of_two() && n <= SLOTS {
            Some(Self(n))
        } else {
            None
        }
    }

    /// The number of lanes.
    pub const fn count(self) -> u8 {
        self.0
    }

    /// The lane that a slot is in.
    pub const fn of(self, slot: Slot) -> Lane {
        Lane(slot.0 % self.0)
    }

    /// Every lane, in order.
    pub fn all(self) -> impl Iterator<Item = Lane> + Clone {
        (0..self.0).map(Lane)
    }
}

/// A room as rows name it: the first 16 bytes of the SHA-256 of its id. Fixed width keeps a
/// room's rows together and short; the room's own record holds the full id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub [u8; 16]);

impl RoomKey {
    /// The key of the room with this id.
    pub fn of(room_id: &str) -> Self {
        let digest = Sha256::digest(room_id.as_bytes());
        let mut key = [0; 16];
        key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(key)
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What a row belongs to, and so which lane may write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home<'a> {
    /// A room's rows, members' rows in it included.
    Room(RoomKey),
    /// A local user's own rows.
    User(&'a str),
    /// What is kept about another server.
    Server(&'a str),
    /// A tenant-wide row hashed by its own key (an alias, a token, a media id).
    Name(&'a str),
    /// A row with a place of its own (the audit trail is slot 0).
    Fixed(Slot),
}

impl Home<'_> {
    /// The slot this home hashes to. The kind takes part, so that equal names part ways.
    pub fn slot(&self) -> Slot {
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Room(room) => return Slot::new(room.0.first().copied().unwrap_or(0)),
            Self::Fixed(slot) => return *slot,
            Self::User(name) => (b'U', name.as_bytes()),
            Self::Server(name) => (b'F', name.as_bytes()),
            Self::Name(name) => (b'N', name.as_bytes()),
        };
        let digest = Sha256::new()
            .chain_update([kind])
            .chain_update(bytes)
            .finalize();
        Slot::new(digest.first().copied().unwrap_or(0))
    }
}

/// A table's key: knows its home, and writes and reads its fields in order.
pub trait Key: Sized {
    /// What the row belongs to.
    fn home(&self) -> Home<'_>;
    /// Appends the fields.
    fn write(&self, to: &mut KeyWriter);
    /// Reads the fields back.
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged>;
}

/// Builds key bytes whose order is the order of the fields.
#[derive(Debug, Clone, Default)]
pub struct KeyWriter {
    bytes: Vec<u8>,
    stamp: Option<usize>,
}

impl KeyWriter {
    pub(crate) fn new(tenant: TenantId, tag: [u8; 2]) -> Self {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&tenant.0.to_be_bytes());
        bytes.extend_from_slice(&tag);
        Self { bytes, stamp: None }
    }

    /// A byte.
    pub fn u8(&mut self, n: u8) -> &mut Self {
        self.bytes.push(n);
        self
    }

    /// Four bytes, big end first.
    pub fn u32(&mut self, n: u32) -> &mut Self {
        self.bytes.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// Eight bytes, big end first.
    pub fn u64(&mut self, n: u64) -> &mut Self {
        self.bytes.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// A signed number: the sign bit is flipped, so that −1 sorts before 0.
    pub fn i64(&mut self, n: i64) -> &mut Self {
        self.u64(n.cast_unsigned() ^ (1 << 63))
    }

    /// The lane position at which the batch will be appended; written by the lane's committer.
    /// At most one a key.
    pub fn position(&mut self, at: At) -> &mut Self {
        match at {
            At::Commit => {
                self.stamp = Some(self.bytes.len());
                self.u64(u64::MAX)
            }
            At::Is(pos) => self.u64(pos),
        }
    }

    /// Bytes of a width that the table fixes.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A room.
    pub fn room(&mut self, room: RoomKey) -> &mut Self {
        self.fixed(&room.0)
    }

    /// Text, ended so that a prefix sorts first and never runs into the next field.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Bytes of any length, ended as [`KeyWriter::str`] is: 0 is written 0 255, the end 0 0.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &b in bytes {
            self.bytes.push(b);
            if b == 0 {
                self.bytes.push(255);
            }
        }
        self.bytes.extend_from_slice(&[0, 0]);
        self
    }

    pub(crate) fn finish(self) -> (Vec<u8>, Option<usize>) {
        (self.bytes, self.stamp)
    }
}

/// A position in a key: known, or the one the commit will get.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum At {
    /// A known position.
    Is(u64),
    /// The position of the commit that this row is part of.
    Commit,
}

/// Reads the fields of a key in the order they were written.
#[derive(Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Over the bytes after tenant and tag.
    pub(crate) fn new(fields: &'a [u8]) -> Self {
        Self(fields)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(Damaged("a key ends early"))?;
        self.0 = rest;
        Ok(*head)
    }

    /// Nothing is left.
    pub(crate) fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Damaged("a key has more than its fields"))
        }
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, Damaged> {
        self.take::<1>().map(|[b]| b)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_be_bytes)
    }

    /// A signed number.
    pub fn i64(&mut self) -> Result<i64, Damaged> {
        Ok((self.u64()? ^ (1 << 63)).cast_signed())
    }

    /// A stored position.
    pub fn position(&mut self) -> Result<At, Damaged> {
        self.u64().map(At::Is)
    }

    /// Bytes of the width that the table fixes.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take()
    }

    /// A room.
    pub fn room(&mut self) -> Result<RoomKey, Damaged> {
        self.take().map(RoomKey)
    }

    /// All that is left, for a key whose end has a form of its own.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Text.
    pub fn str(&mut self) -> Result<String, Damaged> {
        String::from_utf8(self.bytes()?).map_err(|_| Damaged("a key's text is not UTF-8"))
    }

    /// Bytes of any length.
    pub fn bytes(&mut self) -> Result<Vec<u8>, Damaged> {
        let mut out = Vec::new();
        loop {
            match self.u8()? {
                0 => match self.u8()? {
                    0 => return Ok(out),
                    255 => out.push(0),
                    _ => return Err(Damaged("a key's text has a stray zero")),
                },
                b => out.push(b),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(parts: &[&[u8]], n: i64) -> Vec<u8> {
        let mut key = KeyWriter::new(TenantId(1), *b"tt");
        for part in parts {
            key.bytes(part);
        }
        key.i64(n);
        key.finish().0
    }

    proptest! {
        /// data-model.md, keys: bytes sort as the fields do, and read back as they were written.
        #[test]
        fn key_bytes_sort_as_fields(
            a in proptest::collection::vec(any::<u8>(), 0..6), b in proptest::collection::vec(any::<u8>(), 0..6),
            c in proptest::collection::vec(any::<u8>(), 0..6), d in proptest::collection::vec(any::<u8>(), 0..6),
            m in any::<i64>(), n in any::<i64>(),
        ) {
            let (x, y) = (text(&[&a, &b], m), text(&[&c, &d], n));
            prop_assert_eq!(x.cmp(&y), (&a, &b, m).cmp(&(&c, &d, n)));
            let mut back = KeyReader::new(&x[6..]);
            prop_assert_eq!((back.bytes().unwrap(), back.bytes().unwrap(), back.i64().unwrap()), (a, b, m));
        }
    }

    /// threats.md E9: a tenant's keys never overlap another's, whatever the numbers.
    #[test]
    fn e9_tenants_part_ways_in_the_first_bytes() {
        let key = |t| KeyWriter::new(TenantId(t), *b"aa").finish().0;
        assert_ne!(key(1)[..4], key(256)[..4]);
    }

    /// data-model.md, lanes: N is a power of two up to 64, and doubling it splits a lane in two.
    #[test]
    fn doubling_lanes_splits_each() {
        assert!(Lanes::new(3).is_none() && Lanes::new(0).is_none() && Lanes::new(128).is_none());
        let (two, four) = (Lanes::new(2).unwrap(), Lanes::new(4).unwrap());
        for n in 0..SLOTS {
            let (old, new) = (two.of(Slot::new(n)).0, four.of(Slot::new(n)).0);
            assert!(new == old || new == old + 2);
        }
    }
}
