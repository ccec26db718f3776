//! `comity user …`: accounts, from the command line.

use std::io::{self, Read};

use clap::{Args, Subcommand};

use super::{Failure, order};
use crate::{config::Config, operator::Order};

#[derive(Debug, Args)]
pub(super) struct User {
    /// Say that no server runs on the store, where that can't be seen (PostgreSQL). One that does would lose the store and end.
    #[arg(long, global = true)]
    offline: bool,

    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make an account.
    Add {
        /// Its name: `alice` of `@alice:example.org`.
        name: String,
        /// Make it a server administrator.
        #[arg(long)]
        admin: bool,
        /// Read the password from standard input, instead of making one up and printing it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// List all accounts.
    List,
    /// Set a new password and sign the user out everywhere.
    ResetPassword {
        /// The user's name or id.
        name: String,
        /// Read the password from standard input, instead of making one up and printing it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// End an account for good: it leaves its rooms, and its name is never given to anybody else.
    Deactivate {
        /// The user's name or id.
        name: String,
    },
}

/// Does what is said, through the running server or without one.
pub(super) fn user(user: User, config: &Config) -> Result<(), Failure> {
    let asked = match user.command {
        UserCommand::Add {
            name,
            admin,
            password_stdin,
        } => Order::AddUser {
            name,
            admin,
            password: password(password_stdin)?,
        },
        UserCommand::List => Order::ListUsers,
        UserCommand::ResetPassword {
            name,
            password_stdin,
        } => Order::ResetPassword {
            name,
            password: password(password_stdin)?,
        },
        UserCommand::Deactivate { name } => Order::Deactivate { name },
    };
    order(config, &asked, user.offline)
}

/// The first line of standard input, if it is to be read. Never an argument: those are for everybody to see.
fn password(from_stdin: bool) -> Result<Option<String>, Failure> {
    if !from_stdin {
        return Ok(None);
    }
    let mut text = String::new();
    io::stdin()
        .take(4_096)
        .read_to_string(&mut text)
        .map_err(Failure::doing("cannot read the password"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
        _ => Err(Failure::new("there is no password on standard input")),
    }
}
