//! The whole server in a deterministic simulation.
