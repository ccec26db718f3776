//! The command line.

mod check;
mod doctor;
mod restored;
mod serve;
mod token;
mod user;

use std::{
    fmt::Display,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use comity_runtime::Runtime;

use crate::{
    config::{self, Config},
    keys::Keys,
    operator::{self, Order},
};

/// The command by which the server starts a worker.
pub(crate) const RENDER: &str = "render-picture";

/// A Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "comity", version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration file. Without one, environment variables and defaults apply.
    #[arg(long, short, global = true, env = "COMITY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or SIGINT.
    Serve,
    /// Make, list, reset and end accounts, also while the server runs.
    User(user::User),
    /// Make, list and remove registration tokens, by which people sign up where not everybody may.
    RegistrationToken(token::Token),
    /// The key that other servers know this one by.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Check or explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Walk the store of a server that is stopped and say what is not as it should be.
    ///
    /// Each row by itself (its table, its place, its position), then rows together: events with their ids, headers,
    /// bodies and places; states down to the last node; auth chains; memberships, summaries, relations, threads, receipts,
    /// aliases; accounts with their devices and sessions; the keys of devices and how many are left; messages to devices and
    /// their totals; key backups and their counts; connections of sliding sync; media and its files. No row is changed; what a
    /// crash left in the write-ahead log goes into the store's files, as at a start.
    ///
    /// What can't be counted again isn't: which events notify, since the push rules and the room as they were when an event
    /// came are kept nowhere (totals go on by one event at most, and receipts agree with them); how often a registration
    /// token was used; how often a backup has changed. What federation has under way, tags and reports are only looked at
    /// row by row.
    ///
    /// Each finding is a line: which room or user, what doesn't hold, where; none has content in it. Says on standard error
    /// how far it has come. Ends with status 1 if there was a finding.
    Check,
    /// Tell the store that it was put back from a backup, once, before the server is started on it.
    ///
    /// A backup is a copy of `data_dir`, keys included, made while the server is stopped or by a snapshot of its file system; with
    /// PostgreSQL, of the database and of `data_dir` after it. Without a `data_dir` of the same time, or with media in a bucket, `comity
    /// check` says what files are missing.
    ///
    /// What was given out or revoked since the backup was made is known to clients and other servers, and no more to the store. So it
    /// begins a new incarnation: everybody stays signed in as a device but has to give the password again; clients are told their
    /// rooms anew; one-time keys of before are not given to anybody, for they may have been; what other servers follow begins at
    /// higher numbers than any they were told. Without this word it would go on as if nothing had happened.
    Restored {
        /// Say that no server runs on the store, where that can't be seen (PostgreSQL). One that does would lose the store and end.
        #[arg(long)]
        offline: bool,
    },
    /// Make a picture smaller: what the server starts for each that it must not decode by itself.
    #[command(hide = true, name = RENDER)]
    Render,
    /// Look for what would keep the server from running well: configuration, ports, clock, disk, keys, store.
    Doctor,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a new signing key, which the next start takes. The old one is published as such from then on.
    Rotate,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration can be used.
    Check,
    /// Print a configuration file with every key, its default and its meaning.
    Reference,
}

/// Why a command failed: what to print, a line each.
#[derive(Debug)]
pub(crate) struct Failure(Vec<String>);

impl Failure {
    fn new(cause: impl Display) -> Self {
        Self(vec![cause.to_string()])
    }

    /// With what was being done.
    fn doing(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self(vec![format!("{what}: {cause}")])
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = arguments.config.as_deref();
    let done = match arguments.command {
        Command::User(user) => load(file).and_then(|config| user::user(user, &config)),
        Command::RegistrationToken(token) => {
            load(file).and_then(|config| token::token(token, &config))
        }
        Command::Key(KeyCommand::Rotate) => load(file).and_then(|config| rotate(&config)),
        Command::Config(ConfigCommand::Reference) => print(&config::reference()),
        Command::Config(ConfigCommand::Check) => check_config(file),
        Command::Serve => load(file).and_then(serve::serve),
        Command::Check => load(file).and_then(|config| check::check(&config)),
        Command::Restored { offline } => {
            load(file).and_then(|config| restored::restored(&config, offline))
        }
        Command::Render => comity_media::work().map_err(Failure::doing("cannot render")),
        Command::Doctor => doctor::doctor(load(file)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(lines)) => {
            for line in lines {
                let _ = writeln!(io::stderr(), "error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn load(file: Option<&Path>) -> Result<Config, Failure> {
    // A variable that is no text can't be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != "COMITY_CONFIG");
    Config::load(file, environment)
        .map_err(|problems| Failure(problems.iter().map(ToString::to_string).collect()))
}

fn check_config(file: Option<&Path>) -> Result<(), Failure> {
    let config = load(file)?;
    print(&format!(
        "The configuration can be used: {} at {}, data in {}.\n",
        config.server_name,
        config.public_baseurl,
        config.data_dir.display()
    ))
}

/// Has an order of the operator's done, and prints what came of it.
fn order(config: &Config, order: &Order, offline: bool) -> Result<(), Failure> {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::doing("cannot start the reactor"))?
        .block_on(operator::give(config, order, offline));
    print(&done.map_err(Failure::new)?)
}

fn rotate(config: &Config) -> Result<(), Failure> {
    let key = Keys::rotate(&config.data_dir, &Runtime::system()).map_err(Failure::new)?;
    print(&format!("Made {key}; restart the server to use it.\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has read enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Failure::doing("cannot print")),
    }
}
