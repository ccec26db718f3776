//! Where a request came from.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;

/// Whom a request counts against where there is no user: an IPv4 address, or the 64 bits of an IPv6 address that its
/// network has, since the rest is everybody's own to choose. Which header of a proxy counts is decided where connections come in.
pub(crate) struct Address(pub String);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(counted(address(parts))))
    }
}

fn counted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64));
            format!("{network}/64")
        }
    }
}

/// The whole address, for the list of devices; of a request that came through no connection, that of this machine.
pub(super) fn address(parts: &Parts) -> IpAddr {
    match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(address)) => address.ip().to_canonical(),
        None => Ipv4Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    /// G9: whoever has an IPv6 network has no more tries than whoever has an address.
    #[test]
    fn g9_an_ipv6_network_counts_as_one() {
        let counted = |address: &str| counted(address.parse().unwrap());
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(counted("2001:db8:1:2::"), counted("2001:db8:1:2:ffff::1"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
    }
}
