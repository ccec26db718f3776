//! The server's own keys, in files that only it can read: made at the first start, never replaced.
//!
//! Two keys, since they speak to different ears: `signing.key` signs events for all other servers, in the format Synapse keeps, so
//! that a server name can be taken over with its key; `token.key` signs our users' access tokens.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use comity_protocol::{sign::SigningKey, unpadded};
use comity_runtime::Runtime;

/// Both keys.
#[derive(Debug)]
pub struct Keys {
    /// Signs events.
    pub signing: SigningKey,
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
        // Nobody else on the machine reads what users write.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let random = runtime.random();
        let signing = folder.join("signing.key");
        let text = read_or_make(&signing, || {
            let version = format!("a_{}", random.alphanumeric(4));
            let key = SigningKey::from_seed(&version, &random.bytes());
            key.map(|key| key.to_file()).unwrap_or_default()
        })?;
        let signing = SigningKey::from_file(&text)
            .map_err(|error| format!("{}: {error}", signing.display()))?;
        let token = folder.join("token.key");
        let text = read_or_make(&token, || {
            format!("{}\n", unpadded::encode(&random.bytes::<32>()))
        })?;
        let token = unpadded::decode(text.trim())
            .and_then(|seed| seed.try_into().ok())
            .ok_or_else(|| format!("{}: not a key of 32 bytes in base64", token.display()))?;
        Ok(Self { signing, token })
    }
}

fn read_or_make(path: &Path, make: impl FnOnce() -> String) -> Result<String, String> {
    let text = match fs::read_to_string(path) {
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

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        fs::write(&path, "ed25519 a_1").unwrap();
        assert!(Keys::open(folder.path(), &Runtime::system()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "ed25519 a_1");
    }
}
