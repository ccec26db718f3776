//! A run: prepare every server once, then measure all of them as often as asked, in shuffled order.
//!
//! Between repeats a server is stopped and started on its own data, so that each repeat begins with
//! cold caches and nobody idles beside the one that is measured.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha12Rng;

use crate::error::Result;
use crate::machine::{self, Processes};
use crate::record::{Line, Recorder};
use crate::remote::Remotes;
use crate::servers::{self, Kind, Places, Running};
use crate::target::Target;
use crate::workloads::account::Busy;
use crate::workloads::crowd::Crowd;
use crate::workloads::encryption::Encrypting;
use crate::workloads::initial::Cohort;
use crate::workloads::sends::Sends;
use crate::workloads::{
    Measurement, Site, Sizes, account, crowd, deliver, encryption, enter, fanout, idle, ingest,
    initial, resolve, sends,
};

/// The workloads by number, in the order in which they run.
pub const ALL: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11];

/// Everything a server was prepared with.
struct Prepared {
    sends: Sends,
    crowd: Crowd,
    busy: Busy,
    cohort: Cohort,
    encrypting: Encrypting,
}

async fn prepare(site: &Site, sizes: &Sizes, chosen: &[u8]) -> Result<Prepared> {
    // What isn't chosen is prepared at size nought, which costs nothing.
    let mut sizes = sizes.clone();
    for workload in ALL.iter().filter(|workload| !chosen.contains(workload)) {
        match workload {
            1 => sizes.send_rooms = 0,
            2 => sizes.listeners.clear(),
            3 => sizes.waiting.clear(),
            4 => sizes.polls.clear(),
            5 => sizes.account_rooms = 0,
            6 => sizes.initial = (0, 0, 0),
            11 => sizes.key_users = 0,
            // Their rooms can be joined once only, so each repeat makes its own.
            _ => {}
        }
    }
    Ok(Prepared {
        sends: sends::prepare(site, &sizes).await?,
        crowd: crowd::prepare(site, &sizes).await?,
        busy: account::prepare(site, &sizes).await?,
        cohort: initial::prepare(site, &sizes).await?,
        encrypting: encryption::prepare(site, &sizes).await?,
    })
}

async fn workload(
    number: u8,
    site: &Site,
    prepared: &Prepared,
    sizes: &Sizes,
) -> Result<Vec<Measurement>> {
    match number {
        1 => sends::run(site, &prepared.sends, sizes).await,
        2 => deliver::run(site, &prepared.crowd, sizes).await,
        3 => fanout::run(site, &prepared.crowd, sizes).await,
        4 => idle::run(site, &prepared.crowd, sizes).await,
        6 => initial::run(site, &prepared.cohort).await,
        7 => enter::run(site, sizes).await,
        8 => ingest::run(site, sizes).await,
        9 => resolve::run(site, sizes).await,
        11 => encryption::run(site, &prepared.encrypting, sizes).await,
        _ => account::run(site, &prepared.busy).await,
    }
}

/// What to run, and how often.
pub struct Plan {
    /// The workloads' numbers.
    pub workloads: Vec<u8>,
    /// How much of everything.
    pub sizes: Sizes,
    /// How often.
    pub repeats: usize,
    /// Decides the order of the servers in each repeat.
    pub seed: u64,
    /// Tells this run's accounts from those of others on the same server.
    pub tag: String,
}

impl Plan {
    fn begin(&self, recorder: &Recorder, date: String) -> Result<()> {
        recorder.write(&Line::Run {
            date,
            machine: machine::description(),
            sizes: self.sizes.clone(),
            repeats: self.repeats,
            seed: self.seed,
        })
    }

