//! Several whole servers in one process, with their own disks and clocks and a network between them that fails.
//!
//! They share a reactor, for they share time: a clock that stands still while anybody has something to do is one clock. A server's
//! life is a [`Runtime`](comity_runtime::Runtime) in it, and its death is that runtime's: no task of it goes a step further, what
//! it was asked stays unanswered, the others go on.
//!
//! ```text
//! seed ─▶ founded ─▶ storm: ┌ users at random, each on their own server   ┐ ─▶ healed ─▶ judged
//!         (one room)        │ requests late, lost, unanswered; partitions │
//!                           └ servers die and come back                   ┘
//! ```
//!
//! After the storm the network is sound and all servers run; each server's user says something, twice at the most, and what the
//! partitions kept apart must have come together ([`healed`]). Then everything is held against what it must be ([`judge`]).

mod healed;
mod judge;
mod network;
mod process;
mod seeds;
mod storm;
mod user;
mod world;
