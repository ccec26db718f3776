//! The target that this binary is called after.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| comity_fuzz::run(env!("CARGO_BIN_NAME"), bytes));
