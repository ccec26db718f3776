//! What the operator may ask for on the command line, done by whoever has the store.
//!
//! While the server runs, its rows are its own: the command is sent to it through a socket in `data_dir`, which only the server's
//! own user may open. Otherwise the command opens the store itself. Either way the same code does it. An embedded store lets one
//! process in at a time; PostgreSQL lets the last one have the lanes, so that there the command only goes on if it is said that no
//! server runs.

use std::{fmt::Write as _, fs::Permissions, io, os::unix::fs::PermissionsExt, path::Path};

use comity_accounts::Registration;
use comity_house::House;
use comity_runtime::Runtime;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::{
    config::{Config, StorageEngine},
    house,
};

/// The largest command or answer, in bytes.
const MOST: u64 = 16 << 20;
/// Users read at once.
const PAGE: usize = 1_000;

/// A command.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Makes an account.
    AddUser {
        /// The localpart.
        name: String,
        /// The password; `None`: a random one, which is in the answer.
        password: Option<String>,
        /// Whether it is to be an administrator.
        admin: bool,
    },
    /// Lists the accounts.
    ListUsers,
    /// Sets a new password and ends all sessions.
    ResetPassword {
        /// The localpart or the user id.
        name: String,
        /// The password; `None`: a random one, which is in the answer.
        password: Option<String>,
    },
    /// Ends an account for good.
    Deactivate {
        /// The localpart or the user id.
        name: String,
    },
    /// Makes a registration token.
    AddToken {
        /// How many accounts it is good for; `None`: any number.
        uses: Option<u32>,
        /// For how many days it is good; `None`: until it is removed.
        days: Option<u32>,
    },
    /// Lists the registration tokens.
    ListTokens,
    /// Removes a registration token.
    RemoveToken {
        /// The token.
        token: String,
    },
}

/// A day in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1_000;

/// What to print, or why it was not done.
type Outcome = Result<String, String>;

/// Has the command done by the server that runs, or without one. `offline` says that none runs, where that can't be seen.
///
/// # Errors
/// Why it was not done.
pub async fn give(config: &Config, order: &Order, offline: bool) -> Outcome {
    if let Some(stream) = running(config, offline).await? {
        let answer = ask(stream, order).await;
        return answer.map_err(|error| format!("the running server did not answer: {error}"))?;
    }
    let house = house::open(config, &Runtime::system()).await?;
    let outcome = obey(&house, order).await;
    house.close().await.map_err(|error| error.to_string())?;
    outcome
}

/// The server that runs on this `data_dir`, if one does. `offline` says that none runs on the store, where that can't be seen.
///
/// # Errors
/// It can't be seen and isn't said.
pub async fn running(config: &Config, offline: bool) -> Result<Option<UnixStream>, String> {
    let socket = socket(config);
    match UnixStream::connect(&socket).await {
        Ok(stream) => Ok(Some(stream)),
        // No server, or one that was killed.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            if config.storage.engine == StorageEngine::Postgres && !offline {
                return Err(format!(
                    "no server listens at {}: if one runs, give the command on its machine with its data_dir; if none \
                     does, add --offline (a server that runs all the same would lose the store and end)",
                    socket.display()
                ));
            }
            Ok(None)
        }
        Err(error) => Err(format!("{}: {error}", socket.display())),
    }
}

async fn ask(mut stream: UnixStream, order: &Order) -> io::Result<Outcome> {
    stream.write_all(&serde_json::to_vec(order)?).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Takes commands until the process ends.
///
/// # Errors
/// The socket can't be made.
pub fn serve(config: &Config, house: &House, runtime: &Runtime) -> io::Result<()> {
    let socket = socket(config);
    // What a killed server left; whoever runs now has the store, so nobody else listens there.
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    let house = house.clone();
    drop(runtime.spawn("operator", async move {
        // One after another: an operator has two hands.
        loop {
            let answered = match listener.accept().await {
                Ok((stream, _)) => answer(stream, &house).await,
                Err(error) => {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    Err(error)
                }
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "a command of the operator's was not answered");
            }
        }
    }));
    Ok(())
}

