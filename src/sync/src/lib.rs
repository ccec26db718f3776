//! Delivery: what changed for a user since a token.
