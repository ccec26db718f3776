//! Loads any Matrix homeserver and measures it.

fn main() {}
