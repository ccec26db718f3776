//! Several servers in one process, and peers that mean harm.
//!
//! [`Federation`] is n servers joined by a [`Wire`], which carries their requests from router to router and fails as the test says.
//! [`HostilePeer`] is a server of the test's own making on the same wire: it has keys, answers whatever it is told to, and sends
//! whatever it likes, signed well or badly.
//!
//! ```ignore
//! let federation = Federation::of(["a.test", "b.test"]).await;
//! let alice = federation["a.test"].register("alice").await;
//! federation.wire.cut("a.test", "b.test");
//! let mallory = HostilePeer::on(&federation.wire, "evil.test");
//! mallory.to(&federation["a.test"]).get("/_matrix/federation/v1/query/profile?user_id=…").send().await;
//! ```

mod hostile;
mod pdu;
mod policy;
mod wire;

use std::{collections::BTreeMap, ops::Index};

use crate::{Server, Settings};

pub use hostile::{Asked, HostilePeer, Reply};
pub use pdu::{Pdu, PeerRoom};
pub use policy::PolicyKey;
pub use wire::{Fate, Passing, Wire};

/// Servers that know one another by name, over one wire.
pub struct Federation {
    /// What they speak over.
    pub wire: Wire,
    servers: BTreeMap<String, Server>,
}

impl Federation {
    /// New servers of these names.
    pub async fn of<const N: usize>(names: [&str; N]) -> Self {
        Self::with(names.map(|name| Settings {
            server_name: name.try_into().expect("a server name"),
            ..Settings::default()
        }))
        .await
    }

    /// New servers, as the test wants each.
    pub async fn with(settings: impl IntoIterator<Item = Settings>) -> Self {
        let mut federation = Self {
            wire: Wire::new(),
            servers: BTreeMap::new(),
        };
        for settings in settings {
            let name = settings.server_name.to_string();
            let server = Server::on_wire(&federation.wire, settings).await;
            federation.servers.insert(name, server);
        }
        federation
    }

    /// Ends a server as a loss of power does, and starts it again on what it had made durable.
    pub async fn restart(&mut self, name: &str) {
        let server = self.servers.remove(name).expect("a server of that name");
        let again = server.restarted().await;
        self.servers.insert(name.to_owned(), again);
    }
}

impl Index<&str> for Federation {
    type Output = Server;

    fn index(&self, name: &str) -> &Server {
        &self.servers[name]
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wire.assert_sound();
        }
    }
}
