//! Clock, randomness and task pools, passed in so that a simulation can be the real server.
