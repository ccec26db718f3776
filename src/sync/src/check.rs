//! Whether the rows of sliding sync agree with one another: what `comity check` asks of them once each row by itself is as its table
//! writes it ([`comity_storage::check`]).
//!
//! A connection is of a device that is there, and its latest position follows the one that its client has; what is known of rooms, and
//! wanted of them, is of a connection that is there. Nothing is written, and a page of rows is held at a time.

use std::{collections::BTreeSet, fmt};

use comity_accounts::tables::Devices;
use comity_storage::{
    Home, Range, ReadError, Reader, Table,
    check::{Listener, Pages},
};

use crate::tables::{
    Connection, ConnectionRooms, ConnectionStates, Connections, Hash, OfDevice, hash,
};

/// Something that rows of sliding sync say differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose rows.
    pub user: String,
    /// What should hold and doesn't.
    pub broken: Broken,
    /// In which table.
    pub table: &'static str,
}

/// What doesn't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A connection of a device that isn't there.
    NoDevice,
    /// Something of a connection that isn't there.
    NoConnection,
    /// The latest position doesn't follow the one that the client has.
    Position,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDevice => "the device isn't there",
            Self::NoConnection => "the connection isn't there",
            Self::Position => "its latest position doesn't follow the one before it",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.table, self.user, self.broken)
    }
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
    while let Some(rows) = pages.next(reader).await? {
        to.walked(rows.len());
        for (key, row) in rows {
            if user.as_ref() != Some(&key.user) {
                devices = devices_of(reader, &key.user).await?;
                user = Some(key.user.clone());
            }
            if !devices.contains(&key.device) {
                say::<Connections>(to, &key.user, Broken::NoDevice);
            }
            if !follows(&row.value) {
                say::<Connections>(to, &key.user, Broken::Position);
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
    while let Some(rows) = pages.next(reader).await? {
        to.walked(rows.len());
        let mut of: Vec<OfDevice> = rows.into_iter().map(|(key, _)| of(key)).collect();
        of.dedup();
        let there = reader.get_many::<Connections>(&of).await?;
        for (key, _) in of.iter().zip(there).filter(|(_, row)| row.is_none()) {
            say::<T>(to, &key.user, Broken::NoConnection);
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

fn say<T: Table>(to: &mut dyn Listener<Finding>, user: &str, broken: Broken) {
    to.found(Finding {
        user: user.to_owned(),
        broken,
        table: T::NAME,
    });
}
