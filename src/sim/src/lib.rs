//! The whole server in a deterministic simulation.
//!
//! It is all test. `run` lets a few users talk to the real server, request by request into its router, on one thread and a clock
//! that moves only when everybody waits. Below it is the memory engine with a disk's habits: it stalls, refuses, loses
//! answers, is cut off, loses power with what was not synced, and lets a second server open the same store. Some lives don't
//! wait for the disk, some end in peace. One seed decides all of it. The server lives several lives on one disk; what was
//! acknowledged in any of them is held against what is there at the end:
//!
//! - nothing acknowledged is lost (without fsync: but by a power cut), nothing refused is there, nothing retried is there twice;
//! - threads have their replies, redactions took the content, receipts never moved back;
//! - the sequence numbers of a room have no gap;
//! - the fold of a user's incremental syncs, across all lives, is what a fresh sync gives, unread counts too; and so is that of sliding
//!   sync, through whichever windows and with whichever answers lost;
//! - every row is as its table writes it, after each crash and at the end.
//!
//! ```text
//! seed ─▶ lives: ┌ runtime, server(s) on the disk ┐ crash ┌ … ┐ crash ┌ … ┐ ─▶ verify
//!                └ users, faults                  ┘       └   ┘       └   ┘
//! ```
//!
//! [`federation`] does the same to several servers and the network between them.
//!
//! A run's `Story` has each answer with its time; two runs of a seed have the same. `COMITY_SIM_SEED=n` replays one.

#![cfg(test)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a check that fails is a test that fails"
)]

mod federation;
mod fold;
mod life;
mod seeds;
mod slide;
mod story;
mod user;
mod verify;
mod weather;
mod world;
