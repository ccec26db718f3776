//! The server's own keys, in files that only it can read: made at the first start, replaced when the operator says so alone.
//!
//! Two keys, since they speak to different ears: `signing.key` signs events for all other servers, in the format Synapse keeps, so
//! that a server name can be taken over with its key; `token.key` signs our users' access tokens.
//!
//! `comity key rotate` lays a new signing key beside the old one, and the next start takes it: no server signs with a key that it
//! has declared expired. The public halves of keys of before stay in `old-signing.keys`, a line each (`ed25519 VERSION BASE64
//! EXPIRED_TS`), since they check the events that they signed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use comity_protocol::{
    sign::{OldKey, SigningKey, VerifyKey},
    unpadded,
};
use comity_runtime::Runtime;

const SIGNING: &str = "signing.key";
const NEXT: &str = "signing.key.next";
const OLD: &str = "old-signing.keys";
const TOKEN: &str = "token.key";

/// Both keys, and those that signed before.
#[derive(Debug)]
pub struct Keys {
    /// Signs events.
    pub signing: SigningKey,
    /// Signed events once.
    pub old: Vec<OldKey>,
    /// The seed of the key that signs access tokens.
    pub token: [u8; 32],
}

impl Keys {
    /// Reads the keys in `folder`, and makes those that aren't there.
    ///
    /// # Errors
    /// What is wrong with which file. A file that can't be read as a key is left alone: with another key this would be another
    /// server to everybody who knows it.
    pub fn open(folder: &Path, runtime: &Runtime) -> Result<Self, String> {
        make_folder(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let random = runtime.random();
        take_next(folder, runtime.clock().now_ms())?;
        let signing = folder.join(SIGNING);
        let text = read_or_make(&signing, || new_signing_key(runtime))?;
        let signing = signing_key(&signing, &text)?;
        let mut old = old_keys(folder)?;
        old.retain(|old| old.key_id != signing.key_id());
        let token = folder.join(TOKEN);
        let text = read_or_make(&token, || {
            format!("{}\n", unpadded::encode(&random.bytes::<32>()))
        })?;
        let token = token_key(&token, &text)?;
        Ok(Self {
            signing,
            old,
            token,
        })
    }

    /// The id of the signing key that the next start takes, if there is one already. Nothing is made or changed.
    ///
    /// # Errors
    /// What [`Keys::open`] would say of the files that are there.
    pub fn look(folder: &Path) -> Result<Option<String>, String> {
        let mut signs = None;
        for name in [SIGNING, NEXT] {
            let path = folder.join(name);
            if let Some(text) = read_if_there(&path)? {
                signs = Some(signing_key(&path, &text)?.key_id().to_owned());
            }
        }
        old_keys(folder)?;
        let token = folder.join(TOKEN);
        if let Some(text) = read_if_there(&token)? {
            token_key(&token, &text)?;
        }
        Ok(signs)
    }

    /// Makes the signing key of the next start on; the id of the key.
    ///
    /// # Errors
    /// There is no key yet, another one waits already, or the folder can't be written.
    pub fn rotate(folder: &Path, runtime: &Runtime) -> Result<String, String> {
        let next = folder.join(NEXT);
        if next.exists() {
            return Err(format!(
                "{}: a new key waits already for the next start",
                next.display()
            ));
        }
        read(&folder.join(SIGNING)).map_err(|error| format!("{SIGNING}: {error}"))?;
        let text = new_signing_key(runtime);
        let key = signing_key(&next, &text)?;
        write(&next, &text).map_err(|error| format!("{}: {error}", next.display()))?;
        Ok(key.key_id().to_owned())
    }
}

fn new_signing_key(runtime: &Runtime) -> String {
    let random = runtime.random();
    let version = format!("a_{}", random.alphanumeric(4));
    let key = SigningKey::from_seed(&version, &random.bytes());
    key.map(|key| key.to_file()).unwrap_or_default()
}

fn signing_key(path: &Path, text: &str) -> Result<SigningKey, String> {
    SigningKey::from_file(text).map_err(|error| format!("{}: {error}", path.display()))
}

fn token_key(path: &Path, text: &str) -> Result<[u8; 32], String> {
    unpadded::decode(text.trim())
        .and_then(|seed| seed.try_into().ok())
        .ok_or_else(|| format!("{}: not a key of 32 bytes in base64", path.display()))
}

/// Takes the key that waits, if one does. Each step may be done again: a crash between them only moves the time the old key ended.
fn take_next(folder: &Path, now_ms: u64) -> Result<(), String> {
    let (next, current) = (folder.join(NEXT), folder.join(SIGNING));
    let Some(text) = read_if_there(&next)? else {
        return Ok(());
    };
    signing_key(&next, &text)?;
    let text = read(&current).map_err(|error| format!("{}: {error}", current.display()))?;
    let ended = signing_key(&current, &text)?;
    let mut old = old_keys(folder)?;
    old.retain(|old| old.key_id != ended.key_id());
    old.push(OldKey {
        key_id: ended.key_id().to_owned(),
        key: ended.verify_key(),
        expired_ts: now_ms,
    });
    let lines: String = old
        .iter()
        .map(|old| {
            let id = old.key_id.replacen(':', " ", 1);
            format!("{id} {} {}\n", old.key.to_base64(), old.expired_ts)
        })
        .collect();
    write(&folder.join(OLD), &lines)
        .and_then(|()| fs::rename(&next, &current))
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .map_err(|error| format!("cannot take the new signing key: {error}"))
}

fn old_keys(folder: &Path) -> Result<Vec<OldKey>, String> {
    let path = folder.join(OLD);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    text.lines()
        .map(|line| {
            old_key(line).ok_or_else(|| {
                format!(
                    "{}: not of the form `ed25519 VERSION BASE64 EXPIRED_TS`: {line}",
                    path.display()
                )
            })
        })
        .collect()
}

fn old_key(line: &str) -> Option<OldKey> {
    let mut words = line.split_ascii_whitespace();
    let (algorithm, version) = (words.next()?, words.next()?);
    let (key, expired_ts) = (words.next()?, words.next()?);
    (algorithm == "ed25519" && words.next().is_none()).then_some(())?;
    Some(OldKey {
        key_id: format!("{algorithm}:{version}"),
        key: VerifyKey::parse(key).ok()?,
        expired_ts: expired_ts.parse().ok()?,
    })
}

/// Makes the folder of everything kept on this machine, if it isn't there.
///
/// # Errors
/// What the operating system says.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    // Nobody else on the machine reads what users write.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Reads a secret, if nobody else can.
fn read(path: &Path) -> io::Result<String> {
    let mode = fs::metadata(path)?.mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(io::Error::other(format!(
            "others on this machine may read it (mode {mode:o}): chmod 600"
        )));
    }
    fs::read_to_string(path)
}

