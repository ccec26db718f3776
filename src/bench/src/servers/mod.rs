//! Homeservers that the bench starts itself, each in a folder that keeps its data between repeats.

mod comity;
mod postgres;
mod synapse;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use hyper::Method;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::http::Connection;
use crate::machine::Processes;
use crate::target::Target;

/// The name of every server that the bench starts. Nobody ever looks for it.
pub const SERVER_NAME: &str = "bench.invalid";

/// What can be put side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Comity on RocksDB, acknowledging after the fsync (D1).
    ComityD1,
    /// Comity on RocksDB, acknowledging after the write reached the operating system (D0).
    ComityD0,
    /// Synapse from PyPI on PostgreSQL with fsync (D1).
    Synapse,
}

impl Kind {
    /// The name in records and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ComityD1 => "Comity, D1",
            Self::ComityD0 => "Comity, D0",
            Self::Synapse => "Synapse on PostgreSQL, D1",
        }
    }
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `comity` binary, a release build.
    pub comity: PathBuf,
    /// Where Synapse's virtual environment is or is to be made.
    pub synapse: PathBuf,
    /// Where the servers keep their data, on a disk whose fsync is real.
    pub data: PathBuf,
    /// The certificate of the authority that the bench's own homeservers have theirs from, where there are any.
    pub authority: Option<PathBuf>,
}

/// A server that runs.
pub struct Running {
    /// Its base URL.
    pub base_url: String,
    /// Its version and, where it has one, its database's.
    pub version: String,
    /// The shared secret it registers with, where registration isn't open.
    pub secret: Option<String>,
    /// In the order in which they are stopped.
    children: Vec<Child>,
}

/// Starts `kind` on its folder, made anew when it isn't there, and waits until it answers.
///
/// # Errors
/// [`Error::Program`] when it doesn't start; its log is in the folder.
pub async fn start(kind: Kind, places: &Places, port: u16) -> Result<Running> {
    match kind {
        Kind::ComityD1 => comity::start(places, "comity-d1", true, port).await,
        Kind::ComityD0 => comity::start(places, "comity-d0", false, port).await,
        Kind::Synapse => synapse::start(places, port).await,
    }
}

impl Running {
    /// Its processes, the database's too.
    #[must_use]
    pub fn processes(&self) -> Processes {
        Processes::under(self.children.iter().filter_map(Child::id).collect())
    }

    /// Stops it in good order, the server before its database.
    ///
    /// # Errors
    /// When it has to be killed: what it had not written would be missed in the next repeat.
    pub async fn stop(self) -> Result<()> {
        for child in self.children {
            stop(child).await?;
        }
        Ok(())
    }
}

impl Running {
    /// Kills it where it stands (SIGKILL).
    ///
    /// # Errors
    /// The system's.
    pub async fn kill(self) -> Result<()> {
        for mut child in self.children {
            child.kill().await?;
        }
        Ok(())
    }
}

/// Asks the process to end (SIGTERM, for PostgreSQL SIGINT's "fast" is not needed: nobody is connected).
async fn stop(mut child: Child) -> Result<()> {
    if let Some(pid) = child.id() {
        output("kill", &["-TERM", &pid.to_string()]).await?;
    }
    if tokio::time::timeout(Duration::from_secs(60), child.wait())
        .await
        .is_err()
    {
        child.kill().await?;
        return Err(Error::Program(
            "a server didn't stop within a minute of SIGTERM".to_owned(),
        ));
    }
    Ok(())
}

/// Waits until the server answers `/versions`, at most `patience`.
async fn ready(base_url: &str, child: &mut Child, log: &Path, patience: Duration) -> Result<()> {
    let target = Target::resolve(base_url, None).await?;
    let end = Instant::now() + patience;
    loop {
        let mut connection = Connection::new(&target);
        let answer = connection
            .request(
                Method::GET,
                "/_matrix/client/versions",
                None,
                bytes::Bytes::new(),
            )
            .await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            return Err(Error::Program(format!(
                "the server ended ({status}); see {}",
                log.display()
            )));
        }
        if Instant::now() > end {
            return Err(Error::Program(format!(
                "the server doesn't answer; see {}",
                log.display()
            )));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Runs a program to its end and gives what it printed.
async fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<String> {
    let program = program.as_ref();
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .output()
        .await
        .map_err(|error| Error::Program(format!("{}: {error}", program.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Program(format!(
            "{} {}: {said}",
            program.display(),
            arguments.join(" ")
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A port that is free now.
///
/// # Errors
/// When the machine has none.
#[expect(
    clippy::disallowed_methods,
    reason = "asks the system for a number, serves nothing"
)]
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// Opens the log that a child's output goes to, appended.
fn log_file(path: &Path) -> Result<std::fs::File> {
    Ok(std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?)
}
