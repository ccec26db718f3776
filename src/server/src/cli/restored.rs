//! `comity restored`: tells a store that it was put back from a backup.

use comity_runtime::Runtime;

use super::{Failure, print};
use crate::{
    config::{Config, StorageEngine},
    operator, store,
};

/// Begins a new incarnation of the store, for the server to be started on.
pub(super) fn restored(config: &Config, offline: bool) -> Result<(), Failure> {
    if config.storage.engine == StorageEngine::Memory {
        return Err(Failure::new("storage.engine is memory: nothing is kept"));
    }
    // Opening would make it.
    let folder = store::folder(config);
    if config.storage.engine == StorageEngine::Rocksdb && !folder.exists() {
        return Err(Failure::new(format!(
            "there is no store in {}",
            folder.display()
        )));
    }
    let incarnation = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::doing("cannot start the reactor"))?
        .block_on(begin(config, offline))
        .map_err(Failure::new)?;
    print(&format!(
        "Incarnation {incarnation} of the store begins; the server can be started.\n"
    ))
}

async fn begin(config: &Config, offline: bool) -> Result<u32, String> {
    if operator::running(config, offline).await?.is_some() {
        return Err("a server runs on this data_dir: stop it first".to_owned());
    }
    let store = store::open(config, &Runtime::system())
        .await
        .map_err(|error| error.to_string())?;
    let tenant = store
        .restored(store::TENANT)
        .await
        .map_err(|error| error.to_string())?;
    let incarnation = tenant.birth().incarnation;
    tenant.close().await.map_err(|error| error.to_string())?;
    Ok(incarnation)
}
