//! Servers that nobody here has heard of. Of names that could be some there is no end, and each has a queue until it is given up: so
//! whoever writes to them can be counted.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use comity_protocol::id::ServerName;
use comity_storage::ReadError;

use crate::{Contents, ToDevice};

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

    /// How many servers these messages are to that nobody here has heard of.
    ///
    /// # Errors
    /// The store's.
    pub async fn strangers(&self, contents: &Contents) -> Result<usize, ReadError> {
        let named: BTreeSet<&ServerName> = contents.keys().map(|user| user.server_name()).collect();
        let others = named.into_iter().filter(|name| *name != self.0.server_name);
        let others: Vec<&ServerName> = others.collect();
        match self.0.servers.get() {
            Some(servers) if !others.is_empty() => servers.strangers(&others).await,
            _ => Ok(0),
        }
    }
}
