//! What outlives the server: the users with what they know, the ledger, the story.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use axum::Router;
use comity_runtime::Runtime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{fold::Folded, slide::Slid, story::Story};

/// What became of something that was asked of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was acknowledged as this event.
    Done(String),
    /// It was refused, whatever came before the refusal.
    Refused,
    /// It was acknowledged as this event by a server that does not wait for the disk, and then the power went.
    Perhaps(String),
}

/// The ledger: what became of whatever makes an event, by its text, which no two share.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub messages: BTreeMap<String, Fate>,
    pub topics: BTreeMap<String, Fate>,
    /// Redactions by the event they redact.
    pub redactions: BTreeMap<String, Fate>,
    /// Replies in threads: their event and the thread's first.
    pub replies: BTreeMap<String, String>,
    /// Rows of the above that a power cut may take, since the life began.
    at_risk: Vec<(Kind, String)>,
}

/// A part of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    Topic,
    Redaction,
}

impl Ledger {
    fn part(&mut self, kind: Kind) -> &mut BTreeMap<String, Fate> {
        match kind {
            Kind::Message => &mut self.messages,
            Kind::Topic => &mut self.topics,
            Kind::Redaction => &mut self.redactions,
        }
    }

    pub fn note(&mut self, kind: Kind, text: &str, fate: Fate) {
        self.part(kind).insert(text.to_owned(), fate);
        self.at_risk.push((kind, text.to_owned()));
    }

    /// All that was acknowledged so far is on the disk.
    pub fn safe(&mut self) {
        self.at_risk.clear();
    }

    /// What was at risk may be gone.
    fn lost(&mut self) {
        for (kind, text) in std::mem::take(&mut self.at_risk) {
            if let Some(fate) = self.part(kind).get_mut(&text)
                && let Fate::Done(event) = fate
            {
                *fate = Fate::Perhaps(std::mem::take(event));
            }
        }
    }
}

/// Everything but the server.
pub(crate) struct World {
    pub rng: ChaCha8Rng,
    pub lanes: u8,
    pub rooms: Vec<String>,
    pub users: Vec<Known>,
    /// Whether the server of this life waits for the disk.
    pub sync: bool,
    pub ledger: Ledger,
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
    /// Empty for who must sign in again.
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
    /// What the own account data was set to last.
    pub data: Option<String>,
    /// Own messages, by room: what may be read, redacted, replied to.
    pub said: Vec<(String, String)>,
    /// The events read up to, by room: the receipt stands at the last of them in the room's order.
    pub read: BTreeMap<String, Vec<String>>,
    pub fold: Folded,
    /// What another of the user's clients knows, by sliding sync.
    pub slid: Slid,
    /// When that asks, and for which windows.
    pub windows: ChaCha8Rng,
}

/// What a user may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A message: room, transaction, text; the thread it is a reply in.
    Send(String, String, String, Option<String>),
    /// Takes a message's content away: room, transaction, event.
    Redact(String, String, String),
    /// Has read up to an event: room, event.
    Read(String, String),
    /// Account data of one's own.
    Data(String),
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
            sync: true,
            ledger: Ledger::default(),
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

    /// The power went on a server that does not wait for the disk: what this life acknowledged may never have been.
    pub fn lost(&mut self) {
        self.tell("what this life acknowledged may be lost");
        self.ledger.lost();
        for user in &mut self.users {
            // What was revoked may be good again, so that no session outlives such a loss.
            user.token.clear();
            (user.last, user.device_name, user.data) = (None, None, None);
            user.joined.clear();
            user.said.clear();
            user.read.clear();
            user.fold.doubtful = true;
        }
    }

    pub fn tell(&self, line: impl std::fmt::Display) {
        self.story.borrow_mut().tell(line.to_string());
    }
}

impl Known {
    pub fn new(name: String, device: String, token: String, rng: ChaCha8Rng) -> Self {
        // Apart, so that the windows change nothing of what is done.
        let windows = ChaCha8Rng::seed_from_u64(rng.clone().random());
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
            data: None,
            said: Vec::new(),
            read: BTreeMap::new(),
            fold: Folded::default(),
            slid: Slid::default(),
            windows,
        }
    }
}
