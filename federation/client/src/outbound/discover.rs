//! From a server's name to where it is: the specification's six steps.
//!
//! Whatever the step, one name goes into the `Host` header and its host into the certificate's check:
//! the server's own, or the one it delegates to. SRV records only say where that name's server
//! listens, as nobody vouches for them.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use comity_protocol::id::{OwnedServerName, ServerName, is_reachable_name};
use comity_runtime::Runtime;
use parking_lot::Mutex;
use rustls::pki_types;

use super::dial::{Host, Srv, Target};
use crate::transport::TransportError;

const DEFAULT_PORT: u16 = 8448;
/// How long a route without delegation is kept, and how long one that was found while something
/// gave no answer.
const KEPT: Duration = Duration::from_secs(60 * 60);
const KEPT_UNSURE: Duration = Duration::from_secs(2 * 60);
/// A route that fails is looked for anew, unless it was found just now.
const FRESH: Duration = Duration::from_secs(60);
/// Routes kept.
const ROUTES: usize = 10_000;

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The `Host` header.
    pub host: String,
    /// Whom the certificate must be for.
    pub name: pki_types::ServerName<'static>,
    /// Where it listens.
    pub targets: Vec<Target>,
}

/// What `/.well-known/matrix/server` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WellKnown {
    /// Another name, for so long.
    Delegates(OwnedServerName, Duration),
    /// Nothing, or nonsense.
    Absent,
    /// No answer: perhaps there is one.
    Unknown,
}

/// The network's side of the steps.
#[async_trait]
pub(super) trait Ask: Send + Sync {
    async fn well_known(&self, host: &str) -> WellKnown;
    async fn srv(&self, name: &str) -> Srv;
}

/// Finds a server's route, and says how long it is good.
pub(super) async fn discover(
    server: &ServerName,
    ask: &impl Ask,
) -> Result<(Route, Duration), TransportError> {
    // Steps 1 and 2.
    if let Some(route) = direct(server)? {
        return Ok((route, KEPT));
    }
    // Step 3.
    let (named, mut kept) = match ask.well_known(server.host()).await {
        WellKnown::Delegates(to, kept) => {
            if let Some(route) = direct(&to)? {
                return Ok((route, kept));
            }
            (to, kept)
        }
        WellKnown::Absent => (server.to_owned(), KEPT),
        WellKnown::Unknown => (server.to_owned(), KEPT_UNSURE),
    };
    // Steps 3.3 to 3.5 with the delegated name, 4 to 6 with the server's own.
    let host = named.host();
    let mut targets = vec![Target {
        host: Host::Name(host.to_owned()),
        port: DEFAULT_PORT,
    }];
    for service in ["_matrix-fed", "_matrix"] {
        match ask.srv(&format!("{service}._tcp.{host}")).await {
            Srv::Found(found) => {
                targets = found;
                break;
            }
            Srv::Absent => {}
            Srv::Unknown => kept = kept.min(KEPT_UNSURE),
        }
    }
    let route = Route {
        host: named.to_string(),
        name: certificate_name(host)?,
        targets,
    };
    Ok((route, kept))
}

/// The route of a name that says it all: an address, or a port.
fn direct(server: &ServerName) -> Result<Option<Route>, TransportError> {
    if !is_reachable_name(server) {
        return Err(TransportError::Name);
    }
    let literal = server.host().trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = literal.parse().ok();
    let host = match (address, server.port()) {
        (None, None) => return Ok(None),
        (Some(address), _) => Host::Ip(address),
        (None, Some(_)) => Host::Name(server.host().to_owned()),
    };
    let port = server.port().unwrap_or(DEFAULT_PORT);
    Ok(Some(Route {
        host: server.to_string(),
        name: certificate_name(literal)?,
        targets: vec![Target { host, port }],
    }))
}

pub(super) fn certificate_name(
    host: &str,
) -> Result<pki_types::ServerName<'static>, TransportError> {
    pki_types::ServerName::try_from(host.to_owned()).map_err(|_| TransportError::Name)
}

/// Routes that were found, for as long as they are good.
pub(super) struct Routes {
    runtime: Runtime,
    found: Mutex<BTreeMap<OwnedServerName, Kept>>,
}

struct Kept {
    route: Arc<Route>,
    since: Duration,
    until: Duration,
}

impl Routes {
    pub fn new(runtime: Runtime) -> Self {
        let found = Mutex::default();
        Self { runtime, found }
    }

    pub async fn find(
        &self,
        server: &ServerName,
        ask: &impl Ask,
    ) -> Result<Arc<Route>, TransportError> {
        let now = || self.runtime.clock().monotonic();
        if let Some(kept) = self.found.lock().get(server)
            && kept.until > now()
        {
            return Ok(kept.route.clone());
        }
        let (route, good_for) = discover(server, ask).await?;
        let route = Arc::new(route);
        let kept = Kept {
            route: route.clone(),
            since: now(),
            until: now() + good_for,
        };
        let mut found = self.found.lock();
        if found.len() >= ROUTES {
            found.clear();
        }
        found.insert(server.to_owned(), kept);
        Ok(route)
    }

