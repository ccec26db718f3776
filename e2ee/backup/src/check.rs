//! Whether the rows of key backups agree with one another: what `comity check` asks of them once each row by itself is as its table
//! writes it ([`comity_storage::check`]).
//!
//! A backup is a version that its user was given, and counts the keys that are there; each change of those has rewritten its row, so
//! none is newer than that, and its etag says that there was one; each key is of a backup that is there, and of the session that it
//! names. Nothing is written; what stays in memory is a few numbers a backup, and a page of rows.

use std::collections::BTreeMap;

use comity_accounts::tables as accounts;
use comity_storage::{
    Pages, Pos, ReadError, Reader, broken,
    check::{Contradiction, Listener},
};

use crate::tables::{Backups, Sessions, UserKey, UserSession, Versions};

/// Something that rows of key backups say differently.
pub type Finding = Contradiction<Broken>;

broken! {
    NoUser: "the user isn't there",
    NotGiven: "its version was never given",
    Count: "it has other keys than it counts",
    Etag: "its keys have changed and its etag has not",
    NoBackup: "the backup isn't there",
    OtherName: "it names another session than its key",
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
        to.say::<Sessions>(&user, Broken::NoBackup);
    }
    versions(reader, to).await
}

/// Each key by itself; how many there are of which backup.
async fn sessions(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<Tallies, ReadError> {
    let mut tallies = Tallies::new();
    let mut pages = Pages::<Sessions>::all();
    while let Some(rows) = to.page(reader, &mut pages).await? {
        for (key, row) in rows {
            let named = UserSession::new(&key.backup, &row.value.room_id, &row.value.session_id);
            if key != named {
                to.say::<Sessions>(&key.backup.user, Broken::OtherName);
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
    while let Some(rows) = to.page(reader, &mut pages).await? {
        let users: Vec<UserKey> = rows
            .iter()
            .map(|(key, _)| UserKey(key.user.clone()))
            .collect();
        let given = reader.get_many::<Versions>(&users).await?;
        for ((key, row), given) in rows.into_iter().zip(given) {
            if given.is_none_or(|given| key.version == 0 || key.version > given.value.last) {
                to.say::<Backups>(&key.user, Broken::NotGiven);
            }
            let backup = (key.user, key.version);
            let tally = tallies.remove(&backup).unwrap_or_default();
            let (user, _) = backup;
            if tally.count != row.value.count {
                to.say::<Backups>(&user, Broken::Count);
            }
            if tally.newest > row.pos || (tally.count > 0 && row.value.etag == 0) {
                to.say::<Backups>(&user, Broken::Etag);
            }
        }
    }
    Ok(())
}

/// Whoever was given a version is there.
async fn versions(reader: &Reader, to: &mut dyn Listener<Finding>) -> Result<(), ReadError> {
    let mut pages = Pages::<Versions>::all();
    while let Some(rows) = to.page(reader, &mut pages).await? {
        let users: Vec<accounts::UserKey> = rows
            .into_iter()
            .map(|(UserKey(user), _)| accounts::UserKey(user))
            .collect();
        let there = reader.get_many::<accounts::Users>(&users).await?;
        for (user, _) in users.iter().zip(there).filter(|(_, row)| row.is_none()) {
            to.say::<Versions>(&user.0, Broken::NoUser);
        }
    }
    Ok(())
}
