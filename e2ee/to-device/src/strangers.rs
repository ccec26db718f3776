//! Servers that nobody here has heard of. Of names that could be some there is no end, and each has a queue until it is given up: so
//! whoever writes to them can be counted.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use comity_protocol::id::ServerName;
use comity_storage::ReadError;

use crate::ToDevice;

/// Knows other servers.
#[async_trait]
pub trait Servers: Send + Sync {
    /// How many of these have never told us their keys.
    async fn strangers(&self, servers: &[&ServerName]) -> Result<usize, ReadError>;
}

impl ToDevice {
    /// From now on these know which servers there are. Once only; until then none is a stranger.
    pub fn use_servers(&self, servers: Arc<dyn Servers>) {
        drop(self.0.servers.set(servers));
    }

    /// Of how many of these servers nobody here has heard.
    ///
    /// # Errors
    /// The store's.
    pub async fn strangers(&self, named: BTreeSet<&ServerName>) -> Result<usize, ReadError> {
        let others = named.into_iter().filter(|name| *name != self.0.server_name);
        let others: Vec<&ServerName> = others.collect();
        match self.0.servers.get() {
            Some(servers) if !others.is_empty() => servers.strangers(&others).await,
            _ => Ok(0),
        }
    }
}
