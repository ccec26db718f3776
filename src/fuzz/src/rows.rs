//! What our own disk gives back.

use comity_rooms::state::{PartialRoot, Root};
use comity_storage::Registered;

fn tables() -> Vec<Registered> {
    let mut tables = comity_accounts::tables::all();
    tables.extend(comity_rooms::tables::all());
    tables.extend(comity_key_backup::tables::all());
    tables.extend(comity_keys::tables::all());
    tables.extend(comity_media::tables::all());
    tables.extend(comity_succession::tables::all());
    tables.extend(comity_sync::tables::all());
    tables.extend(comity_to_device::tables::all());
    tables.extend(comity_federation_client::tables::all());
    tables.extend(comity_federation_receiver::tables::all());
    tables.extend(comity_federation_sender::tables::all());
    tables.sort_by_key(|table| table.name);
    tables
}

/// A table's tag, the length of a key, the key, a value: damage is found or is another row, and never a panic. A state root
/// that is read is written the same.
pub(crate) fn row(bytes: &[u8]) {
    let Some(([a, b, length], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    for table in tables().iter().filter(|table| table.tag == [*a, *b]) {
        let _ = (table.slot)(key);
        let _ = (table.pos)(value);
    }
    if let Ok(root) = Root::decode(value) {
        assert_eq!(&root.encode()[..], value);
    }
    if let Ok(root) = PartialRoot::decode(value) {
        assert_eq!(&root.encode()[..], value);
    }
}
