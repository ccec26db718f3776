//! All that `comity check` asks of a tenant's rows: each by itself as its table writes it, then what they say together, capability by
//! capability. Media's files are looked at apart ([`comity_media::check`]).

use std::fmt::Display;

use comity_protocol::id::ServerName;
use comity_storage::{
    Engine, ReadError, TenantId,
    check::{self, Listener},
};

use crate::tables;

/// What was walked.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    /// Rows, each by itself.
    pub rows: u64,
    /// Rooms.
    pub rooms: usize,
}

/// Walks all rows of a tenant, whose users are those of `server`. Each finding is told in words.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read.
pub async fn rows(
    engine: &Engine,
    tenant: TenantId,
    server: &ServerName,
    to: &mut dyn Listener<String>,
) -> Result<Checked, ReadError> {
    let to = &mut Words(to);
    let rows = check::tenant(engine, tenant, &tables(), to).await?.rows;
    let Some(reader) = check::reader(engine, tenant).await? else {
        return Ok(Checked { rows, rooms: 0 });
    };
    comity_accounts::check::tenant(&reader, to).await?;
    comity_keys::check::tenant(&reader, server, to).await?;
    comity_to_device::check::tenant(&reader, to).await?;
    comity_key_backup::check::tenant(&reader, to).await?;
    comity_sync::check::tenant(&reader, to).await?;
    let rooms = comity_rooms::check::tenant(&reader, server, to).await?;
    Ok(Checked { rows, rooms })
}

/// Puts findings of any kind into words.
struct Words<'a>(&'a mut dyn Listener<String>);

impl<F: Display> Listener<F> for Words<'_> {
    fn found(&mut self, finding: F) {
        self.0.found(finding.to_string());
    }

    fn walked(&mut self, rows: usize) {
        self.0.walked(rows);
    }
}
