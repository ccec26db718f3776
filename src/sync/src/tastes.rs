//! What rooms ask of accounts: the push rules of this server's users, and whom they ignore.
//!
//! Rooms and accounts don't know each other; here one is put to the other. Compiled rules are kept
//! until their user changes them, which the logs tell.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use comity_accounts::{Accounts, Change, IGNORED_USERS, PUSH_RULES};
use comity_protocol::{
    id::OwnedUserId,
    push::{CompiledRules, UserRules},
};
use comity_rooms::{PushRules, RoomError};
use parking_lot::Mutex;

/// Users whose rules are kept compiled.
const KEPT: usize = 10_000;
/// Changes remembered; who asks for older ones looks at everybody again.
const CHANGES: usize = 1_024;
/// How long to wait before the log is read again after a failure.
const RETRY: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct Tastes {
    accounts: Accounts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    serial: u64,
    /// Who changed something, by serial, oldest first.
    changes: VecDeque<(u64, OwnedUserId)>,
    kept: HashMap<OwnedUserId, Option<comity_rooms::Tastes>>,
}

impl Tastes {
    /// Follows the accounts' changes from now on.
    pub(crate) fn follow(accounts: Accounts) -> Arc<Self> {
        let tenant = accounts.tenant().clone();
        let mut follower = tenant.follow(tenant.heads());
        let tastes = Arc::new(Self {
            accounts,
            state: Mutex::default(),
        });
        let following = Arc::downgrade(&tastes);
        drop(tenant.runtime().spawn("push rules", async move {
            loop {
                let logged = match follower.next().await {
                    Ok(logged) => logged,
                    Err(error) => {
                        tracing::warn!(%error, "the log could not be read");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                };
                let Some(tastes) = following.upgrade() else {
                    return;
                };
                for record in logged.iter().flat_map(|logged| &logged.records) {
                    if let Some(Change::AccountData { kind }) = Change::of(record)
                        && (kind == PUSH_RULES || kind == IGNORED_USERS)
                        && let Ok(user) = OwnedUserId::try_from(record.subject.as_str())
                    {
                        tastes.state.lock().changed(user);
                    }
                }
            }
        }));
        tastes
    }

    async fn read(&self, user: &OwnedUserId) -> Result<Option<comity_rooms::Tastes>, RoomError> {
        let failed = |_| RoomError::Damaged("a user's push rules could not be read".into());
        let rules = self
            .accounts
            .push_rules(user.as_str())
            .await
            .map_err(failed)?;
        let ignored = self
            .accounts
            .ignored_users(user.as_str())
            .await
            .map_err(failed)?;
        if rules == UserRules::default() && ignored.is_empty() {
            return Ok(None);
        }
        let ignored: BTreeSet<OwnedUserId> = ignored
            .iter()
            .filter_map(|user| OwnedUserId::try_from(user.as_str()).ok())
            .collect();
        let rules = Arc::new(CompiledRules::new(&rules, user.as_str()));
        Ok(Some(comity_rooms::Tastes {
            rules,
            ignored: Arc::new(ignored),
        }))
    }
}

impl State {
    fn changed(&mut self, user: OwnedUserId) {
        self.serial += 1;
        self.kept.remove(&user);
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((self.serial, user));
    }
}

#[async_trait]
impl PushRules for Tastes {
    fn changed_since(&self, since: u64) -> (u64, Option<Vec<OwnedUserId>>) {
        let state = self.state.lock();
        let forgotten = state
            .changes
            .front()
            .map_or(state.serial, |(serial, _)| serial - 1);
        let changed = state
            .changes
            .iter()
            .filter(|(serial, _)| *serial > since)
            .map(|(_, user)| user.clone());
        (
            state.serial,
            (since >= forgotten).then(|| changed.collect()),
        )
    }

    async fn tastes(
        &self,
        users: &[OwnedUserId],
    ) -> Result<Vec<Option<comity_rooms::Tastes>>, RoomError> {
        let mut tastes = Vec::with_capacity(users.len());
        for user in users {
            let (kept, serial) = {
                let state = self.state.lock();
                (state.kept.get(user).cloned(), state.serial)
            };
            if let Some(kept) = kept {
                tastes.push(kept);
                continue;
            }
            let read = self.read(user).await?;
            let mut state = self.state.lock();
            if state.kept.len() >= KEPT {
                state.kept.clear();
            }
            // What changed in the meantime is read again next time.
            if state.serial == serial {
                state.kept.insert(user.clone(), read.clone());
            }
            drop(state);
            tastes.push(read);
        }
        Ok(tastes)
    }
}
