//! Sessions: whose request this is, refreshing tokens, signing out.

use std::{fmt, sync::Weak, time::Duration};

use comity_storage::{Attempts, Expect, Follower, Home, Row};
use sha2::{Digest, Sha256};

use crate::{
    AccountError, Accounts, Change, Inner,
    live::{Authenticated, Requester, TokenHash},
    login::Issued,
    tables::{Session, Sessions, User, UserKey, UserPart, Users},
    token::{Access, Grant},
};

const UNKNOWN: AccountError = AccountError::UnknownToken { soft_logout: false };
const STALE: AccountError = AccountError::UnknownToken { soft_logout: true };
/// How long after the log could not be read it is tried again. Until then every request reads its session's row.
const RETRY: Duration = Duration::from_millis(100);
/// How long the log may take to be read before nothing remembered counts any more.
const PATIENCE: Duration = Duration::from_millis(750);

impl Accounts {
    /// Whose request this is. Costs no read, but for a token's first request on this node.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens>
    ///
    /// # Errors
    /// [`AccountError::UnknownToken`], [`AccountError::Locked`]; the store's.
    pub async fn authenticate(&self, token: &str) -> Result<Authenticated, AccountError> {
        self.admit(token, false).await
    }

    /// As [`Accounts::authenticate`], for those who only want to sign out: a locked account may.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#account-locking>
    ///
    /// # Errors
    /// [`AccountError::UnknownToken`]; the store's.
    pub async fn authenticate_to_sign_out(
        &self,
        token: &str,
    ) -> Result<Authenticated, AccountError> {
        self.admit(token, true).await
    }

    async fn admit(&self, token: &str, locked_too: bool) -> Result<Authenticated, AccountError> {
        let hash: TokenHash = Sha256::digest(token).into();
        if let Some(known) = self.0.live.get(&hash) {
            return self.unexpired(known.requester.expires_ts).map(|()| known);
        }
        let access = self.0.tokens.read_access(token).ok_or(UNKNOWN)?;
        self.unexpired(access.expires_ts)?;
        let mut attempts = Attempts::default();
        loop {
            // Apart, so that the requests of known tokens aren't as large.
            let first = Box::pin(self.first_request(&hash, &access, locked_too, &mut attempts));
            if let Some(verified) = first.await? {
                return Ok(verified);
            }
        }
    }

    fn unexpired(&self, expires_ts: Option<u64>) -> Result<(), AccountError> {
        match expires_ts {
            Some(ts) if ts <= self.now_ms() => Err(STALE),
            _ => Ok(()),
        }
    }

    /// Reads what a token's first request must know and commits that its pair is in use. `None`: something changed meanwhile.
    async fn first_request(
        &self,
        hash: &TokenHash,
        access: &Access,
        locked_too: bool,
        attempts: &mut Attempts,
    ) -> Result<Option<Authenticated>, AccountError> {
        let grant = &access.grant;
        // Before the rows are read, so that what ends the session after the read finds it.
        let handle = self.0.live.handle(&grant.user, grant.session);
        let version = handle.version();
        let (user, session) = self.standing(grant).await?;
        if user.deactivated {
            return Err(UNKNOWN);
        }
        if user.locked && !locked_too {
            return Err(AccountError::Locked);
        }
        let row = session
            .filter(|row| row.value.id == grant.session)
            .ok_or(UNKNOWN)?;
        self.of_this_incarnation(&row)?;
        let session = &row.value;
        let newest = grant.generation == session.generation;
        let before = grant.generation.checked_add(1) == Some(session.generation);
        let good = newest || (before && !session.used);
        if !good {
            return Err(STALE);
        }
        if newest && !session.used && !self.commit_used(grant, &row, attempts).await? {
            return Ok(None);
        }
        if handle.has_ended() {
            return Ok(None);
        }
        let requester = Requester {
            user_id: grant.user.clone(),
            device_id: grant.device.clone(),
            guest: user.guest,
            admin: user.admin,
            suspended: user.suspended,
            expires_ts: access.expires_ts,
            session: grant.session,
            generation: grant.generation,
        };
        let verified = Authenticated {
            requester: requester.into(),
            handle,
        };
        if !user.locked {
            self.0.live.insert(*hash, verified.clone(), version);
        }
        Ok(Some(verified))
    }

    /// After a restore a session may be there again whose end was lost: its user signs in once more, on the same device.
    fn of_this_incarnation(&self, row: &Row<Session>) -> Result<(), AccountError> {
        match row.value.incarnation == self.0.tenant.birth().incarnation {
            true => Ok(()),
            false => Err(STALE),
        }
    }

    async fn standing(&self, grant: &Grant) -> Result<(User, Option<Row<Session>>), AccountError> {
        let (user_key, key) = (
            UserKey(grant.user.clone()),
            UserPart::new(&grant.user, &grant.device),
        );
        let (user, session) =
            futures_util::try_join!(self.get::<Users>(&user_key), self.get::<Sessions>(&key))?;
        Ok((user.ok_or(UNKNOWN)?.value, session))
    }

