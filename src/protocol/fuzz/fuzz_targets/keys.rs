//! Key files and public keys.
#![no_main]

use comity_protocol::sign::{SigningKey, VerifyKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = VerifyKey::parse(text);
    if let Ok(key) = SigningKey::from_file(text) {
        let again = SigningKey::from_file(&key.to_file()).unwrap();
        assert_eq!(again.verify_key(), key.verify_key());
    }
});
