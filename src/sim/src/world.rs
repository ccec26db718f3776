//! What outlives the server: the users with what they know, the ledger, the story.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use axum::Router;
use comity_runtime::Runtime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{fold::Folded, story::Story};

/// What became of something that was asked of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was acknowledged as this event.
    Done(String),
    /// It was refused, whatever came before the refusal.
    Refused,
}

/// Everything but the server.
pub(crate) struct World {
    pub rng: ChaCha8Rng,
    pub lanes: u8,
    pub rooms: Vec<String>,
    pub users: Vec<Known>,
    /// Messages by their text, which no two share.
    pub sent: BTreeMap<String, Fate>,
    /// Topics set, by their text.
    pub topics: BTreeMap<String, Fate>,
    /// The server that requests go to.
    pub router: Option<Router>,
    /// Time and randomness of the servers of this life.
    pub runtime: Option<Runtime>,
    /// How long all lives together have taken.
    pub lived: Duration,
    pub story: RefCell<Story>,
}

/// What a user's client knows, on its own disk.
pub(crate) struct Known {
    pub name: String,
    pub device: String,
    pub token: String,
    pub rng: ChaCha8Rng,
    /// Numbers for texts and transactions.
    pub next: u32,
    /// Asked and not answered; nothing else is asked before it is.
    pub pending: Option<(Ask, u32)>,
    /// The latest acknowledged message, to be sent once more.
    pub last: Option<(Ask, String)>,
    /// Which rooms the server said this user is in.
    pub joined: BTreeMap<String, bool>,
    /// The name given to the device last.
    pub device_name: Option<String>,
    pub fold: Folded,
}

/// What a user may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A message: room, transaction, text.
    Send(String, String, String),
    /// A topic: room, text.
    Topic(String, String),
    Join(String),
    Leave(String),
    /// A name for the own device.
    Rename(String),
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let lanes = if rng.random_range(0..2) == 0 { 1 } else { 4 };
        Self {
            rng,
            lanes,
            rooms: Vec::new(),
            users: Vec::new(),
            sent: BTreeMap::new(),
            topics: BTreeMap::new(),
            router: None,
            runtime: None,
            lived: Duration::ZERO,
            story: RefCell::default(),
        }
    }

    /// Since the first life began.
    pub fn clock(&self) -> Duration {
        let runtime = self.runtime.as_ref();
        runtime.map_or(self.lived, |runtime| runtime.clock().monotonic())
    }

    pub fn tell(&self, line: impl std::fmt::Display) {
        self.story.borrow_mut().tell(line.to_string());
    }
}

impl Known {
    pub fn new(name: String, device: String, token: String, rng: ChaCha8Rng) -> Self {
        Self {
            name,
            device,
            token,
            rng,
            next: 0,
            pending: None,
            last: None,
            joined: BTreeMap::new(),
            device_name: None,
            fold: Folded::default(),
        }
    }
}
