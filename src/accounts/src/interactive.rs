//! User-interactive authentication: proofs gathered over several requests, for one operation of one user with one body.
//!
//! A session lives in memory and a quarter of an hour; what it was begun for stands in it as a hash, and a request for anything
//! else can't use it. A stage that needs a password is only offered to users who have one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{AccountError, Accounts};

const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Sessions kept; the oldest give way.
const MOST: usize = 10_000;

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

/// What is to be authorised.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Names the operation, say the method and path.
    pub name: &'a str,
    /// Whose it is; `None` before there is a user.
    pub user_id: Option<&'a str>,
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

/// The answer to a request that needs authorisation.
#[derive(Clone, Debug)]
pub enum Authorisation {
    /// Go on.
    Passed {
        /// The registration token that was shown, to be spent.
        registration_token: Option<String>,
    },
    /// Ask the client for more.
    Challenged(Challenge),
}

#[derive(Debug)]
struct Session {
    operation: [u8; 32],
    completed: BTreeSet<Stage>,
    registration_token: Option<String>,
    ends: Duration,
}

/// The sessions under way.
#[derive(Debug, Default)]
pub(crate) struct Interactive(Mutex<BTreeMap<String, Session>>);

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
            let session = self.begin(hash);
            return Ok(Authorisation::Challenged(Challenge {
                session,
                flows,
                completed: Vec::new(),
                error: None,
            }));
        };
        let session = match auth.get("session").and_then(Value::as_str) {
            Some(session) => session.to_owned(),
            None => self.begin(hash),
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
            match self.prove(operation, stage, auth).await {
                Ok(token) => self.complete(&session, stage, token),
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
            let session = session.ok_or(UNKNOWN)?;
            return Ok(Authorisation::Passed {
                registration_token: session.registration_token,
            });
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
        let has_password = match operation.user_id {
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

    async fn prove(
        &self,
        operation: &Operation<'_>,
        stage: Stage,
        auth: &Map<String, Value>,
    ) -> Result<Option<String>, AccountError> {
        let text = |name: &str| auth.get(name).and_then(Value::as_str);
        match stage {
            Stage::Dummy => Ok(None),
            Stage::Password => {
                let identifier = auth.get("identifier").and_then(|i| i.get("user")?.as_str());
                let name = identifier.or(text("user")).or(operation.user_id);
                let name = name.ok_or(AccountError::InvalidParam("The user is missing."))?;
                let password = text("password")
                    .ok_or(AccountError::InvalidParam("The password is missing."))?;
                if operation
                    .user_id
                    .is_some_and(|owner| self.local_user_id(name).as_deref() != Some(owner))
                {
                    return Err(AccountError::Forbidden("This is another user's."));
                }
                self.checked_password(name, password).await?;
                Ok(None)
            }
            Stage::RegistrationToken => {
                let token =
                    text("token").ok_or(AccountError::InvalidParam("The token is missing."))?;
                match self.registration_token_is_valid(token).await? {
                    true => Ok(Some(token.to_owned())),
                    false => Err(AccountError::Forbidden("Invalid registration token")),
                }
            }
        }
    }

    fn begin(&self, operation: [u8; 32]) -> String {
        let now = self.0.runtime.clock().monotonic();
        let id = self.0.runtime.random().alphanumeric(24);
        let mut sessions = self.0.interactive.0.lock();
        if sessions.len() >= MOST {
            sessions.retain(|_, session| session.ends > now);
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| session.ends)
                .map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| sessions.len() >= MOST) {
                sessions.remove(&oldest);
            }
        }
        let session = Session {
            operation,
            completed: BTreeSet::new(),
            registration_token: None,
            ends: now + LIFETIME,
        };
        sessions.insert(id.clone(), session);
        id
    }

    fn complete(&self, session: &str, stage: Stage, token: Option<String>) {
        if let Some(session) = self.0.interactive.0.lock().get_mut(session) {
            session.completed.insert(stage);
            session.registration_token = token.or(session.registration_token.take());
        }
    }

    /// What a session has proved, if it is this operation's.
    fn completed(&self, session: &str, operation: &[u8; 32]) -> Result<Vec<Stage>, AccountError> {
        let now = self.0.runtime.clock().monotonic();
        let sessions = self.0.interactive.0.lock();
        let session = sessions
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
    for part in [operation.name, operation.user_id.unwrap_or_default()] {
        hash.update(part);
        hash.update([0]);
    }
    for (name, value) in body {
        hash.update(Value::from(name.as_str()).to_string());
        hash.update(value.to_string());
    }
    hash.finalize().into()
}
