//! User-interactive authentication: proofs gathered over several requests, for one operation of one user with one body.
//!
//! A session lives in memory and a quarter of an hour; what it was begun for stands in it as a hash, and a request for anything
//! else can't use it. A stage that needs a password is only offered to users who have one. Sessions are counted by who began them:
//! those who begin many lose their own.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{AccountError, Accounts, Proof};

const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Sessions kept; beyond, whoever has the most loses their oldest.
const MOST: usize = 10_000;
/// Sessions kept of one user or address; the oldest gives way.
const OF_ONE: usize = 16;

/// One proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The user's password.
    Password,
    /// Nothing.
    Dummy,
    /// A registration token.
    RegistrationToken,
}

impl Stage {
    /// Its name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "m.login.password",
            Self::Dummy => "m.login.dummy",
            Self::RegistrationToken => "m.login.registration_token",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Password, Self::Dummy, Self::RegistrationToken]
            .into_iter()
            .find(|stage| stage.as_str() == name)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker<'a> {
    /// The user with this id.
    User(&'a str),
    /// Somebody at this address who isn't a user yet.
    Address(&'a str),
}

impl<'a> Asker<'a> {
    fn user_id(self) -> Option<&'a str> {
        match self {
            Self::User(user_id) => Some(user_id),
            Self::Address(_) => None,
        }
    }
}

/// What is to be authorised.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Names the operation, say the method and path.
    pub name: &'a str,
    /// Who asks for it.
    pub asker: Asker<'a>,
    /// The request's body; `auth` in it doesn't count.
    pub body: &'a Map<String, Value>,
}

/// What the client is to be shown: a 401 with these.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// To be sent along with the next proof.
    pub session: String,
    /// What is asked for, in any of these ways.
    pub flows: Vec<Vec<Stage>>,
    /// What was proved.
    pub completed: Vec<Stage>,
    /// Why the last proof was none.
    pub error: Option<AccountError>,
}

/// What was shown by whoever passed.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The registration token, to be spent.
    pub registration_token: Option<String>,
    /// That they knew the user's password.
    pub password: Option<Proof>,
}

/// The answer to a request that needs authorisation.
#[derive(Clone, Debug)]
pub enum Authorisation {
    /// Go on.
    Passed(Shown),
    /// Ask the client for more.
    Challenged(Challenge),
}

#[derive(Debug)]
struct Session {
    owner: Arc<str>,
    operation: [u8; 32],
    completed: BTreeSet<Stage>,
    shown: Shown,
    ends: Duration,
}

/// The sessions under way.
#[derive(Debug, Default)]
pub(crate) struct Interactive(Mutex<Sessions>);

#[derive(Debug, Default)]
struct Sessions {
    by_id: BTreeMap<String, Session>,
    /// Each owner's, oldest first.
    of: BTreeMap<Arc<str>, VecDeque<String>>,
}

impl Sessions {
    fn insert(&mut self, id: String, session: Session, now: Duration) {
        if self.of.get(&session.owner).map_or(0, VecDeque::len) >= OF_ONE {
            self.drop_oldest_of(&session.owner.clone());
        }
        if self.by_id.len() >= MOST {
            let ended = self.by_id.iter().filter(|(_, session)| session.ends <= now);
            let ended: Vec<_> = ended.map(|(id, _)| id.clone()).collect();
            for id in ended {
                self.remove(&id);
            }
        }
        if self.by_id.len() >= MOST {
            let most = self.of.iter().max_by_key(|(_, ids)| ids.len());
            if let Some(owner) = most.map(|(owner, _)| owner.clone()) {
                self.drop_oldest_of(&owner);
            }
        }
        let of_owner = self.of.entry(session.owner.clone()).or_default();
        of_owner.push_back(id.clone());
        self.by_id.insert(id, session);
    }

    fn remove(&mut self, id: &str) -> Option<Session> {
        let session = self.by_id.remove(id)?;
        if let Some(ids) = self.of.get_mut(&session.owner) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.of.remove(&session.owner);
            }
        }
        Some(session)
    }

    fn drop_oldest_of(&mut self, owner: &str) {
        let oldest = self.of.get(owner).and_then(VecDeque::front).cloned();
        if let Some(oldest) = oldest {
            self.remove(&oldest);
        }
    }
}

impl Accounts {
    /// Takes a request's `auth`, if it has one, one step further.
    ///
    /// # Errors
    /// [`AccountError::InteractiveAuth`] for a session that is unknown, over or another operation's; [`AccountError::Forbidden`] for
    /// another user's proof or when there is no way for this user; [`AccountError::LimitExceeded`] after wrong passwords.
    pub async fn authorise(
        &self,
        operation: &Operation<'_>,
        flows: &[&[Stage]],
        auth: Option<&Map<String, Value>>,
    ) -> Result<Authorisation, AccountError> {
        let flows = self.open_flows(operation, flows).await?;
        let hash = hash(operation);
        let Some(auth) = auth else {
            let session = self.begin(operation, hash);
            return Ok(Authorisation::Challenged(Challenge {
                session,
                flows,
                completed: Vec::new(),
                error: None,
            }));
        };
        let session = match auth.get("session").and_then(Value::as_str) {
            Some(session) => session.to_owned(),
            None => self.begin(operation, hash),
        };
        self.completed(&session, &hash)?;
        let stage = auth.get("type").and_then(Value::as_str);
        let stage = stage.map(|name| {
            Stage::parse(name).ok_or(AccountError::InvalidParam(
                "Unknown kind of authentication.",
            ))
        });
        let mut error = None;
        if let Some(stage) = stage.transpose()? {
            if !flows.iter().any(|flow| flow.contains(&stage)) {
                return Err(AccountError::Forbidden(
                    "This kind of authentication is not offered here.",
                ));
            }
            match self.take_stage(operation, stage, auth).await {
                Ok(shown) => self.complete(&session, stage, shown),
                Err(refused @ AccountError::WrongCredentials) => error = Some(refused),
                Err(AccountError::Forbidden(why)) if stage == Stage::RegistrationToken => {
                    error = Some(AccountError::Forbidden(why));
                }
                Err(failed) => return Err(failed),
            }
        }
        let completed = self.completed(&session, &hash)?;
        if flows
            .iter()
            .any(|flow| flow.iter().all(|stage| completed.contains(stage)))
        {
            // Once only: taken out by whoever comes first.
            let session = self.0.interactive.0.lock().remove(&session);
            return Ok(Authorisation::Passed(session.ok_or(UNKNOWN)?.shown));
        }
        Ok(Authorisation::Challenged(Challenge {
            session,
            flows,
            completed,
            error,
        }))
    }

