//! Opens the store that the configuration names. Only here is an engine chosen.

use std::{path::PathBuf, sync::Arc};

use comity_runtime::Runtime;
use comity_storage::{
    CommitError, Engine, Lanes, OpenError, Options, Store, TenantId,
    engine::{Memory, Postgres, Rocks, postgres, rocks},
};

use crate::config::{Config, Secret, StorageEngine};

/// The exit status of a server whose store was taken by another.
const FENCED: i32 = 3;

/// The tenant of `server_name`.
pub const TENANT: TenantId = TenantId(1);

/// Opens the store; for a folder that another process has open, the error says so.
///
/// # Errors
/// What stands in the way and what to do about it.
pub async fn open(config: &Config, runtime: &Runtime) -> Result<Store, OpenError> {
    let storage = &config.storage;
    let engine = engine(config, runtime).await?;
    let options = Options {
        // The configuration was checked: a power of two up to 64.
        lanes: u8::try_from(storage.lanes)
            .ok()
            .and_then(Lanes::new)
            .ok_or_else(|| OpenError::Engine("storage.lanes is no number of lanes".to_owned()))?,
        sync: storage.sync,
        on_fatal: Arc::new(|error| match error {
            // Whoever has it answers for it now; another word of ours could contradict theirs.
            CommitError::Fenced => {
                tracing::error!("another process has taken the store; ending this one");
                std::process::exit(FENCED);
            }
            error => {
                // What is durable can't be said any more: to answer anything would be a guess.
                tracing::error!(%error, "the store failed; ending the process");
                std::process::abort();
            }
        }),
        appliers: comity_house::appliers(),
    };
    Ok(Store::new(engine, options, runtime.clone()))
}

/// The engine alone, to read rows without taking any lane.
///
/// # Errors
/// What stands in the way and what to do about it.
pub async fn engine(config: &Config, runtime: &Runtime) -> Result<Engine, OpenError> {
    match config.storage.engine {
        StorageEngine::Memory => Ok(Engine::Memory(Memory::new())),
        StorageEngine::Rocksdb => {
            let rocks = rocks::Config::new(folder(config));
            Ok(Engine::Rocks(Rocks::open(rocks, runtime).await?))
        }
        StorageEngine::Postgres => {
            // The configuration was checked: this engine has a URL.
            let url = config.storage.url.as_ref().map_or("", Secret::expose);
            let postgres = postgres::Config {
                sync: config.storage.sync,
                ..postgres::Config::new(url)
            };
            Ok(Engine::Postgres(Postgres::open(postgres, runtime).await?))
        }
    }
}

/// Where the embedded engine keeps its files.
pub fn folder(config: &Config) -> PathBuf {
    config.data_dir.join("rocksdb")
}
