//! The comity binary: command line, configuration, composition.

fn main() {}
