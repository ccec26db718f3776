//! Builders, the running server as a fixture, and the specification as a test.
