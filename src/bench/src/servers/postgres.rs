//! A PostgreSQL of the bench's own: as Debian's defaults have it (fsync on), on a Unix socket, and
//! never as root, which it refuses.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::{log_file, output};
use crate::error::{Error, Result};

/// The database superuser, let in by the socket alone.
pub(super) const USER: &str = "bench";

/// Starts it on `folder`, initialised when it is new; gives the process and its version.
pub(super) async fn start(folder: &Path) -> Result<(Child, String)> {
    fs::create_dir_all(folder)?;
    let programs = programs()?;
    let owner = if output("id", &["-u"]).await? == "0" {
        Some(unprivileged()?)
    } else {
        None
    };
    if let Some((user, group)) = owner {
        chown(folder, Some(user), Some(group))?;
    }
    let command = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir(folder);
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        command
    };
    let data = folder.join("data");
    let log = folder.join("log");
    if !data.join("PG_VERSION").exists() {
        let status = command("initdb")
            .args([
                "--username",
                USER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--pgdata",
            ])
            .arg(&data)
            .stdout(log_file(&log)?)
            .stderr(log_file(&log)?)
            .status()
            .await?;
        if !status.success() {
            return Err(Error::Program(format!(
                "initdb failed; see {}",
                log.display()
            )));
        }
    }
    let mut server = command("postgres")
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(folder)
        .args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=on",
            "-c",
            "synchronous_commit=on",
        ])
        .stdout(log_file(&log)?)
        .stderr(log_file(&log)?)
        .kill_on_drop(true)
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(60);
    while sql(folder, "postgres", "SELECT 1").await.is_err() {
        if server.try_wait()?.is_some() || Instant::now() > end {
            return Err(Error::Program(format!(
                "PostgreSQL doesn't start; see {}",
                log.display()
            )));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok((
        server,
        output(programs.join("postgres"), &["--version"]).await?,
    ))
}

/// Runs one statement and gives its rows.
pub(super) async fn sql(folder: &Path, database: &str, statement: &str) -> Result<String> {
    let socket = folder.display().to_string();
    output(
        "psql",
        &[
            "-h", &socket, "-U", USER, "-d", database, "-Atqc", statement,
        ],
    )
    .await
}

/// The newest installed version's programs; Debian keeps them off the search path.
fn programs() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            let folders = entries.flatten();
            folders
                .filter_map(|entry| {
                    Some((
                        entry.file_name().to_str()?.parse().ok()?,
                        entry.path().join("bin"),
                    ))
                })
                .filter(|(_, path): &(u32, PathBuf)| path.join("initdb").exists())
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.pop().map(|(_, path)| path).ok_or_else(|| {
        Error::Program("PostgreSQL isn't installed (apt-get install postgresql)".to_owned())
    })
}

/// The ids of the account that root runs it as.
fn unprivileged() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres")
        .or_else(|| ids("nobody"))
        .ok_or_else(|| Error::Program("no user to run PostgreSQL as".to_owned()))
}
