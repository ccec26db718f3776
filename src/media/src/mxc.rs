//! What a `mxc://` URI names.

use std::fmt;

use comity_protocol::id::{OwnedServerName, ServerName};

/// Longest media id we take, so that a row's key stays within what engines take.
const MAX_ID: usize = 200;

/// A server and the id it gave to a piece of media. Neither holds anything that could be taken for a path (threat H1).
///
/// <https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mxc {
    server: OwnedServerName,
    id: String,
}

impl Mxc {
    /// `None` unless `server` is a server's name and `id` consists of `A-Za-z0-9_-`.
    pub fn new(server: &str, id: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(allowed) {
            return None;
        }
        Some(Self {
            server: OwnedServerName::try_from(server).ok()?,
            id: id.to_owned(),
        })
    }

    /// Whose it is.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// What that server calls it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for Mxc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mxc://{}/{}", self.server, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threat H1: nothing that could lead out of the store.
    #[test]
    fn h1_only_ids_of_the_alphabet() {
        for id in ["abc", "A-_9", &"a".repeat(200)] {
            assert!(Mxc::new("a.example:8448", id).is_some(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../a", "a\0", "a.b", "ä", "%2f", " "] {
            assert!(Mxc::new("a.example", id).is_none(), "{id}");
        }
        assert!(Mxc::new("a.example", &"a".repeat(201)).is_none());
        for server in ["", "../a", "a/b", "a\0b", "a b"] {
            assert!(Mxc::new(server, "abc").is_none(), "{server}");
        }
        let mxc = Mxc::new("a.example", "abc").unwrap();
        assert_eq!(mxc.to_string(), "mxc://a.example/abc");
    }
}
