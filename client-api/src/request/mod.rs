//! What a request says, read and checked: who asks, path, query, body.

mod address;
mod body;
mod path;
mod query;
mod user;

pub(crate) use address::Address;
pub(crate) use body::{Json, read};
pub(crate) use path::Path;
pub(crate) use query::Query;
pub(crate) use user::{SigningOut, User, UserOrGuest};
