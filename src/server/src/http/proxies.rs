//! Whose request it is when a reverse proxy hands it on (threat G9).
//!
//! `X-Forwarded-For` is a list that each proxy adds to on the right; what came with the request stands on the left and may be
//! made up. So it is read from the right, and only while what stands there was added by a proxy that the operator trusts.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses that begin alike: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// No network.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("is no network: an IP address, with or without the number of bits that count (10.0.0.0/8)")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| NotANetwork)?,
            None => most,
        };
        (bits <= most)
            .then_some(Self { address, bits })
            .ok_or(NotANetwork)
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (Ipv4Addr::to_bits(ours) ^ Ipv4Addr::to_bits(theirs)) & mask == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                (Ipv6Addr::to_bits(ours) ^ Ipv6Addr::to_bits(theirs)) & mask == 0
            }
            _ => false,
        }
    }
}

/// The reverse proxies whose word on a client's address is taken.
#[derive(Debug, Default)]
pub struct Proxies {
    trusted: Vec<Network>,
    /// Whether the operator was told of a proxy that isn't trusted.
    told: AtomicBool,
}

impl Proxies {
    /// Trusts these, and nobody else.
    pub fn new(trusted: Vec<Network>) -> Self {
        Self {
            trusted,
            told: AtomicBool::default(),
        }
    }

    /// Where a request came from: the peer, or, where the peer is trusted, the last address in the list that isn't.
    pub(super) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let mut hops = headers.get_all(FORWARDED_FOR).iter().rev().peekable();
        if hops.peek().is_none() {
            return client;
        }
        if !self.trusts(client.ip()) {
            self.tell(client.ip());
            return client;
        }
        let hops = hops.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            // What can't be read hides what stands left of it.
            let Some(hop) = str::from_utf8(hop).ok().and_then(address) else {
                break;
            };
            client = SocketAddr::new(hop, 0);
            if !self.trusts(hop) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// A proxy on this machine that isn't trusted is hardly meant: then all clients are one to the rate limits.
    fn tell(&self, peer: IpAddr) {
        if peer.is_loopback() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "X-Forwarded-For is not believed: if this is your reverse proxy, name it in listen.trusted_proxies"
            );
        }
    }
}

/// An address as proxies write it: bare, in brackets, with a port.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    let address = bare.unwrap_or(hop).parse::<IpAddr>();
    let address = address.or_else(|_| hop.parse::<SocketAddr>().map(|hop| hop.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, lines: &[&str]) -> String {
        let trusted = trusted.iter().map(|network| network.parse().unwrap());
        let proxies = Proxies::new(trusted.collect());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        proxies.client(peer, &headers).ip().to_string()
    }

    /// G9: the list counts only as far as trusted proxies wrote it.
    #[test]
    fn g9_the_rightmost_untrusted_hop_is_the_client() {
        let local = &["127.0.0.0/8", "::1", "10.1.0.0/16"][..];
        for (trusted, peer, lines, expected) in [
            (&[][..], "127.0.0.1", &["1.2.3.4"][..], "127.0.0.1"),
            (local, "8.8.8.8", &["1.2.3.4"], "8.8.8.8"),
            (local, "127.0.0.1", &[], "127.0.0.1"),
            (local, "127.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            (local, "::ffff:127.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            (local, "::1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            (
                local,
                "127.0.0.1",
                &["6.6.6.6, 1.2.3.4, 10.1.2.3"],
                "1.2.3.4",
            ),
            (
                local,
                "127.0.0.1",
                &["6.6.6.6", "1.2.3.4,10.1.2.3"],
                "1.2.3.4",
            ),
            (local, "127.0.0.1", &["1.2.3.4", "10.2.0.1"], "10.2.0.1"),
            (
                local,
                "127.0.0.1",
                &["6.6.6.6, nonsense, 10.1.2.3"],
                "10.1.2.3",
            ),
            (local, "127.0.0.1", &["nonsense"], "127.0.0.1"),
            (local, "127.0.0.1", &["10.1.9.9, 127.0.0.1"], "10.1.9.9"),
            (local, "127.0.0.1", &["1.2.3.4:567"], "1.2.3.4"),
            (local, "127.0.0.1", &["[2001:db8::1]:5"], "2001:db8::1"),
            (local, "127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            (local, "127.0.0.1", &["::ffff:1.2.3.4"], "1.2.3.4"),
            (&["0.0.0.0/0"], "9.9.9.9", &["1.2.3.4"], "1.2.3.4"),
            (&["2001:db8::/32"], "2001:db8:1::1", &["1.2.3.4"], "1.2.3.4"),
        ] {
            assert_eq!(client(trusted, peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn networks_that_are_none() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0/8",
            "1/2/3",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
