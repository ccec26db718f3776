//! Passwords: argon2id hashes as PHC strings, a bounded number computed at once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use comity_runtime::{Pool, Runtime};

use crate::{error::AccountError, tables::User};

/// Longest password, in bytes: what one hash may be made to read.
pub const MAX_PASSWORD_BYTES: usize = 512;
/// Callers that may wait for a hash; more are told to come back.
const WAITING: usize = 256;

/// What one password hash costs.
#[derive(Clone, Copy, Debug)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// How many are computed at once.
    pub parallel: usize,
}

impl Default for PasswordCost {
    /// OWASP's recommendation for argon2id; two at once.
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            parallel: 2,
        }
    }
}

/// That someone knew a user's password, and which: worth nothing any more once the user has another.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    hash: String,
}

/// Without the hash.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

impl Proof {
    /// Whether what was proved is still the user's password.
    pub(crate) fn holds_for(&self, user: &User) -> bool {
        user.password.as_ref() == Some(&self.hash)
    }
}

/// Hashes and verifies passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    pool: Pool,
    runtime: Runtime,
    params: Params,
    /// The hash that an unknown user's password is compared with, so that it takes as long.
    nobody: String,
    computed: Arc<AtomicU64>,
}

impl Passwords {
    pub(crate) fn new(cost: PasswordCost, runtime: &Runtime) -> Result<Self, AccountError> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None)
            .map_err(|_| AccountError::Internal("the cost of a password hash is out of range"))?;
        let nobody = nobodys(&params, runtime);
        Ok(Self {
            pool: runtime.pool("password", cost.parallel, WAITING),
            runtime: runtime.clone(),
            params,
            nobody,
            computed: Arc::default(),
        })
    }

    /// How many hashes were computed so far.
    pub(crate) fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// The hash to store.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, AccountError> {
        check(password)?;
        let (params, salt) = (self.params.clone(), self.runtime.random().bytes::<16>());
        let password = password.to_owned();
        let computed = Arc::clone(&self.computed);
        let work = move || {
            computed.fetch_add(1, Ordering::Relaxed);
            hash(&params, password.as_bytes(), &salt)
        };
        self.pool.run(work).await?
    }

    /// A proof, if the password is the one that was hashed. Takes one hash's time also if there is none to compare with (G10).
    pub(crate) async fn prove(
        &self,
        stored: Option<String>,
        password: &str,
    ) -> Result<Option<Proof>, AccountError> {
        let compared = stored.as_ref().unwrap_or(&self.nobody).clone();
        let fits = password.len() <= MAX_PASSWORD_BYTES;
        let password = if fits {
            password.to_owned()
        } else {
            String::new()
        };
        let params = self.params.clone();
        let computed = Arc::clone(&self.computed);
        let verified = self.pool.run(move || {
            computed.fetch_add(1, Ordering::Relaxed);
            let hasher = Argon2::from(params);
            PasswordHash::new(&compared)
                .is_ok_and(|hash| hasher.verify_password(password.as_bytes(), &hash).is_ok())
        });
        let right = verified.await? && fits;
        Ok(stored.filter(|_| right).map(|hash| Proof { hash }))
    }
}

fn check(password: &str) -> Result<(), AccountError> {
    if password.is_empty() {
        return Err(AccountError::InvalidParam("The password is empty."));
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(AccountError::InvalidParam("The password is too long."));
    }
    Ok(())
}

/// A hash that no password has, for its output is drawn: computing one would cost a start its time and memory.
fn nobodys(params: &Params, runtime: &Runtime) -> String {
    let salt = STANDARD_NO_PAD.encode(runtime.random().bytes::<16>());
    let output = STANDARD_NO_PAD.encode(runtime.random().bytes::<32>());
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${output}")
}

fn hash(params: &Params, password: &[u8], salt: &[u8]) -> Result<String, AccountError> {
    let hash = Argon2::from(params.clone()).hash_password_with_salt(password, salt);
    hash.map(|hash| hash.to_string())
        .map_err(|_| AccountError::Internal("a password could not be hashed"))
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::Error;

    use super::*;

    /// G10: nobody's hash costs what anybody's does, for it is compared with and not refused.
    #[test]
    fn nobodys_hash_is_one_like_others() {
        let params = Params::new(64, 2, 1, None).unwrap();
        let nobody = nobodys(&params, &Runtime::simulated(1));
        let somebody = hash(&params, b"secret", &[7; 16]).unwrap();
        let (nobody, somebody) = [nobody.as_str(), &somebody]
            .map(|hash| PasswordHash::new(hash).unwrap())
            .into();
        assert_eq!(nobody.params, somebody.params);
        assert_eq!(nobody.version, somebody.version);
        let compared = Argon2::from(params).verify_password(b"secret", &nobody);
        assert!(
            matches!(compared, Err(Error::PasswordInvalid)),
            "{compared:?}"
        );
    }
}