    /// The ways open to this user: none with a password for those who have none (G13).
    async fn open_flows(
        &self,
        operation: &Operation<'_>,
        flows: &[&[Stage]],
    ) -> Result<Vec<Vec<Stage>>, AccountError> {
        let has_password = match operation.asker.user_id() {
            Some(user_id) => self
                .user(user_id)
                .await?
                .is_some_and(|user| user.password.is_some()),
            None => true,
        };
        let open = flows
            .iter()
            .filter(|flow| has_password || !flow.contains(&Stage::Password));
        let open: Vec<_> = open.map(|flow| flow.to_vec()).collect();
        if open.is_empty() {
            return Err(AccountError::Forbidden(
                "This account has no way to authorise this.",
            ));
        }
        Ok(open)
    }

    async fn take_stage(
        &self,
        operation: &Operation<'_>,
        stage: Stage,
        auth: &Map<String, Value>,
    ) -> Result<Shown, AccountError> {
        let text = |name: &str| auth.get(name).and_then(Value::as_str);
        let user_id = operation.asker.user_id();
        match stage {
            Stage::Dummy => Ok(Shown::default()),
            Stage::Password => {
                let identifier = auth.get("identifier").and_then(|i| i.get("user")?.as_str());
                let name = identifier.or(text("user")).or(user_id);
                let name = name.ok_or(AccountError::InvalidParam("The user is missing."))?;
                let password = text("password")
                    .ok_or(AccountError::InvalidParam("The password is missing."))?;
                if user_id.is_some_and(|owner| self.local_user_id(name).as_deref() != Some(owner)) {
                    return Err(AccountError::Forbidden("This is another user's."));
                }
                let (_, proof) = self.prove_password(name, password, None).await?;
                Ok(Shown {
                    password: Some(proof),
                    ..Shown::default()
                })
            }
            Stage::RegistrationToken => {
                let token =
                    text("token").ok_or(AccountError::InvalidParam("The token is missing."))?;
                match self.registration_token_is_valid(token).await? {
                    true => Ok(Shown {
                        registration_token: Some(token.to_owned()),
                        ..Shown::default()
                    }),
                    false => Err(AccountError::Forbidden("Invalid registration token")),
                }
            }
        }
    }

    fn begin(&self, by: &Operation<'_>, operation: [u8; 32]) -> String {
        let now = self.0.runtime.clock().monotonic();
        let id = self.0.runtime.random().alphanumeric(24);
        let session = Session {
            // No address begins as a user's id does.
            owner: match by.asker {
                Asker::User(owner) | Asker::Address(owner) => owner.into(),
            },
            operation,
            completed: BTreeSet::new(),
            shown: Shown::default(),
            ends: now + LIFETIME,
        };
        let mut sessions = self.0.interactive.0.lock();
        sessions.insert(id.clone(), session, now);
        id
    }

    fn complete(&self, session: &str, stage: Stage, shown: Shown) {
        if let Some(session) = self.0.interactive.0.lock().by_id.get_mut(session) {
            session.completed.insert(stage);
            let before = std::mem::take(&mut session.shown);
            session.shown = Shown {
                registration_token: shown.registration_token.or(before.registration_token),
                password: shown.password.or(before.password),
            };
        }
    }

    /// What a session has proved, if it is this operation's.
    fn completed(&self, session: &str, operation: &[u8; 32]) -> Result<Vec<Stage>, AccountError> {
        let now = self.0.runtime.clock().monotonic();
        let sessions = self.0.interactive.0.lock();
        let session = sessions
            .by_id
            .get(session)
            .filter(|session| session.ends > now)
            .ok_or(UNKNOWN)?;
        if session.operation != *operation {
            return Err(AccountError::InteractiveAuth(
                "Requested operation has changed during the UI authentication session.",
            ));
        }
        Ok(session.completed.iter().copied().collect())
    }
}

const UNKNOWN: AccountError = AccountError::InteractiveAuth("Unknown session ID");

fn hash(operation: &Operation<'_>) -> [u8; 32] {
    let body: BTreeMap<_, _> = operation
        .body
        .iter()
        .filter(|(name, _)| *name != "auth")
        .collect();
    let mut hash = Sha256::new();
    for part in [
        operation.name,
        operation.asker.user_id().unwrap_or_default(),
    ] {
        hash.update(part);
        hash.update([0]);
    }
    for (name, value) in body {
        hash.update(Value::from(name.as_str()).to_string());
        hash.update(value.to_string());
    }
    hash.finalize().into()
}
