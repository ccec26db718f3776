//! What this node knows of sessions in use: verified tokens by their hash, and a handle a session that says when it ends.
//!
//! The problem: a token must cost no read, yet die everywhere within a second of its revocation. So a token's first request
//! reads the session's row, later ones find it here; and every change of a session comes by its lane's log (`Change`), which
//! [`Live::apply`] takes in. A handle is registered *before* the row is read: a revocation that the read misses finds the handle.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use comity_runtime::watch;
use parking_lot::Mutex;

use crate::{change::Change, tables::SessionId};

/// Tokens remembered; twice as many at the most.
const REMEMBERED: usize = 50_000;

pub(crate) type TokenHash = [u8; 32];

/// Who makes a request, by their access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user's id.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// A guest account.
    pub guest: bool,
    /// A server administrator.
    pub admin: bool,
    /// Suspended: may read, not act.
    pub suspended: bool,
    /// When the token expires, in milliseconds since 1970; `None`: not by itself.
    pub expires_ts: Option<u64>,
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
}

/// One session in use on this node.
#[derive(Debug)]
pub(crate) struct Handle {
    session: SessionId,
    ended: watch::Sender<bool>,
    /// Raised when what requests know of the user has changed.
    version: AtomicU64,
    from_generation: AtomicU32,
}

impl Handle {
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    fn end(&self) {
        self.ended.send_replace(true);
    }
}

/// A request's proof of who makes it, and the wire by which it learns that they no longer may.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who makes the request.
    pub requester: Arc<Requester>,
    pub(crate) handle: Arc<Handle>,
}

impl Authenticated {
    /// Waits until the session ends: logged out, locked, deactivated, its device deleted. What waits on behalf of a request
    /// (a long poll, a socket) waits for this too (R1.5).
    pub async fn ended(&self) {
        let mut ended = self.handle.ended.subscribe();
        // The sender lives as long as the handle.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether the session has ended.
    pub fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }
}

#[derive(Clone, Debug)]
struct Entry {
    verified: Authenticated,
    version: u64,
}

/// A map that forgets what wasn't asked for since it was last half full.
#[derive(Debug, Default)]
struct Remembered {
    hot: HashMap<TokenHash, Entry>,
    cold: HashMap<TokenHash, Entry>,
}

impl Remembered {
    fn get(&mut self, hash: &TokenHash) -> Option<Entry> {
        if let Some(entry) = self.hot.get(hash) {
            return Some(entry.clone());
        }
        let entry = self.cold.remove(hash)?;
        self.insert(*hash, entry.clone());
        Some(entry)
    }

    fn insert(&mut self, hash: TokenHash, entry: Entry) {
        if self.hot.len() >= REMEMBERED {
            self.cold = mem::take(&mut self.hot);
        }
        self.hot.insert(hash, entry);
    }

    fn remove(&mut self, hash: &TokenHash) {
        self.hot.remove(hash);
        self.cold.remove(hash);
    }
}

/// Handles by user.
#[derive(Debug, Default)]
struct Handles {
    users: HashMap<String, Vec<Weak<Handle>>>,
    sweep_at: usize,
}

/// The sessions in use on this node.
#[derive(Debug)]
pub(crate) struct Live {
    tokens: Mutex<Remembered>,
    handles: Mutex<Handles>,
    /// Whether revocations are being heard; if not, nothing remembered counts.
    listening: AtomicBool,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            tokens: Mutex::default(),
            handles: Mutex::default(),
            listening: AtomicBool::new(true),
        }
    }
}

impl Live {
    /// Who a token stands for, if that is known and still true. Expiry is the caller's to compare.
    pub(crate) fn get(&self, hash: &TokenHash) -> Option<Authenticated> {
        if !self.listening.load(Ordering::Acquire) {
            return None;
        }
        let mut tokens = self.tokens.lock();
        let entry = tokens.get(hash)?;
        let handle = &entry.verified.handle;
        let current = entry.version == handle.version()
            && !handle.has_ended()
            && entry.verified.requester.generation
                >= handle.from_generation.load(Ordering::Acquire);
        if !current {
            tokens.remove(hash);
            return None;
        }
        Some(entry.verified)
    }

    /// Remembers what was read about a token while its handle had this version.
    pub(crate) fn insert(&self, hash: TokenHash, verified: Authenticated, version: u64) {
        self.tokens.lock().insert(hash, Entry { verified, version });
    }

