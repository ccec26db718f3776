//! `comity check`: walks every row of the store, holds it against what its table writes, then against the rows that it
//! has to agree with, and media's rows against the files. Changes nothing.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use comity_house::check::{Checked, rows};
use comity_runtime::{Clock, Runtime};
use comity_storage::{
    ReadError,
    check::{self, Listener},
};

use super::{Failure, print};
use crate::{
    config::{Config, StorageEngine},
    house, store,
};

/// Findings printed one by one; beyond, they are counted.
const SHOWN: u64 = 100;
/// How often a long walk says where it is.
const PACE: Duration = Duration::from_secs(5);

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

/// Prints what is found, and now and then how far the walk has come.
struct Printer<'a> {
    clock: &'a Clock,
    found: u64,
    rows: u64,
    told: Duration,
}

impl<F: Display> Listener<F> for Printer<'_> {
    fn found(&mut self, finding: F) {
        self.found += 1;
        if self.found <= SHOWN {
            // Whoever stopped reading is told by the exit code.
            let _ = print(&format!("{finding}\n"));
        }
    }

    fn walked(&mut self, rows: usize) {
        self.rows += rows as u64;
        if self.clock.monotonic() >= self.told + PACE {
            self.told = self.clock.monotonic();
            let _ = writeln!(io::stderr(), "{} rows so far", self.rows);
        }
    }
}

async fn walk(config: &Config) -> Result<(), Failure> {
    let runtime = Runtime::system();
    let engine = store::engine(config, &runtime)
        .await
        .map_err(Failure::new)?;
    let mut to = Printer {
        clock: runtime.clock(),
        found: 0,
        rows: 0,
        told: runtime.clock().monotonic(),
    };
    let failed = |error: ReadError| Failure::new(format!("the store can't be read: {error}"));
    let checked = rows(&engine, store::TENANT, &config.server_name, &mut to)
        .await
        .map_err(failed)?;
    check::strays(&engine, &[store::TENANT], &mut to)
        .await
        .map_err(failed)?;
    let reader = check::reader(&engine, store::TENANT)
        .await
        .map_err(failed)?;
    if let Some(reader) = reader {
        let folder = house::media_folder(config);
        let blobs = (&*folder, house::bucket(&config.s3));
        comity_media::check::tenant(&reader, &config.server_name, blobs, &mut to)
            .await
            .map_err(|error| Failure::new(format!("media can't be read: {error}")))?;
    }
    let Checked { rows, rooms } = checked;
    match to.found {
        0 => print(&format!(
            "{rows} rows, {rooms} rooms, all as they should be\n"
        )),
        found => Err(Failure::new(format!(
            "{found} findings in {rows} rows; restore from a backup, or report them"
        ))),
    }
}
