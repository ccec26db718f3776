//! Opens the store that the configuration names. Only here is an engine chosen.

use std::{path::PathBuf, sync::Arc};

use comity_runtime::Runtime;
use comity_storage::{
    Engine, Lanes, OpenError, Options, Store, TenantId,
    engine::{Memory, Rocks, rocks},
};

use crate::config::{Config, StorageEngine};

/// The tenant of `server_name`.
pub const TENANT: TenantId = TenantId(1);

/// Opens the store; for a folder that another process has open, the error says so.
///
/// # Errors
/// What stands in the way and what to do about it.
pub async fn open(config: &Config, runtime: &Runtime) -> Result<Store, OpenError> {
    let storage = &config.storage;
    let engine = match storage.engine {
        StorageEngine::Memory => Engine::Memory(Memory::new()),
        StorageEngine::Rocksdb => {
            let rocks = rocks::Config::new(folder(config));
            Engine::Rocks(Rocks::open(rocks, runtime).await?)
        }
        StorageEngine::Postgres => {
            return Err(OpenError::Engine(
                "this build has no PostgreSQL engine".to_owned(),
            ));
        }
    };
    let options = Options {
        // The configuration was checked: a power of two up to 64.
        lanes: u8::try_from(storage.lanes)
            .ok()
            .and_then(Lanes::new)
            .ok_or_else(|| OpenError::Engine("storage.lanes is no number of lanes".to_owned()))?,
        sync: storage.sync,
        on_fatal: Arc::new(|error| {
            // What is durable can't be said any more: to answer anything would be a guess.
            tracing::error!(%error, "the store failed; ending the process");
            std::process::abort();
        }),
        appliers: Vec::new(),
    };
    Ok(Store::new(engine, options, runtime.clone()))
}

/// Where the embedded engine keeps its files.
pub fn folder(config: &Config) -> PathBuf {
    config.data_dir.join("rocksdb")
}
