//! Everything there is: servers, users, the network between servers, what was acknowledged, what happened.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use comity_protocol::room_version::RoomVersion;
use comity_testkit::Wire;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::{network::Network, process::Process};
use crate::{fold::Folded, slide::Slid, story::Story};

/// The world as all that happens in it see it; borrowed only between awaits.
pub(crate) type Shared = Rc<RefCell<World>>;

pub(crate) struct World {
    pub rng: ChaCha8Rng,
    pub version: RoomVersion,
    /// Whether memberships change in the storm.
    pub moving: bool,
    /// The room that all of it is about.
    pub room: String,
    pub servers: Vec<Process>,
    /// The first is the room's creator: nobody outranks them, and they stay.
    pub users: Vec<Person>,
    pub wire: Wire,
    pub network: Arc<Mutex<Network>>,
    /// Events that were acknowledged.
    pub ledger: Vec<Acknowledged>,
    pub teller: Teller,
}

/// What a user's client knows.
pub(crate) struct Person {
    /// The number of their server.
    pub server: usize,
    pub id: String,
    pub token: String,
    pub rng: ChaCha8Rng,
    /// Numbers for transactions.
    pub next: u32,
    /// A message that was asked to be sent, by its transaction: asked again until there is an answer.
    pub pending: Option<(String, String)>,
    /// Whether they think that they are in the room.
    pub inside: bool,
    /// Whether they asked to join and got no good answer: who answered them may count them in.
    pub joining: bool,
    /// Messages they saw, oldest first.
    pub messages: Vec<String>,
    /// Every event that a timeline showed them, and whether they were in the room then as their server saw it.
    pub shown: BTreeMap<String, bool>,
    pub fold: Folded,
    /// What another of their clients knows, by sliding sync.
    pub slid: Slid,
    /// Which windows that looks through.
    pub windows: ChaCha8Rng,
}

/// An event that a server said to have made.
pub(crate) struct Acknowledged {
    pub server: usize,
    pub event: String,
    /// Its server was out of the room since: its part of the graph may have stayed behind.
    pub parted: bool,
}

/// Writes the story, with the time of each line.
#[derive(Clone)]
pub(crate) struct Teller {
    story: Arc<Mutex<Story>>,
    began: Instant,
}

impl Teller {
    /// Since the world began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn tell(&self, line: impl std::fmt::Display) {
        let at = self.began.elapsed().as_millis();
        self.story.lock().tell(format!("{at} ms, {line}"));
    }
}

impl World {
    /// A world of this seed, in which nobody lives yet. Call it in its reactor.
    pub fn new(seed: u64, moving: bool, story: &Arc<Mutex<Story>>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let version = version(&mut rng);
        let count = *[3, 3, 3, 3, 3, 4, 4, 5, 6, 7].choose(&mut rng).unwrap();
        let servers = (0..count)
            .map(|number| Process::new(number, &mut rng))
            .collect();
        let teller = Teller {
            story: story.clone(),
            began: Instant::now(),
        };
        teller.tell(format!("room version {version}, {count} servers"));
        let network = Arc::new(Mutex::new(Network::new(rng.random())));
        let wire = Wire::new();
        wire.without_spec();
        let (judge, tells) = (network.clone(), teller.clone());
        wire.judge(move |passing| judge.lock().fate(passing, &tells));
        Self {
            rng,
            version,
            moving,
            room: String::new(),
            servers,
            users: Vec::new(),
            wire,
            network,
            ledger: Vec::new(),
            teller,
        }
    }
}

/// One of all versions, mostly of those that rooms have.
fn version(rng: &mut ChaCha8Rng) -> RoomVersion {
    use RoomVersion::{V6, V10, V11, V12};
    let usual = [V6, V10, V11, V12, V12];
    match rng.random_range(0..4) {
        0 => *RoomVersion::ALL.choose(rng).unwrap(),
        _ => *usual.choose(rng).unwrap(),
    }
}

impl Person {
    pub fn new(server: usize, id: String, token: String, rng: ChaCha8Rng) -> Self {
        // Apart, so that the windows change nothing of what is done.
        let windows = ChaCha8Rng::seed_from_u64(rng.clone().random());
        Self {
            server,
            id,
            token,
            rng,
            next: 0,
            pending: None,
            inside: false,
            joining: false,
            messages: Vec::new(),
            shown: BTreeMap::new(),
            fold: Folded::of_forks(),
            slid: Slid::default(),
            windows,
        }
    }

    /// A number they haven't used.
    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}
