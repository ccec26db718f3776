//! Presence: in memory, by a serial that rises with each change.
//!
//! A user is what their most active device is. Nobody writes a timer a user: how long ago the last activity was decides, when
//! somebody asks and when [`Presence::sweep`] looks for those whose state has changed by itself.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::{
    collections::{BTreeMap, HashMap},
    sync::Weak,
    time::Duration,
};

use comity_runtime::{Runtime, watch};
use parking_lot::Mutex;

/// Users remembered; beyond it those offline for longest are forgotten.
const MOST: usize = 100_000;
/// Without activity for so long, an online user is unavailable.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// Without a request for so long, a user is offline.
const GONE: Duration = Duration::from_secs(35);
/// Without a word from their server for so long, another server's user is offline.
const SILENT: Duration = Duration::from_secs(30 * 60);
/// How often those whose state changes by itself are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Activity more recent than this counts as current.
const CURRENT: Duration = Duration::from_secs(60);

/// A user's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Online.
    Online,
    /// Idle, or says so.
    Unavailable,
    /// Not connected, or says so.
    Offline,
}

impl State {
    /// Its name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Unavailable => "unavailable",
            Self::Offline => "offline",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Online, Self::Unavailable, Self::Offline]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// What others see of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The state.
    pub state: State,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// How long ago they last did something; `None`: not since the server started.
    pub last_active_ago: Option<Duration>,
    /// Whether that is now.
    pub currently_active: bool,
}

#[derive(Clone, Debug)]
struct User {
    /// What they, or their client's sync, asked for.
    wanted: State,
    status_msg: Option<String>,
    /// When they last did something.
    active: Option<Duration>,
    /// When their client last made a request, or their server last spoke of them.
    connected: Duration,
    /// Their server says what they are.
    remote: bool,
    /// What was told last, and when by the serial.
    told: State,
    serial: u64,
}

#[derive(Debug, Default)]
struct Users {
    by_id: HashMap<String, User>,
    by_serial: BTreeMap<u64, String>,
    serial: u64,
}

/// The presence of a tenant's users, and of those others told us of.
#[derive(Debug)]
pub struct Presence {
    runtime: Runtime,
    users: Mutex<Users>,
    changed: watch::Sender<u64>,
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            runtime: runtime.clone(),
            users: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Wakes when somebody's presence changes; its value is the serial.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The user sets their presence.
    pub fn set(&self, user_id: &str, state: State, status_msg: Option<String>) {
        self.change(user_id, |user, now| {
            let new_text = user.status_msg != status_msg;
            user.status_msg = status_msg;
            user.wanted = state;
            user.connected = now;
            if state == State::Online {
                user.active = Some(now);
            }
            new_text
        });
    }

    /// The user's client made a request: `wanted` is a sync's `set_presence`, `active` whether the user did something (sent, read).
    pub fn saw(&self, user_id: &str, wanted: Option<State>, active: bool) {
        if wanted == Some(State::Offline) && !active {
            // Such a sync says nothing about the user.
            return;
        }
        self.change(user_id, |user, now| {
            user.connected = now;
            if let Some(wanted) = wanted {
                user.wanted = wanted;
            }
            if active || user.active.is_none() {
                user.active = Some(now);
            }
            false
        });
    }

    /// Another server says what its user is, and how long ago they last did something.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#presence>
    pub fn hear(
        &self,
        user_id: &str,
        state: State,
        status_msg: Option<String>,
        last_active_ago: Option<Duration>,
    ) {
        self.change(user_id, |user, now| {
            let new_text = user.status_msg != status_msg;
            user.status_msg = status_msg;
            user.wanted = state;
            user.connected = now;
            user.remote = true;
            // The clock may have begun after they were last active.
            let active = last_active_ago.map(|ago| now.saturating_sub(ago));
            user.active = active.or(user.active).or(Some(now));
            new_text
        });
    }

    /// What others see of a user.
    pub fn get(&self, user_id: &str) -> Seen {
        let now = self.now();
        let users = self.users.lock();
        let offline = Seen {
            state: State::Offline,
            status_msg: None,
            last_active_ago: None,
            currently_active: false,
        };
        users
            .by_id
            .get(user_id)
            .map_or(offline, |user| user.seen(now))
    }

    /// Those whose presence changed after `serial`, each once, in the order of their last change; and the serial to ask with next.
    pub fn since(&self, serial: u64) -> (Vec<(String, Seen)>, u64) {
        let now = self.now();
        let users = self.users.lock();
        let changed = users
            .by_serial
            .range(serial.saturating_add(1)..)
            .map(|(_, id)| id);
        let seen = |id: &String| Some((id.clone(), users.by_id.get(id)?.seen(now)));
        (changed.filter_map(seen).collect(), users.serial)
    }

    /// Tells of those whose state has changed by the passing of time.
    pub fn sweep(&self) {
        let now = self.now();
        let mut users = self.users.lock();
        let due = users
            .by_id
            .iter()
            .filter(|(_, user)| user.state(now) != user.told);
        let mut due: Vec<_> = due.map(|(id, _)| id.clone()).collect();
        due.sort();
        for id in &due {
            users.tell(id, now);
        }
        if users.by_id.len() > MOST {
            let mut offline: Vec<_> = users
                .by_id
                .iter()
                .filter(|(_, user)| user.told == State::Offline)
                .collect();
            offline.sort_by_key(|(_, user)| user.serial);
            let excess = users.by_id.len() - MOST;
            let gone: Vec<_> = offline
                .into_iter()
                .take(excess)
                .map(|(id, user)| (id.clone(), user.serial))
                .collect();
            for (id, serial) in gone {
                users.by_id.remove(&id);
                users.by_serial.remove(&serial);
            }
        }
        self.changed
            .send_if_modified(|serial| std::mem::replace(serial, users.serial) != users.serial);
    }