    /// Records that the newest pair is in use, which ends the one before (R1.3). `false`: the row has changed.
    async fn commit_used(
        &self,
        grant: &Grant,
        row: &Row<Session>,
        attempts: &mut Attempts,
    ) -> Result<bool, AccountError> {
        let used = Session {
            used: true,
            ..row.value.clone()
        };
        let ended = Change::TokensEnded {
            session: grant.session,
            from_generation: Some(grant.generation),
        };
        let committed = self
            .put_session(grant, row, &used, Some(&ended), attempts)
            .await?;
        Ok(committed)
    }

    async fn put_session(
        &self,
        grant: &Grant,
        row: &Row<Session>,
        session: &Session,
        change: Option<&Change>,
        attempts: &mut Attempts,
    ) -> Result<bool, AccountError> {
        let lane = self.0.tenant.lane(Home::User(&grant.user));
        let key = UserPart::new(&grant.user, &grant.device);
        let mut batch = lane.batch();
        batch.expect::<Sessions>(&key, Expect::At(row.pos));
        batch.put::<Sessions>(&key, session);
        if let Some(change) = change {
            batch.log(change.record(&grant.user));
        }
        let committed = attempts.commit(lane, batch).await?.is_some();
        if let Some(change) = change.filter(|_| committed) {
            self.0.live.apply(&grant.user, change);
        }
        Ok(committed)
    }

    /// The next pair of tokens. The refresh token that asked stays good until the new pair is first used, and gets the same pair
    /// again; used after that, it ends the session (R1.3).
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens>
    ///
    /// # Errors
    /// [`AccountError::UnknownToken`], [`AccountError::Locked`]; the store's.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Issued, AccountError> {
        let grant = self.0.tokens.read_refresh(refresh_token).ok_or(UNKNOWN)?;
        let mut attempts = Attempts::default();
        loop {
            let (user, row) = self.standing(&grant).await?;
            let row = row.filter(|row| row.value.id == grant.session && row.value.refreshed);
            let row = row.filter(|_| !user.deactivated).ok_or(UNKNOWN)?;
            self.of_this_incarnation(&row)?;
            if user.locked {
                return Err(AccountError::Locked);
            }
            let session = &row.value;
            let before = grant.generation.checked_add(1) == Some(session.generation);
            if before && !session.used {
                return self.issue(&grant.user, &grant.device, session);
            }
            if grant.generation != session.generation {
                // A copy of a token that was spent: nobody can tell whose.
                self.end_session(&grant.user, &grant.device, Some(grant.session))
                    .await?;
                return Err(UNKNOWN);
            }
            let next = Session {
                generation: session.generation.checked_add(1).ok_or(UNKNOWN)?,
                used: false,
                ..session.clone()
            };
            // Refreshing with the newest pair is using it.
            let ended = (!session.used).then_some(Change::TokensEnded {
                session: grant.session,
                from_generation: Some(grant.generation),
            });
            if self
                .put_session(&grant, &row, &next, ended.as_ref(), &mut attempts)
                .await?
            {
                return self.issue(&grant.user, &grant.device, &next);
            }
        }
    }

    /// Ends a device's session, whichever it is if none is named. The device stays.
    async fn end_session(
        &self,
        user_id: &str,
        device_id: &str,
        only: Option<crate::tables::SessionId>,
    ) -> Result<(), AccountError> {
        let lane = self.0.tenant.lane(Home::User(user_id));
        let key = UserPart::new(user_id, device_id);
        let mut attempts = Attempts::default();
        loop {
            let row = lane.reader().get::<Sessions>(&key).await?;
            let row = row.filter(|row| only.is_none_or(|id| id == row.value.id));
            let Some(row) = row else { return Ok(()) };
            let change = Change::TokensEnded {
                session: row.value.id,
                from_generation: None,
            };
            let mut batch = lane.batch();
            batch.expect::<Sessions>(&key, Expect::At(row.pos));
            batch.delete::<Sessions>(&key).log(change.record(user_id));
            if attempts.commit(lane, batch).await?.is_some() {
                self.0.live.apply(user_id, &change);
                return Ok(());
            }
        }
    }
}

/// Takes in what is revoked, here and on other nodes, until the accounts are closed.
///
/// What can't be read in time counts as unread, whether the store refuses or only keeps us waiting.
pub(crate) async fn listen(inner: Weak<Inner>, mut follower: Follower) {
    let Some(mut heads) = inner.upgrade().map(|inner| inner.tenant.watch()) else {
        return;
    };
    let failed = |inner: &Inner, error: &dyn fmt::Display| {
        inner.live.set_listening(false);
        tracing::warn!(%error, "revocations can't be read: requests read their sessions");
    };
    loop {
        heads.mark_unchanged();
        let read = tokio::time::timeout(PATIENCE, follower.ready()).await;
        let Some(inner) = inner.upgrade() else { return };
        match read {
            Ok(Ok(commits)) => {
                for record in commits.iter().flat_map(|logged| &logged.records) {
                    if let Some(change) = Change::of(record) {
                        inner.live.apply(&record.subject, &change);
                    }
                }
                if !commits.is_empty() {
                    continue;
                }
                inner.live.set_listening(true);
            }
            Ok(Err(error)) => {
                failed(&inner, &error);
                drop(inner);
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(late) => {
                failed(&inner, &late);
                continue;
            }
        }
        drop(inner);
        if heads.changed().await.is_err() {
            return;
        }
    }
}
