//! Whether the rows of key backups agree with one another: what `comity check` asks of them once each row by itself is as its table
//! writes it ([`comity_storage::check`]).
//!
//! A backup is a version that its user was given, and counts the keys that are there; each change of those has rewritten its row, so
//! none is newer than that, and its etag says that there was one; each key is of a backup that is there, and of the session that it
//! names. Nothing is written; what stays in memory is a few numbers a backup, and a page of rows.

use std::{collections::BTreeMap, fmt};

use comity_accounts::tables as accounts;
use comity_storage::{
    Pos, ReadError, Reader, Table,
    check::{Listener, Pages},
};

use crate::tables::{Backups, Sessions, UserKey, UserSession, Versions};

/// Something that rows of key backups say differently.
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
    /// A row of a user who isn't there.
    NoUser,
    /// A backup of a version that was never given.
    NotGiven,
    /// A backup that has other keys than it counts.
    Count,
    /// A backup whose keys have changed without it.
    Etag,
    /// Keys of a backup that isn't there.
    NoBackup,
    /// A key that names another session or room than its row's key.
    OtherName,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUser => "the user isn't there",
            Self::NotGiven => "its version was never given",
            Self::Count => "it has other keys than it counts",
            Self::Etag => "its keys have changed and its etag has not",
            Self::NoBackup => "the backup isn't there",
            Self::OtherName => "it names another session than its key",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.table, self.user, self.broken)
    }
}

/// What there is of a backup's keys.
#[derive(Default)]
struct Tally {
    count: u64,
    newest: Pos,
}

/// By user and version.
type Tallies = BTreeMap<(String, u64), Tally>;

/// Walks all backups of a tenant.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read.
pub async fn tenant(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let mut tallies = sessions(reader, to).await?;
    backups(reader, &mut tallies, to).await?;
    for ((user, _), _) in tallies {
        say::<Sessions>(to, &user, Broken::NoBackup);
    }
    versions(reader, to).await
}

/// Each key by itself; how many there are of which backup.
async fn sessions(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<Tallies, ReadError> {
    let mut tallies = Tallies::new();
    let mut pages = Pages::<Sessions>::all();
    while let Some(rows) = pages.next(reader).await? {
        to.walked(rows.len());
        for (key, row) in rows {
            let named = UserSession::new(&key.backup, &row.value.room_id, &row.value.session_id);
            if key != named {
                say::<Sessions>(to, &key.backup.user, Broken::OtherName);
            }
            let backup = (key.backup.user, key.backup.version);
            let tally = tallies.entry(backup).or_default();
            tally.count += 1;
            tally.newest = tally.newest.max(row.pos);
        }
    }
    Ok(tallies)
}

/// Each backup with what was counted of it, which is taken away.
async fn backups(
    reader: &Reader,
    tallies: &mut Tallies,
    to: &mut dyn Listener<Finding>,
) -> Result<(), ReadError> {
    let mut pages = Pages::<Backups>::all();
    while let Some(rows) = pages.next(reader).await? {
        to.walked(rows.len());
        let users: Vec<UserKey> = rows
            .iter()
            .map(|(key, _)| UserKey(key.user.clone()))
            .collect();
        let given = reader.get_many::<Versions>(&users).await?;
        for ((key, row), given) in rows.into_iter().zip(given) {
            if given.is_none_or(|given| key.version == 0 || key.version > given.value.last) {
                say::<Backups>(to, &key.user, Broken::NotGiven);
            }
            let backup = (key.user, key.version);
            let tally = tallies.remove(&backup).unwrap_or_default();
            let (user, _) = backup;
            if tally.count != row.value.count {
                say::<Backups>(to, &user, Broken::Count);
            }
            if tally.newest > row.pos || (tally.count > 0 && row.value.etag == 0) {
                say::<Backups>(to, &user, Broken::Etag);
            }
        }
    }
    Ok(())
}

/// Whoever was given a version is there.
async fn versions(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let mut pages = Pages::<Versions>::all();
    while let Some(rows) = pages.next(reader).await? {
        to.walked(rows.len());
        let users: Vec<accounts::UserKey> = rows
            .into_iter()
            .map(|(UserKey(user), _)| accounts::UserKey(user))
            .collect();
        let there = reader.get_many::<accounts::Users>(&users).await?;
        for (user, _) in users.iter().zip(there).filter(|(_, row)| row.is_none()) {
            say::<Versions>(to, &user.0, Broken::NoUser);
        }
    }
    Ok(())
}

fn say<T: Table>(to: &mut dyn Listener<Finding>, user: &str, broken: Broken) {
    to.found(Finding {
        user: user.to_owned(),
        broken,
        table: T::NAME,
    });
}
