//! Canonical objects by their members: cut up without a tree, changed by the member.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::JsonError;

/// The members of a canonical object, in their order: the key as it is written between its
/// quotes, and the value's text.
///
/// The text must be what [`super::canonicalize`] wrote. Of other text the members end early, but
/// nothing worse happens.
pub fn members(object: &str) -> Members<'_> {
    Members {
        rest: object.strip_prefix('{').unwrap_or_default(),
    }
}

/// Iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    /// The value of the first member with this key (a key that needs no escapes).
    pub fn get(mut self, key: &str) -> Option<&'a str> {
        self.find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
        let (key, rest) = rest.split_at_checked(value_length(rest)?)?;
        let rest = rest.strip_prefix(':')?;
        let (value, rest) = rest.split_at_checked(value_length(rest)?)?;
        self.rest = rest;
        Some((key.strip_prefix('"')?.strip_suffix('"')?, value))
    }
}

impl Members<'_> {
    /// Bytes of the object after the last member returned.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }
}

/// The elements of a canonical array, as [`members`] for objects.
pub(crate) fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut rest = array.strip_prefix('[').unwrap_or_default();
    std::iter::from_fn(move || {
        let from = rest.strip_prefix(',').unwrap_or(rest);
        let (element, after) = from.split_at_checked(value_length(from)?)?;
        rest = after;
        Some(element)
    })
}

/// The length of the canonical value that `text` begins with.
fn value_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => at += string_length(bytes.get(at..)?)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' if depth > 0 => {
                at += 1;
                continue;
            }
            b',' | b':' => return None,
            _ => {
                let scalar = bytes.get(at..)?;
                at += scalar
                    .iter()
                    .position(|byte| matches!(byte, b',' | b'}' | b']'))
                    .unwrap_or(scalar.len());
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of the string that `bytes` begin with, quotes included.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += bytes
            .get(at..)?
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\'))?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The string that canonical text `"…"` stands for; `None` if it is no string.
pub(crate) fn string(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inside))
    }
}

/// A canonical object that is to be changed: members by key, each value a canonical text.
///
/// For what is built or signed; reading and redacting go by [`members`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object {
    // Ordered by the keys' bytes, which for UTF-8 is the order of their code points.
    members: BTreeMap<String, Box<RawValue>>,
}

impl Object {
    /// Takes a canonical object apart.
    ///
    /// # Errors
    /// The text is no object.
    pub fn parse(canonical: &str) -> Result<Self, JsonError> {
        serde_json::from_str(canonical).map_err(|_| JsonError::NotAnObject)
    }

    /// A member's canonical text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.members.get(key).map(|value| value.get())
    }

    /// Sets a member to the canonical form of `value`.
    ///
    /// # Errors
    /// As [`super::to_canonical`].
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), JsonError> {
        let value = super::to_canonical(value)?;
        let value = RawValue::from_string(value).map_err(|_| JsonError::Unwritable)?;
        self.members.insert(key.to_owned(), value);
        Ok(())
    }

    /// Takes a member away.
    pub fn remove(&mut self, key: &str) {
        self.members.remove(key);
    }

    /// The canonical text of the whole.
    ///
    /// # Errors
    /// None in practice: every member is text already.
    pub fn write(&self) -> Result<String, JsonError> {
        serde_json::to_string(self).map_err(|_| JsonError::Unwritable)
    }
}
