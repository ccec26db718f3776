//! What is accepted is its own canonical form, and reads as `serde_json` reads the input.
#![no_main]

use comity_protocol::canonical::{Numbers, canonicalize, members};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        members(text).for_each(drop);
    }
    for numbers in [Numbers::Strict, Numbers::Lax] {
        if let Ok(once) = canonicalize(bytes, numbers) {
            assert_eq!(canonicalize(once.as_bytes(), numbers).as_ref(), Ok(&once));
            let theirs = serde_json::from_slice::<Value>(bytes).unwrap();
            if numbers == Numbers::Strict {
                assert_eq!(serde_json::from_str::<Value>(&once).unwrap(), theirs);
            }
        }
    }
});
