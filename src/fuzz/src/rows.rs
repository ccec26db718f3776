//! What our own disk gives back.

use comity_rooms::{
    chains::{ChainKey, ChainRow},
    state::{PartialRoot, Root, rewritten_node},
};
use comity_storage::Registered;

/// Every table that there is, the storage's own among them.
#[must_use]
pub fn tables() -> Vec<Registered> {
    let mut tables = comity_storage::system::tables().to_vec();
    tables.extend(comity_house::tables());
    tables.sort_by_key(|table| table.name);
    tables
}

/// A row as the corpus has it: its table's tag, the length of its key in a byte, the key and the value as they are stored.
#[must_use]
pub fn parts(row: &[u8]) -> Option<([u8; 2], &[u8], &[u8])> {
    let ([a, b, length], rest) = row.split_first_chunk()?;
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    Some(([*a, *b], key, value))
}

/// Damage is found or is another row, and never a panic. What has one way to be written is written the same again: the root of
/// a state, a node of it, a row of the auth chains.
pub(crate) fn row(bytes: &[u8]) {
    let Some((tag, key, value)) = parts(bytes) else {
        return;
    };
    for table in tables().iter().filter(|table| table.tag == tag) {
        let _ = (table.slot)(key);
        let _ = (table.pos)(value);
    }
    if let Ok(root) = Root::decode(value) {
        assert_eq!(&root.encode()[..], value);
    }
    if let Ok(root) = PartialRoot::decode(value) {
        assert_eq!(&root.encode()[..], value);
    }
    // Behind the format of the value, which their tables leave as it is.
    let inside = value.get(1..).unwrap_or_default();
    if let Ok(again) = rewritten_node(inside) {
        assert_eq!(&again[..], inside);
    }
    // Behind the tenant, the tag and the room.
    if let Some(key) = key.get(22..).and_then(ChainKey::decode) {
        let value = inside.to_vec().into();
        if let Some(again) = (ChainRow { key, value }).rewritten() {
            assert_eq!(&again[..], inside);
        }
    }
}