    async fn measure(
        &self,
        recorder: &Recorder,
        server: &str,
        repeat: usize,
        site: &Site,
        prepared: &Prepared,
    ) -> Result<()> {
        for number in &self.workloads {
            let server = server.to_owned();
            match workload(*number, site, prepared, &self.sizes).await {
                Ok(measured) => {
                    for measurement in measured {
                        recorder.write(&Line::Measured {
                            server: server.clone(),
                            repeat,
                            measurement,
                        })?;
                    }
                }
                // The others can still be measured; the report says what couldn't.
                Err(error) => {
                    let workload = format!("W{number}");
                    recorder.write(&Line::Failed {
                        server,
                        repeat,
                        workload,
                        error: error.to_string(),
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// A homeserver that somebody else started.
pub struct Elsewhere {
    /// Its base URL.
    pub base_url: String,
    /// Authorities of its certificate that the system doesn't trust.
    pub ca_file: Option<PathBuf>,
    /// Its name in the table.
    pub name: String,
    /// Its shared secret, where registration isn't open.
    pub secret: Option<String>,
    /// Its processes' ids, for CPU and memory.
    pub pids: Vec<u32>,
    /// A folder on its disk, to probe.
    pub disk: PathBuf,
}

/// Measures a server that is already running.
///
/// # Errors
/// When it can't be prepared.
pub async fn elsewhere(
    plan: &Plan,
    server: Elsewhere,
    recorder: &Recorder,
    date: String,
) -> Result<()> {
    plan.begin(recorder, date)?;
    let site = Site {
        target: Target::resolve(&server.base_url, server.ca_file.as_deref()).await?,
        processes: Processes::under(server.pids),
        secret: server.secret,
        tag: plan.tag.clone(),
        serial: AtomicU64::new(0),
        remotes: None,
    };
    let prepared = prepare(&site, &plan.sizes, &plan.workloads).await?;
    for repeat in 1..=plan.repeats {
        let (fsync_p50_ms, fsync_p99_ms) = machine::fsync_latency(&server.disk)?;
        recorder.write(&Line::Server {
            server: server.name.clone(),
            version: server.base_url.clone(),
            repeat,
            fsync_p50_ms,
            fsync_p99_ms,
            load_average: machine::load_average(),
        })?;
        plan.measure(recorder, &server.name, repeat, &site, &prepared)
            .await?;
    }
    Ok(())
}

/// What is put side by side.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Which servers.
    pub kinds: &'a [Kind],
    /// Where their things are.
    pub places: &'a Places,
    /// Those that they share rooms with.
    pub remotes: &'a Remotes,
}

/// Starts each of the servers on new data and measures them side by side.
///
/// # Errors
/// When a server can't be started or prepared.
pub async fn side_by_side(
    plan: &Plan,
    bench: Bench<'_>,
    recorder: &Recorder,
    date: String,
) -> Result<()> {
    let Bench {
        kinds,
        places,
        remotes,
    } = bench;
    plan.begin(recorder, date)?;
    let mut ready = Vec::new();
    for kind in kinds {
        // The port is part of the server's public name, so it stays.
        let port = servers::free_port()?;
        eprintln!("preparing {}", kind.name());
        let running = servers::start(*kind, places, port).await?;
        let mut site = site(plan, &running, remotes).await?;
        let prepared = prepare(&site, &plan.sizes, &plan.workloads).await?;
        site.processes.settle().await;
        running.stop().await?;
        site.processes = Processes::default();
        ready.push((*kind, port, site, prepared));
    }
    let mut random = ChaCha12Rng::seed_from_u64(plan.seed);
    for repeat in 1..=plan.repeats {
        ready.shuffle(&mut random);
        for (kind, port, site, prepared) in &mut ready {
            let load_average = machine::load_average();
            let (fsync_p50_ms, fsync_p99_ms) = machine::fsync_latency(&places.data)?;
            let running = servers::start(*kind, places, *port).await?;
            site.processes = running.processes();
            let server = kind.name().to_owned();
            let version = running.version.clone();
            recorder.write(&Line::Server {
                server,
                version,
                repeat,
                fsync_p50_ms,
                fsync_p99_ms,
                load_average,
            })?;
            site.processes.settle().await;
            if plan.workloads.contains(&4) {
                let measurement = idle::at_rest(site);
                let server = kind.name().to_owned();
                recorder.write(&Line::Measured {
                    server,
                    repeat,
                    measurement,
                })?;
            }
            plan.measure(recorder, kind.name(), repeat, site, prepared)
                .await?;
            running.stop().await?;
        }
    }
    fs::remove_dir_all(&places.data)?;
    Ok(())
}

async fn site(plan: &Plan, running: &Running, remotes: &Remotes) -> Result<Site> {
    Ok(Site {
        target: Target::resolve(&running.base_url, None).await?,
        processes: running.processes(),
        secret: running.secret.clone(),
        tag: plan.tag.clone(),
        serial: AtomicU64::new(0),
        remotes: Some(remotes.clone()),
    })
}
