//! Loads any Matrix homeserver and measures it: the program of `make bench`.
//!
//! `compare` starts Comity and Synapse and puts them side by side, `run` measures a server that is
//! there already, `report` turns the record into a table and a plot. The client is one thread: it
//! takes at most one core from the server, the same for every server.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod device;
mod error;
mod http;
mod kill;
mod machine;
mod matrix;
mod plot;
mod record;
mod remote;
mod report;
mod run;
mod servers;
mod stats;
mod target;
mod targets;
mod workloads;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::record::Recorder;
use crate::remote::Remotes;
use crate::run::{Bench, Elsewhere, Plan};
use crate::servers::{Kind, Places};
use crate::workloads::Sizes;

#[derive(Parser)]
#[command(about = "Loads Matrix homeservers and measures them")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure a homeserver that is running. Its rate limits must be off.
    Run {
        /// Its base URL.
        #[arg(long)]
        base_url: String,
        /// A PEM file of authorities that its certificate may be of, beside those that the system trusts.
        #[arg(long)]
        ca_file: Option<PathBuf>,
        /// Its name in the table.
        #[arg(long, default_value = "server")]
        name: String,
        /// Register with this shared secret rather than openly.
        #[arg(long)]
        shared_secret: Option<String>,
        /// Process ids of the server and its database, to measure CPU and memory; children count.
        #[arg(long, value_delimiter = ',')]
        pids: Vec<u32>,
        /// A folder on the server's disk, to measure its fsync.
        #[arg(long, default_value = ".")]
        disk: PathBuf,
        #[command(flatten)]
        load: Load,
    },
    /// Start homeservers and measure them side by side.
    Compare {
        /// Which.
        #[arg(
            long,
            value_enum,
            value_delimiter = ',',
            default_value = "comity-d1,comity-d0,synapse"
        )]
        servers: Vec<Kind>,
        /// Comity's binary, a release build.
        #[arg(long, default_value = "target/release/comity")]
        comity: PathBuf,
        /// Synapse's virtual environment, made when it isn't there [default: ~/.cache/comity/synapse].
        #[arg(long)]
        synapse: Option<PathBuf>,
        /// Where the servers keep their data while they run. On a real disk, and open to the user
        /// that PostgreSQL runs as. Removed at the end.
        #[arg(long, default_value = "/var/tmp/comity-bench")]
        data: PathBuf,
        #[command(flatten)]
        load: Load,
    },
    /// Kill Comity (SIGKILL) again and again while it is written to, and hold what it has against
    /// what it acknowledged.
    Kill {
        /// Comity's binary.
        #[arg(long, default_value = "target/debug/comity")]
        comity: PathBuf,
        /// Kills.
        #[arg(long, default_value_t = 20)]
        kills: usize,
        /// Writers.
        #[arg(long, default_value_t = 16)]
        writers: usize,
        /// Decides when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where the server keeps its data. Removed at the end, unless something was wrong.
        #[arg(long, default_value = "/var/tmp/comity-kill")]
        data: PathBuf,
    },
    /// Make the table and the plot from a record.
    Report {
        /// The record.
        #[arg(long, default_value = "target/bench.jsonl")]
        record: PathBuf,
        /// The page, whose part between the two marks is replaced.
        #[arg(long, default_value = "docs/benchmarks.md")]
        page: PathBuf,
        /// The plot.
        #[arg(long, default_value = "docs/benchmarks.svg")]
        plot: PathBuf,
    },
}

/// How much, of what, how often. The defaults are what Synapse gets through in minutes.
#[derive(Args)]
struct Load {
    /// The workloads' numbers.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,5,6,7,8,9,11", value_parser = parse_workload)]
    workloads: Vec<u8>,
    /// How often each server is measured.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Seconds each sending case lasts (W1, W2).
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rooms of the many-rooms case (W1).
    #[arg(long, default_value_t = 100)]
    send_rooms: usize,
    /// Syncing users, one case each (W2).
    #[arg(long, value_delimiter = ',', default_value = "200")]
    listeners: Vec<usize>,
    /// Waiting users of one room, one case each (W3).
    #[arg(long, value_delimiter = ',', default_value = "500")]
    waiting: Vec<usize>,
    /// Idle long-polls, one case each (W4). With a thousand, what a server happens to hold besides weighs as much.
    #[arg(long, value_delimiter = ',', default_value = "9500")]
    polls: Vec<usize>,
    /// Accounts over which the idle long-polls are spread (W4).
    #[arg(long, default_value_t = 500)]
    poll_accounts: usize,
    /// Rooms of the account in many rooms (W5).
    #[arg(long, default_value_t = 300)]
    account_rooms: usize,
    /// Users who sync for the first time, rooms that each is in, members of each room (W6).
    #[arg(long, default_value = "10x30x30", value_parser = parse_initial)]
    initial: (usize, usize, usize),
    /// Members of the rooms that are joined, one case each (W7).
    #[arg(long, value_delimiter = ',', default_value = "2000")]
    join_members: Vec<usize>,
    /// Events that other servers send, in each case (W8).
    #[arg(long, default_value_t = 2000)]
    ingest_pdus: usize,
    /// State entries of the rooms whose forks are resolved, one case each (W9).
    #[arg(long, value_delimiter = ',', default_value = "500,2000")]
    resolve_entries: Vec<usize>,
    /// Forks, and what each two disagree about, one case each (W9).
    #[arg(long, value_delimiter = ',', default_value = "2x20,10x20", value_parser = parse_forks)]
    forks: Vec<(usize, usize)>,
    /// Users whose keys are queried; their devices, two each, are sent to (W11).
    #[arg(long, default_value_t = 500)]
    key_users: usize,
    /// One-time keys claimed (W11).
    #[arg(long, default_value_t = 2000)]
    claims: usize,
    /// Decides the order of the servers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The record, appended to.
    #[arg(long, default_value = "target/bench.jsonl")]
    record: PathBuf,
}