    /// The handle of a session: to be taken before its row is read.
    pub(crate) fn handle(&self, user: &str, session: SessionId) -> Arc<Handle> {
        let mut handles = self.handles.lock();
        if handles.users.len() > handles.sweep_at {
            for of_user in handles.users.values_mut() {
                of_user.retain(|handle| handle.strong_count() > 0);
            }
            handles.users.retain(|_, of_user| !of_user.is_empty());
            handles.sweep_at = 1024.max(2 * handles.users.len());
        }
        let of_user = handles.users.entry(user.to_owned()).or_default();
        of_user.retain(|handle| handle.strong_count() > 0);
        let mut known = of_user.iter().filter_map(Weak::upgrade);
        if let Some(handle) = known.find(|h| h.session == session && !h.has_ended()) {
            return handle;
        }
        let handle = Arc::new(Handle {
            session,
            ended: watch::Sender::new(false),
            version: AtomicU64::new(0),
            from_generation: AtomicU32::new(0),
        });
        of_user.push(Arc::downgrade(&handle));
        handle
    }

    /// Takes in a change that was committed, here or on another node. Taking it in twice does no harm.
    pub(crate) fn apply(&self, user: &str, change: &Change) {
        match change {
            Change::TokensEnded {
                session,
                from_generation,
            } => {
                for handle in self.of(user).iter().filter(|h| h.session == *session) {
                    match from_generation {
                        Some(from) => {
                            handle.from_generation.fetch_max(*from, Ordering::AcqRel);
                        }

                        None => handle.end(),
                    }
                }
            }
            Change::Standing { ended } => {
                for handle in self.of(user) {
                    handle.version.fetch_add(1, Ordering::AcqRel);
                    if *ended {
                        handle.end();
                    }
                }
            }
            _ => {}
        }
    }

    /// Says whether revocations are being heard.
    pub(crate) fn set_listening(&self, listening: bool) {
        if !listening {
            // What is missed meanwhile must not come back with the next insertion.
            *self.tokens.lock() = Remembered::default();
        }
        self.listening.store(listening, Ordering::Release);
    }

    fn of(&self, user: &str) -> Vec<Arc<Handle>> {
        let handles = self.handles.lock();
        let of_user = handles.users.get(user).into_iter().flatten();
        of_user.filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "@a:x";

    fn remember(live: &Live, hash: u8, session: u8, generation: u32) -> Authenticated {
        let handle = live.handle(USER, [session; 16]);
        let version = handle.version();
        let requester = Arc::new(Requester {
            user_id: USER.into(),
            device_id: "D".into(),
            guest: false,
            admin: false,
            suspended: false,
            expires_ts: None,
            session: [session; 16],
            generation,
        });
        let verified = Authenticated { requester, handle };
        live.insert([hash; 32], verified.clone(), version);
        verified
    }

    #[test]
    fn r1_5_an_ended_session_is_forgotten_and_says_so() {
        let live = Live::default();
        let (ended, other) = (remember(&live, 1, 1, 0), remember(&live, 2, 2, 0));
        let change = Change::TokensEnded {
            session: [1; 16],
            from_generation: None,
        };
        live.apply(USER, &change);
        assert!(live.get(&[1; 32]).is_none() && live.get(&[2; 32]).is_some());
        assert!(ended.has_ended() && !other.has_ended());
    }

    #[test]
    fn r1_3_a_used_generation_ends_those_before() {
        let live = Live::default();
        remember(&live, 1, 1, 1);
        remember(&live, 2, 1, 2);
        let change = Change::TokensEnded {
            session: [1; 16],
            from_generation: Some(2),
        };
        live.apply(USER, &change);
        assert!(live.get(&[1; 32]).is_none() && live.get(&[2; 32]).is_some());
    }

    #[test]
    fn a_changed_standing_is_read_again() {
        let live = Live::default();
        let open = remember(&live, 1, 1, 0);
        live.apply(USER, &Change::Standing { ended: false });
        assert!(live.get(&[1; 32]).is_none() && !open.has_ended());
        remember(&live, 1, 1, 0);
        assert!(live.get(&[1; 32]).is_some());
        live.apply(USER, &Change::Standing { ended: true });
        assert!(live.get(&[1; 32]).is_none() && open.has_ended());
    }

    #[test]
    fn nothing_counts_while_revocations_are_not_heard() {
        let live = Live::default();
        remember(&live, 1, 1, 0);
        live.set_listening(false);
        remember(&live, 2, 1, 0);
        assert!(live.get(&[2; 32]).is_none());
        live.set_listening(true);
        assert!(live.get(&[1; 32]).is_none() && live.get(&[2; 32]).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let live = Live::default();
        let verified = remember(&live, 0, 1, 0);
        for n in 0..(3 * REMEMBERED as u32) {
            let mut hash = [1; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            live.insert(hash, verified.clone(), 0);
        }
        let tokens = live.tokens.lock();
        assert!(tokens.hot.len() + tokens.cold.len() <= 2 * REMEMBERED);
    }
}
