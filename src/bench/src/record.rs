//! The record of a run: JSON lines, each complete in itself, so that a run that was cut short can
//! be reported and two can be put together.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::workloads::{Measurement, Sizes};

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// Begins a run.
    Run {
        /// When, in UTC.
        date: String,
        /// On what.
        machine: String,
        /// The sizes every server got.
        sizes: Sizes,
        /// How often each was measured.
        repeats: usize,
        /// Decides the order of the servers.
        seed: u64,
    },
    /// A server was started for a repeat.
    Server {
        /// Its name in the table.
        server: String,
        /// Its version and its database's.
        version: String,
        /// Which repeat, from 1.
        repeat: usize,
        /// Latency of an fsync on its disk just before, median.
        fsync_p50_ms: f64,
        /// The same, 99th percentile.
        fsync_p99_ms: f64,
        /// Load average of the minute before.
        load_average: f64,
    },
    /// A case was measured.
    Measured {
        /// The server's name.
        server: String,
        /// Which repeat, from 1.
        repeat: usize,
        /// What came out.
        #[serde(flatten)]
        measurement: Measurement,
    },
    /// A workload could not be run on a server.
    Failed {
        /// The server's name.
        server: String,
        /// Which repeat, from 1.
        repeat: usize,
        /// Which workload.
        workload: String,
        /// Why.
        error: String,
    },
}

/// A file that lines are appended to.
pub struct Recorder {
    path: PathBuf,
}

impl Recorder {
    /// Appends to `path`, whose folder is made.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn append_to(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Writes one line and says it on the terminal.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, line: &Line) -> Result<()> {
        let line = serde_json::to_string(line)?;
        println!("{line}");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        Ok(writeln!(file, "{line}")?)
    }
}

/// Reads a record back.
///
/// # Errors
/// When the file isn't there or isn't a record.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path)?;
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}
