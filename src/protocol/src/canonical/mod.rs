//! Canonical JSON: one byte sequence for one value, so that servers can hash and sign it.
//!
//! Events live as canonical text from the moment they come in. [`canonicalize`] is the one
//! decoder: it reads untrusted bytes once, checks them and writes the canonical form. Everything
//! after (redaction, hashes, the client format) cuts that text along its top-level
//! [`members`] without building a tree.
//!
//! What JSON leaves open is decided here, once, for every way in:
//! - of duplicate keys the last one counts, as in the servers and clients we meet; the others are
//!   gone from what we keep, hash and send on;
//! - a lone surrogate (`"\ud800"`) is no text in UTF-8, so it is refused;
//! - NUL (`"\u0000"`) is a character like any other;
//! - nesting deeper than [`MAX_DEPTH`] is refused, or than [`canonicalize_within`] is told.
//!
//! See <https://spec.matrix.org/v1.19/appendices/#canonical-json>.

mod number;
mod object;
mod read;

pub use object::{Members, Object, members};
pub(crate) use object::{elements, string};
pub(crate) use read::write_string;
pub use read::{canonicalize, canonicalize_within};

use serde::Serialize;

/// The deepest nesting of arrays and objects.
///
/// JSON readers of clients and peers give up at 128. An event may stand a dozen levels deep in a
/// sync response, inside the `unsigned` of another; at 100 it can be read there as well.
pub const MAX_DEPTH: usize = 100;

/// The greatest integer, 2^53 − 1; the least is its negative.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// Which numbers are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Integers within ±[`MAX_INTEGER`], in plain digits: events of room version 6 and later, and
    /// whatever else we sign.
    Strict,
    /// Whatever JSON allows: events of older rooms. An integer written with an exponent or as
    /// `-0` becomes plain digits if it is within ±[`MAX_INTEGER`], as the spec's example has it;
    /// any other number keeps its digits as they came, which are what its sender hashed.
    Lax,
}

/// Why bytes are no canonical JSON. Says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8, or an escape that is no character.
    #[error("not valid Unicode")]
    Unicode,
    /// Not JSON, at this byte.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested too deeply")]
    TooDeep,
    /// A number that isn't let through.
    #[error("a number that is no integer between -(2^53 - 1) and 2^53 - 1")]
    Number,
    /// Something else than an object where one is needed.
    #[error("not an object")]
    NotAnObject,
    /// A value of ours that doesn't serialise.
    #[error("can't be written as JSON")]
    Unwritable,
}

/// The canonical JSON of a value of ours.
///
/// # Errors
/// The value doesn't serialise, or holds floats or integers beyond ±[`MAX_INTEGER`].
pub fn to_canonical<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    let bytes = serde_json::to_vec(value).map_err(|_| JsonError::Unwritable)?;
    canonicalize(&bytes, Numbers::Strict)
}
