//! Media of other servers: fetched once for all who ask.
//!
//! What is fetched is bounded a file, a user, a server and altogether (threat H6): who has more wait for their turn, a file that
//! comes too slowly breaks off, and what comes is counted for the user whose asking brought it.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use comity_runtime::Runtime;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Content, Elsewhere, Fetched, Media, MediaError, Mxc, NotFetched, Pieces, Wanted,
    allowance::Allowances,
    flights::{Flights, Outcome},
    tables::MediaKey,
    turns::Turns,
    upload::content,
};

/// Files on their way here at once: altogether, for a user, from a server; and that wait.
const FETCHES: usize = 32;
const BY_USER: usize = 8;
const BY_SERVER: usize = 4;
const WAITING: usize = 1_024;
/// For a whole file.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// So many bytes come within this time, or the file's end.
const LEAST: (u64, Duration) = (128 << 10, Duration::from_secs(30));
/// How long it is remembered that a file can't be had.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A file that is here, and the position of its row.
type Found = (Content, u64);

/// What is known of fetching, in memory.
pub(crate) struct Fetching {
    pub elsewhere: OnceLock<Arc<dyn Elsewhere>>,
    pub allowances: Allowances,
    /// By the file, and by whether who asks waits for it to be uploaded.
    flights: Flights<(MediaKey, bool), Found>,
    users: Turns,
    servers: Turns,
    places: Semaphore,
}

impl Fetching {
    pub fn new(runtime: &Runtime, allowance: u64) -> Self {
        Self {
            elsewhere: OnceLock::new(),
            allowances: Allowances::new(runtime, allowance),
            flights: Flights::new(runtime, "media of another server", WAITING, good_for),
            // As many as a room's pictures, of one of eight users.
            users: Turns::new(BY_USER, WAITING / 8),
            servers: Turns::new(BY_SERVER, WAITING / 2),
            places: Semaphore::new(FETCHES),
        }
    }
}

/// What may be uploaded in a moment isn't remembered to be missing.
fn good_for(found: &Outcome<Found>) -> Duration {
    use NotFetched::{NotFound, TooLarge, Unreachable};
    match found {
        Err(MediaError::NotFetched(NotFound | TooLarge | Unreachable(_))) => REMEMBERED,
        _ => Duration::ZERO,
    }
}

impl Media {
    /// From now on other servers are asked for their media.
    pub fn use_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        // Given once, by the composition.
        drop(self.0.fetching.elsewhere.set(elsewhere));
    }

    /// A file of another server and the position of its row; fetched if it isn't here and is wanted so.
    pub(crate) async fn find_remote(&self, mxc: &Mxc, wanted: Wanted<'_>) -> Outcome<Found> {
        let key = MediaKey::from(mxc);
        if let Some(found) = self.cached(&key).await? {
            return Ok(found);
        }
        if !wanted.fetch {
            return Err(MediaError::NotFound);
        }
        // Each waits in a queue of their own, whoever began the flight; a turn lasts as long as what it began.
        let turn = Arc::new(self.0.fetching.users.take(wanted.asker).await?);
        let fetch = || {
            let (media, mxc, turn) = (self.clone(), mxc.clone(), Arc::clone(&turn));
            let (asker, wait) = (wanted.asker.to_owned(), wanted.wait);
            async move {
                let _turn = turn;
                media.fetch(&mxc, &asker, wait).await
            }
        };
        let flight = (key, !wanted.wait.is_zero());
        self.0.fetching.flights.outcome(&flight, fetch).await
    }

    async fn fetch(&self, mxc: &Mxc, asker: &str, wait: Duration) -> Outcome<Found> {
        let fetching = &self.0.fetching;
        let elsewhere = fetching.elsewhere.get().ok_or(MediaError::NotFound)?;
        let _servers = fetching.servers.take(mxc.server().as_str()).await?;
        let place = fetching.places.acquire().await;
        let _place = place.map_err(|_| MediaError::Stopped)?;
        // Another flight may have landed between the look and this one.
        let key = MediaKey::from(mxc);
        if let Some(found) = self.cached(&key).await? {
            return Ok(found);
        }
        fetching.allowances.admit(asker)?;
        let most = self.0.config.max_remote_bytes;
        let whole = async {
            let Fetched { described, body } = elsewhere.media(mxc, wait, most).await?;
            let body = steady(fetching.allowances.spending(asker, body));
            let staged = self.0.blobs.stage(&self.new_id(), body, most).await;
            let staged = staged.map_err(|error| match error {
                MediaError::TooLarge => NotFetched::TooLarge.into(),
                MediaError::Broken => NotFetched::Unreachable("it broke off".to_owned()).into(),
                error => error,
            })?;
            Ok::<_, MediaError>((staged, described))
        };
        let timed_out = || NotFetched::Unreachable("timed out".to_owned());
        let whole = timeout(PATIENCE, whole).await;
        let (staged, described) = whole.map_err(|_| timed_out())??;
        let content = content(&staged, described);
        self.cache(&key, &staged, content).await
    }
}

/// The body, which breaks off when too little comes: who drips holds no place for long.
fn steady(body: Pieces) -> Pieces {
    let (least, within) = LEAST;
    let begin = (body, 0, Instant::now() + within);
    let next = move |(mut body, mut came, mut until): (Pieces, u64, Instant)| async move {
        loop {
            match timeout_at(until, body.next()).await {
                Ok(piece) => {
                    let piece = piece.transpose()?;
                    return Ok(piece.map(|piece| {
                        came += piece.len() as u64;
                        (piece, (body, came, until))
                    }));
                }
                Err(_) if came < least => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                Err(_) => (came, until) = (0, Instant::now() + within),
            }
        }
    };
    stream::try_unfold(begin, next).boxed()
}