fn read_if_there(path: &Path) -> Result<Option<String>, String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read
            .map(Some)
            .map_err(|error| format!("{}: {error}", path.display())),
    }
}

fn read_or_make(path: &Path, make: impl FnOnce() -> String) -> Result<String, String> {
    let text = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make();
            write(path, &text).map(|()| text)
        }
        read => read,
    };
    text.map_err(|error| format!("{}: {error}", path.display()))
}

/// Whole or not at all: a key that is half written would be lost for good.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("key.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_for_our_eyes_only() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::system();
        let made = Keys::open(folder.path(), &runtime).unwrap();
        let read = Keys::open(folder.path(), &runtime).unwrap();
        assert_eq!(made.signing.to_file(), read.signing.to_file());
        assert_eq!(made.token, read.token);
        for name in ["signing.key", "token.key"] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
    }

    /// Threat B6.
    #[test]
    fn b6_a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::system();
        Keys::open(folder.path(), &runtime).unwrap();
        for (name, mode) in [("signing.key", 0o640), ("token.key", 0o604)] {
            let path = folder.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Keys::open(folder.path(), &runtime).unwrap_err();
            assert!(error.contains("chmod 600"), "{error}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Keys::open(folder.path(), &runtime).unwrap();
    }

    /// A key rotated twice: what signed before is known with the time it ended.
    #[test]
    fn a_rotated_key_is_taken_at_the_next_start_and_the_old_one_kept() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::system();
        assert!(Keys::rotate(folder.path(), &runtime).is_err());
        let first = Keys::open(folder.path(), &runtime).unwrap();
        let next = Keys::rotate(folder.path(), &runtime).unwrap();
        assert!(Keys::rotate(folder.path(), &runtime).is_err());
        let before = runtime.clock().now_ms();
        let second = Keys::open(folder.path(), &runtime).unwrap();
        assert_eq!(second.signing.key_id(), next);
        assert_eq!(second.old.len(), 1);
        assert_eq!(second.old[0].key_id, first.signing.key_id());
        assert_eq!(second.old[0].key, first.signing.verify_key());
        assert!(second.old[0].expired_ts >= before);
        Keys::rotate(folder.path(), &runtime).unwrap();
        let third = Keys::open(folder.path(), &runtime).unwrap();
        let old: Vec<_> = third.old.iter().map(|old| old.key_id.as_str()).collect();
        assert_eq!(old, [first.signing.key_id(), second.signing.key_id()]);
        assert_eq!(third.old[0], second.old[0]);
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        write(&path, "ed25519 a_1").unwrap();
        assert!(Keys::open(folder.path(), &Runtime::system()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "ed25519 a_1");
    }
}