    fn change(&self, user_id: &str, edit: impl FnOnce(&mut User, Duration) -> bool) {
        let now = self.now();
        let mut users = self.users.lock();
        let user = users
            .by_id
            .entry(user_id.to_owned())
            .or_insert_with(|| User {
                wanted: State::Online,
                status_msg: None,
                active: None,
                connected: now,
                remote: false,
                told: State::Offline,
                serial: 0,
            });
        let told = edit(user, now) || user.state(now) != user.told;
        if told {
            users.tell(user_id, now);
            self.changed.send_replace(users.serial);
        }
    }

    fn now(&self) -> Duration {
        self.runtime.clock().monotonic()
    }
}

/// Sweeps every [`SWEEP`], until the accounts are closed.
pub(crate) async fn keep(inner: Weak<crate::Inner>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.presence.sweep();
    }
}

impl User {
    fn state(&self, now: Duration) -> State {
        let idle = self
            .active
            .is_none_or(|active| now.saturating_sub(active) >= IDLE);
        let silent = now.saturating_sub(self.connected);
        match self.wanted {
            State::Offline => State::Offline,
            state if self.remote && silent < SILENT => state,
            _ if self.remote || silent >= GONE => State::Offline,
            State::Online if !idle => State::Online,
            _ => State::Unavailable,
        }
    }

    fn seen(&self, now: Duration) -> Seen {
        let state = self.state(now);
        let ago = self.active.map(|active| now.saturating_sub(active));
        Seen {
            state,
            status_msg: self.status_msg.clone(),
            last_active_ago: ago,
            currently_active: state == State::Online && ago.is_some_and(|ago| ago < CURRENT),
        }
    }
}

impl Users {
    fn tell(&mut self, id: &str, now: Duration) {
        let Some(user) = self.by_id.get_mut(id) else {
            return;
        };
        self.serial += 1;
        self.by_serial.remove(&user.serial);
        user.serial = self.serial;
        user.told = user.state(now);
        self.by_serial.insert(self.serial, id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(presence: &Presence, since: u64) -> (Vec<(String, State)>, u64) {
        let (changed, serial) = presence.since(since);
        (
            changed
                .into_iter()
                .map(|(id, seen)| (id, seen.state))
                .collect(),
            serial,
        )
    }

    /// R4.1, R4.2: online on activity, unavailable when idle, offline when the client is gone; each told once.
    #[tokio::test(start_paused = true)]
    async fn r4_1_presence_follows_activity() {
        let presence = Presence::new(&Runtime::simulated(1));
        let mut watch = presence.watch();
        presence.saw("@a:x", Some(State::Online), true);
        presence.saw("@a:x", Some(State::Online), false);
        let told = tokio::time::timeout(Duration::ZERO, watch.changed()).await;
        assert_eq!(told, Ok(Ok(())));
        let (changed, serial) = states(&presence, 0);
        assert_eq!(changed, [("@a:x".to_owned(), State::Online)]);
        assert!(presence.get("@a:x").currently_active);
        for _ in 0..15 {
            tokio::time::advance(Duration::from_secs(20)).await;
            presence.saw("@a:x", Some(State::Online), false);
            presence.sweep();
        }
        let (changed, serial) = states(&presence, serial);
        assert_eq!(changed, [("@a:x".to_owned(), State::Unavailable)]);
        tokio::time::advance(GONE).await;
        watch.mark_unchanged();
        presence.sweep();
        let told = tokio::time::timeout(Duration::ZERO, watch.changed()).await;
        assert_eq!(told, Ok(Ok(())));
        let (changed, serial) = states(&presence, serial);
        assert_eq!(changed, [("@a:x".to_owned(), State::Offline)]);
        assert_eq!(states(&presence, serial).0, []);
        assert_eq!(presence.get("@a:x").last_active_ago, Some(IDLE + GONE));
    }

    /// <https://spec.matrix.org/v1.19/server-server-api/#presence>: what another server says holds
    /// until it says otherwise, and for half an hour at the most.
    #[tokio::test(start_paused = true)]
    async fn another_servers_word_holds() {
        let presence = Presence::new(&Runtime::simulated(1));
        let ago = Some(Duration::ZERO);
        presence.hear("@a:y", State::Online, Some("here".into()), ago);
        let serial = states(&presence, 0).1;
        tokio::time::advance(IDLE * 2).await;
        presence.sweep();
        assert_eq!(states(&presence, serial).0, []);
        let seen = presence.get("@a:y");
        assert_eq!((seen.state, seen.currently_active), (State::Online, false));
        assert_eq!(seen.status_msg.as_deref(), Some("here"));
        tokio::time::advance(SILENT).await;
        presence.sweep();
        assert_eq!(
            states(&presence, serial).0,
            [("@a:y".to_owned(), State::Offline)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_message_is_told_and_an_offline_sync_says_nothing() {
        let presence = Presence::new(&Runtime::simulated(1));
        presence.saw("@a:x", Some(State::Offline), false);
        assert_eq!(states(&presence, 0), (vec![], 0));
        presence.set("@a:x", State::Unavailable, Some("out".into()));
        let serial = states(&presence, 0).1;
        presence.set("@a:x", State::Unavailable, Some("back at 2".into()));
        assert_eq!(
            states(&presence, serial).0,
            [("@a:x".to_owned(), State::Unavailable)]
        );
        assert_eq!(
            presence.get("@a:x").status_msg.as_deref(),
            Some("back at 2")
        );
        presence.set("@a:x", State::Offline, None);
        assert_eq!(presence.get("@a:x").state, State::Offline);
    }
}