    /// The route failed: it may have changed since it was found.
    pub fn failed(&self, server: &ServerName) {
        let now = self.runtime.clock().monotonic();
        let mut found = self.found.lock();
        if found
            .get(server)
            .is_some_and(|kept| kept.since + FRESH < now)
        {
            found.remove(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network in which hosts delegate and have SRV records as these say.
    struct Net {
        well_known: &'static [(&'static str, &'static str)],
        srv: &'static [(&'static str, &'static str, u16)],
    }

    #[async_trait]
    impl Ask for Net {
        async fn well_known(&self, host: &str) -> WellKnown {
            match self.well_known.iter().find(|(of, _)| *of == host) {
                Some((_, "")) => WellKnown::Unknown,
                Some((_, to)) => WellKnown::Delegates(
                    ServerName::parse(*to).unwrap().to_owned(),
                    Duration::from_secs(5),
                ),
                None => WellKnown::Absent,
            }
        }

        async fn srv(&self, name: &str) -> Srv {
            let found = self.srv.iter().filter(|(of, ..)| *of == name);
            let targets: Vec<_> = found
                .map(|(_, host, port)| Target {
                    host: Host::Name((*host).to_owned()),
                    port: *port,
                })
                .collect();
            if targets.is_empty() {
                Srv::Absent
            } else {
                Srv::Found(targets)
            }
        }
    }

    const NET: Net = Net {
        well_known: &[
            ("to-ip", "1.2.3.4"),
            ("to-ip-port", "[2606::1]:1"),
            ("to-port", "there:99"),
            ("to-srv", "srv"),
            ("to-old-srv", "old-srv"),
            ("to-name", "there"),
            ("unknown", ""),
        ],
        srv: &[
            ("_matrix-fed._tcp.srv", "target", 7),
            ("_matrix._tcp.srv", "wrong", 7),
            ("_matrix._tcp.old-srv", "old-target", 8),
        ],
    };

    /// Every step: server, `Host`, certificate, where to.
    #[tokio::test]
    async fn the_six_steps() {
        for (server, host, certificate, target, port) in [
            ("1.2.3.4", "1.2.3.4", "1.2.3.4", "1.2.3.4", 8448),
            ("1.2.3.4:5", "1.2.3.4:5", "1.2.3.4", "1.2.3.4", 5),
            ("[2606::1]", "[2606::1]", "2606::1", "2606::1", 8448),
            ("to-port:5", "to-port:5", "to-port", "to-port", 5),
            ("to-ip", "1.2.3.4", "1.2.3.4", "1.2.3.4", 8448),
            ("to-ip-port", "[2606::1]:1", "2606::1", "2606::1", 1),
            ("to-port", "there:99", "there", "there", 99),
            ("to-srv", "srv", "srv", "target", 7),
            ("to-old-srv", "old-srv", "old-srv", "old-target", 8),
            ("to-name", "there", "there", "there", 8448),
            ("srv", "srv", "srv", "target", 7),
            ("old-srv", "old-srv", "old-srv", "old-target", 8),
            ("plain", "plain", "plain", "plain", 8448),
            ("unknown", "unknown", "unknown", "unknown", 8448),
        ] {
            let name = ServerName::parse(server).unwrap();
            let (route, kept) = discover(&name, &NET).await.unwrap();
            let target_host = match target.parse() {
                Ok(address) => Host::Ip(address),
                Err(_) => Host::Name(target.to_owned()),
            };
            let expected = Route {
                host: host.to_owned(),
                name: certificate_name(certificate).unwrap(),
                targets: vec![Target {
                    host: target_host,
                    port,
                }],
            };
            assert_eq!(route, expected, "{server}");
            let expected = match server {
                "unknown" => KEPT_UNSURE,
                _ if server.starts_with("to-") && !server.contains(':') => Duration::from_secs(5),
                _ => KEPT,
            };
            assert_eq!(kept, expected, "{server}");
        }
    }

    /// B7: nothing is asked about names that nobody has.
    #[tokio::test]
    async fn b7_names_that_are_not_looked_up() {
        struct Nobody;
        #[async_trait]
        impl Ask for Nobody {
            async fn well_known(&self, host: &str) -> WellKnown {
                panic!("asked for {host}")
            }
            async fn srv(&self, name: &str) -> Srv {
                panic!("asked for {name}")
            }
        }
        for name in ["good.com.", "a..b", "good.com:0", "good.com:99999"] {
            let Ok(name) = ServerName::parse(name) else {
                continue;
            };
            assert_eq!(
                discover(&name, &Nobody).await,
                Err(TransportError::Name),
                "{name}"
            );
        }
    }
}