fn parse_workload(text: &str) -> std::result::Result<u8, String> {
    let number = text.parse().ok().filter(|number| run::ALL.contains(number));
    number.ok_or_else(|| format!("not one of {:?}", run::ALL))
}

/// `USERSxROOMSxMEMBERS`.
fn parse_initial(text: &str) -> std::result::Result<(usize, usize, usize), String> {
    let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([users, rooms, members]) => Ok((*users, *rooms, *members)),
        _ => Err("not of the form 10x30x30".to_owned()),
    }
}

/// `FORKSxCONFLICTS`.
fn parse_forks(text: &str) -> std::result::Result<(usize, usize), String> {
    let numbers = text.split_once('x');
    let numbers =
        numbers.and_then(|(forks, conflicts)| Some((forks.parse().ok()?, conflicts.parse().ok()?)));
    numbers.ok_or_else(|| "not of the form 10x200".to_owned())
}

impl Load {
    fn plan(&self, tag: String) -> Plan {
        Plan {
            workloads: self.workloads.clone(),
            sizes: Sizes {
                seconds: self.seconds,
                send_rooms: self.send_rooms,
                listeners: self.listeners.clone(),
                waiting: self.waiting.clone(),
                polls: self.polls.clone(),
                poll_accounts: self.poll_accounts,
                account_rooms: self.account_rooms,
                initial: self.initial,
                join_members: self.join_members.clone(),
                ingest_pdus: self.ingest_pdus,
                resolve_entries: self.resolve_entries.clone(),
                forks: self.forks.clone(),
                key_users: self.key_users,
                claims: self.claims,
            },
            repeats: self.repeats,
            seed: self.seed,
            tag,
        }
    }
}

/// The time now from `date`, in a format of its own: the bench has no other use for a wall clock.
fn date(format: &str) -> Result<String> {
    let output = Command::new("date").args(["-u", format]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Lets this process and the servers it starts have as many sockets as the system allows: W4 asks for
/// tens of thousands. Past the limit W4 fails and the record says so.
fn raise_open_files() -> Result<()> {
    let own = std::process::id().to_string();
    let prlimit = |limit: &str| {
        Command::new("prlimit")
            .args(["--pid", &own, limit])
            .output()
    };
    if !prlimit("--nofile=200000:200000")?.status.success() {
        // Not ours to raise: then at least up to the hard limit.
        let limits = std::fs::read_to_string("/proc/self/limits")?;
        let hard = limits.lines().find_map(|line| {
            line.strip_prefix("Max open files")?
                .split_whitespace()
                .nth(1)
        });
        prlimit(&format!("--nofile={}:", hard.unwrap_or("unlimited")))?;
    }
    Ok(())
}

async fn perform(task: Task) -> Result<()> {
    let now = || date("+%Y-%m-%d %H:%M UTC");
    let tag = || Ok::<_, Error>(format!("bench{}", date("+%s")?));
    match task {
        Task::Run {
            base_url,
            ca_file,
            name,
            shared_secret,
            pids,
            disk,
            load,
        } => {
            let server = Elsewhere {
                base_url,
                ca_file,
                name,
                secret: shared_secret,
                pids,
                disk,
            };
            run::elsewhere(
                &load.plan(tag()?),
                server,
                &Recorder::append_to(&load.record)?,
                now()?,
            )
            .await
        }
        Task::Compare {
            servers,
            comity,
            synapse,
            data,
            load,
        } => {
            let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
            let synapse = synapse.unwrap_or_else(|| home.join(".cache/comity/synapse"));
            let data = data.join(tag()?);
            std::fs::create_dir_all(&data)?;
            let began_ms = date("+%s%3N")?;
            let began_ms = began_ms.parse().map_err(|_| Error::Program(began_ms))?;
            let remotes = Remotes::start(&data, began_ms).await?;
            let places = Places {
                comity: std::path::absolute(comity)?,
                synapse,
                authority: Some(remotes.authority().to_owned()),
                data,
            };
            let recorder = Recorder::append_to(&load.record)?;
            let bench = Bench {
                kinds: &servers,
                places: &places,
                remotes: &remotes,
            };
            run::side_by_side(&load.plan(tag()?), bench, &recorder, now()?).await
        }
        Task::Kill {
            comity,
            kills,
            writers,
            seed,
            data,
        } => {
            let data = data.join(tag()?);
            std::fs::create_dir_all(&data)?;
            let places = Places {
                comity: std::path::absolute(comity)?,
                synapse: PathBuf::new(),
                authority: None,
                data: data.clone(),
            };
            let plan = kill::Plan {
                kills,
                writers,
                seed,
            };
            kill::run(&places, plan).await?;
            Ok(std::fs::remove_dir_all(data)?)
        }
        Task::Report { record, page, plot } => report::write(&record::read(&record)?, &page, &plot),
    }
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    let done = raise_open_files().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(perform(task))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
