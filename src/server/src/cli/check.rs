//! `comity check`: walks every row of the store and holds it against what its table writes. Changes nothing.

use comity_runtime::Runtime;
use comity_storage::{ReadError, check};

use super::{Failure, print};
use crate::{
    config::{Config, StorageEngine},
    store,
};

/// Findings printed one by one; beyond, they are counted.
const SHOWN: u64 = 100;

/// Walks the store; fails when anything in it is not as it should be.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
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
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::doing("cannot start the reactor"))?
        .block_on(walk(config))
}

async fn walk(config: &Config) -> Result<(), Failure> {
    let engine = store::engine(config, &Runtime::system())
        .await
        .map_err(Failure::new)?;
    let mut found = 0_u64;
    let mut say = |finding: check::Finding| {
        found += 1;
        if found <= SHOWN {
            // Whoever stopped reading is told by the exit code.
            let _ = print(&format!("{finding}\n"));
        }
    };
    let failed = |error: ReadError| Failure::new(format!("the store can't be read: {error}"));
    let checked = check::tenant(&engine, store::TENANT, &store::tables(), &mut say)
        .await
        .map_err(failed)?;
    check::strays(&engine, &[store::TENANT], &mut say)
        .await
        .map_err(failed)?;
    match found {
        0 => print(&format!("{} rows, all as they should be\n", checked.rows)),
        found => Err(Failure::new(format!(
            "{found} findings in {} rows; restore from a backup, or report them",
            checked.rows
        ))),
    }
}
