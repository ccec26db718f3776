//! Whether the rows of sliding sync agree with one another: what `comity check` asks of them once each row by itself is as its table
//! writes it ([`comity_storage::check`]).
//!
//! A connection is of a device that is there, and its latest position follows the one that its client has; what is known of rooms, and
//! wanted of them, is of a connection that is there. Nothing is written, and a page of rows is held at a time.

use std::collections::BTreeSet;

use comity_accounts::tables::Devices;
use comity_storage::{
    Home, Pages, Range, ReadError, Reader, Table, broken,
    check::{Contradiction, Listener},
};

use crate::tables::{
    Connection, ConnectionRooms, ConnectionStates, Connections, Hash, OfDevice, hash,
};

/// Something that rows of sliding sync say differently.
pub type Finding = Contradiction<Broken>;

broken! {
    NoDevice: "the device isn't there",
    NoConnection: "the connection isn't there",
    Position: "its latest position doesn't follow the one before it",
}

/// Walks all connections of a tenant.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read.
pub async fn tenant(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    connections(reader, to).await?;
    belong::<ConnectionRooms>(reader, to, |key| key.of).await?;
    belong::<ConnectionStates>(reader, to, |key| key.of).await
}

async fn connections(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let mut pages = Pages::<Connections>::all();
    let mut user: Option<String> = None;
    let mut devices = BTreeSet::new();
    while let Some(rows) = to.page(reader, &mut pages).await? {
        for (key, row) in rows {
            if user.as_ref() != Some(&key.user) {
                devices = devices_of(reader, &key.user).await?;
                user = Some(key.user.clone());
            }
            if !devices.contains(&key.device) {
                to.say::<Connections>(&key.user, Broken::NoDevice);
            }
            if !follows(&row.value) {
                to.say::<Connections>(&key.user, Broken::Position);
            }
        }
    }
    Ok(())
}

/// What belongs to connections has one.
async fn belong<T: Table>(
    reader: &Reader,
    to: &mut dyn Listener<Finding>,
    of: fn(T::Key) -> OfDevice,
) -> Result<(), ReadError> {
    let mut pages = Pages::<T>::all();
    while let Some(rows) = to.page(reader, &mut pages).await? {
        let mut of: Vec<OfDevice> = rows.into_iter().map(|(key, _)| of(key)).collect();
        of.dedup();
        let there = reader.get_many::<Connections>(&of).await?;
        for (key, _) in of.iter().zip(there).filter(|(_, row)| row.is_none()) {
            to.say::<T>(&key.user, Broken::NoConnection);
        }
    }
    Ok(())
}

fn follows(connection: &Connection) -> bool {
    let base = connection.base.as_ref().map_or(0, |base| base.serial);
    base.checked_add(1) == Some(connection.newest.serial)
}

/// The devices of a user, as connections name them.
async fn devices_of(reader: &Reader, user: &str) -> Result<BTreeSet<Hash>, ReadError> {
    let range = Range::of(Home::User(user), |key| {
        key.str(user);
    });
    let devices = reader.scan::<Devices>(range).await?;
    Ok(devices
        .iter()
        .map(|(device, _)| hash(&device.part))
        .collect())
}
