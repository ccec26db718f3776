//! The ordered key-value store behind Comity: lanes, batches, engines, typed tables.
