//! Who asks, and from where. What they say is read by [`comity_web`].

mod address;
mod user;

pub(crate) use address::Address;
pub(crate) use user::{SigningOut, User, UserOrGuest};