async fn answer(mut stream: UnixStream, house: &House) -> io::Result<()> {
    let mut order = Vec::new();
    let reading = async { (&mut stream).take(MOST).read_to_end(&mut order).await };
    tokio::time::timeout(std::time::Duration::from_secs(5), reading).await??;
    let outcome = match serde_json::from_slice(&order) {
        Ok(order) => obey(house, &order).await,
        Err(_) => Err("the command is of another version than the server".to_owned()),
    };
    stream.write_all(&serde_json::to_vec(&outcome)?).await
}

fn socket(config: &Config) -> std::path::PathBuf {
    Path::new(&config.data_dir).join("operator.sock")
}

async fn obey(house: &House, order: &Order) -> Outcome {
    let accounts = &house.api.accounts;
    let known = |name: &str| {
        accounts
            .local_user_id(name)
            .ok_or_else(|| format!("{name} can't be a user of this server"))
    };
    let said = |error: comity_accounts::AccountError| error.to_string();
    let now = house.tenant.runtime().clock().now_ms();
    let mut text = String::new();
    match order {
        Order::AddUser {
            name,
            password,
            admin,
        } => {
            let (password, shown) = chosen(house, password.as_ref());
            let new = Registration {
                username: Some(name.clone()),
                password: Some(password),
                admin: *admin,
                ..Registration::default()
            };
            let made = accounts.register(new).await.map_err(said)?;
            let _ = writeln!(text, "{} is there.{shown}", made.user_id); // a String takes everything
        }
        Order::ListUsers => {
            let mut after: Option<String> = None;
            loop {
                let page = accounts.users(after.as_deref(), PAGE).await.map_err(said)?;
                for (id, user) in &page {
                    let marks = [
                        (user.admin, " admin"),
                        (user.guest, " guest"),
                        (user.locked, " locked"),
                        (user.suspended, " suspended"),
                        (user.deactivated, " deactivated"),
                    ];
                    let marks: String = marks
                        .into_iter()
                        .filter_map(|(is, mark)| is.then_some(mark))
                        .collect();
                    let _ = writeln!(text, "{id}{marks}");
                }
                match page.last() {
                    Some((last, _)) => after = Some(last.clone()),
                    None => break,
                }
            }
        }
        Order::ResetPassword { name, password } => {
            let user_id = known(name)?;
            let (password, shown) = chosen(house, password.as_ref());
            accounts
                .set_password(&user_id, &password)
                .await
                .map_err(said)?;
            accounts.logout_all(&user_id, None).await.map_err(said)?;
            let _ = writeln!(
                text,
                "{user_id} has a new password and is signed out everywhere.{shown}"
            );
        }
        Order::Deactivate { name } => {
            let user_id = known(name)?;
            house.api.deactivate(&user_id, false).await.map_err(said)?;
            let _ = writeln!(text, "{user_id} is deactivated.");
        }
        Order::AddToken { uses, days } => {
            let expires_ts = days.map(|days| now.saturating_add(u64::from(days) * DAY));
            let made = accounts.create_registration_token(None, *uses, expires_ts);
            let _ = writeln!(text, "{}", made.await.map_err(said)?);
        }
        Order::ListTokens => {
            for (token, row) in accounts.registration_tokens().await.map_err(said)? {
                let most = row.uses_allowed.map(|most| format!(" of {most}"));
                let left = row.expires_ts.map(|ts| match ts.checked_sub(now) {
                    Some(left) => format!(", good for {} more days", left.div_ceil(DAY)),
                    None => ", expired".to_owned(),
                });
                let (most, left) = (most.unwrap_or_default(), left.unwrap_or_default());
                let _ = writeln!(text, "{token} {}{most} used{left}", row.uses);
            }
        }
        Order::RemoveToken { token } => {
            let tokens = accounts.registration_tokens().await.map_err(said)?;
            if !tokens.iter().any(|(known, _)| known == token) {
                return Err("There is no such registration token.".to_owned());
            }
            let removed = accounts.delete_registration_token(token);
            removed.await.map_err(said)?;
            let _ = writeln!(text, "{token} is removed.");
        }
    }
    Ok(text)
}

/// The password, and what to print of it.
fn chosen(house: &House, password: Option<&String>) -> (String, String) {
    match password {
        Some(password) => (password.clone(), String::new()),
        None => {
            let password = house.tenant.runtime().random().alphanumeric(16);
            let shown = format!(" Password: {password}");
            (password, shown)
        }
    }
}
