//! The users of W2, W3 and W4: registered once, each in one of fifty rooms (by its place in the list) and all in one big one.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::{Site, Sizes};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account, each};

/// The rooms over which W2's users are spread.
pub const ROOMS: usize = 50;

/// One device and where its syncing stands.
pub struct Listener {
    /// Its account.
    pub account: Account,
    /// What it syncs by: a stored filter or one in words.
    pub filter: String,
    /// The token of its last answer.
    pub since: Mutex<String>,
}

/// A room with the account that sends in it, which itself doesn't sync.
pub struct Stage {
    /// The room's ID, percent-encoded.
    pub room: String,
    /// Its creator.
    pub speaker: Account,
}

/// Everyone.
pub struct Crowd {
    /// The users.
    pub listeners: Vec<Arc<Listener>>,
    /// The fifty rooms.
    pub stages: Vec<Arc<Stage>>,
    /// The room all are in.
    pub hall: Arc<Stage>,
}

async fn stage(connection: &mut Connection, site: &Site, name: &str) -> Result<(Stage, String)> {
    let speaker = matrix::register(connection, &site.unique(), site.secret.as_deref()).await?;
    let room = matrix::create_room(connection, &speaker, name).await?;
    Ok((
        Stage {
            room: matrix::encode(&room),
            speaker,
        },
        room,
    ))
}

/// Registers as many users as the largest case needs and joins them to their rooms.
///
/// # Errors
/// When the server refuses any of it.
pub async fn prepare(site: &Site, sizes: &Sizes) -> Result<Crowd> {
    let largest = sizes
        .listeners
        .iter()
        .chain(&sizes.waiting)
        .copied()
        .max()
        .unwrap_or(0);
    let polling = if sizes.polls.is_empty() {
        0
    } else {
        sizes.poll_accounts
    };
    let count = largest.max(polling);
    let stages = each(
        &site.target,
        4,
        (0..ROOMS).collect(),
        async |connection, _| stage(connection, site, "stage").await,
    )
    .await?;
    let (hall, hall_id) = stage(&mut Connection::new(&site.target), site, "hall").await?;
    let listeners = each(&site.target, 8, (0..count).collect(), async |connection, index: usize| {
        let account = matrix::register(connection, &site.unique(), site.secret.as_deref()).await?;
        let (_, id) = stages.get(index % ROOMS).ok_or_else(|| Error::Program("no rooms".to_owned()))?;
        matrix::join(connection, &account, id).await?;
        matrix::join(connection, &account, &hall_id).await?;
        let filter = json!({"room": {"state": {"lazy_load_members": true}, "timeline": {"limit": 50}},
            "presence": {"types": []}});
        let filter = matrix::upload_filter(connection, &account, filter).await?;
        let (since, _) = matrix::sync(connection, &account, None, Some(&filter), 0).await?;
        Ok(Arc::new(Listener { account, filter, since: Mutex::new(since) }))
    })
    .await?;
    let stages = stages
        .into_iter()
        .map(|(stage, _)| Arc::new(stage))
        .collect();
    Ok(Crowd {
        listeners,
        stages,
        hall: Arc::new(hall),
    })
}

impl Crowd {
    /// The first `count` users, each brought up to date.
    ///
    /// # Errors
    /// When a sync fails.
    pub async fn awake(&self, site: &Site, count: usize) -> Result<Vec<Arc<Listener>>> {
        awake(site, self.listeners.iter().take(count).cloned().collect()).await
    }
}

/// Brings all of them up to date.
///
/// # Errors
/// When a sync fails.
pub async fn awake(site: &Site, listeners: Vec<Arc<Listener>>) -> Result<Vec<Arc<Listener>>> {
    each(&site.target, 8, listeners, async |connection, listener| {
        // Until the token stays: it may lag behind what the account has just done. (A server that
        // gives a new one each time is up to date after a few as well.)
        for _ in 0..5 {
            let since = listener.since.lock().clone();
            let (next, _) = matrix::sync(
                connection,
                &listener.account,
                Some(&since),
                Some(&listener.filter),
                0,
            )
            .await?;
            let settled = next == since;
            *listener.since.lock() = next;
            if settled {
                break;
            }
        }
        Ok(listener)
    })
    .await
}
