//! `comity registration-token …`: who may sign up where not everybody may.

use clap::{Args, Subcommand};

use super::{Failure, order};
use crate::{config::Config, operator::Order};

#[derive(Debug, Args)]
pub(super) struct Token {
    /// Say that no server runs on the store, where that can't be seen (PostgreSQL). One that does would lose the store and end.
    #[arg(long, global = true)]
    offline: bool,

    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it.
    Add {
        /// How many accounts it is good for. Without, as many as come.
        #[arg(long)]
        uses: Option<u32>,
        /// For how many days it is good. Without, until it is removed.
        #[arg(long)]
        days: Option<u32>,
    },
    /// List all tokens.
    List,
    /// Remove a token; the accounts made by it stay.
    Remove {
        /// The token.
        token: String,
    },
}

/// Does what is said, through the running server or without one.
pub(super) fn token(token: Token, config: &Config) -> Result<(), Failure> {
    let asked = match token.command {
        TokenCommand::Add { uses, days } => Order::AddToken { uses, days },
        TokenCommand::List => Order::ListTokens,
        TokenCommand::Remove { token } => Order::RemoveToken { token },
    };
    order(config, &asked, token.offline)
}
