//! What the machine says: CPU and memory of a server's processes, the disk's fsync, the load.
//!
//! Linux only, from `/proc`: the server measures nothing of itself, so any server can be measured.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::stats::Latencies;

/// Kernel clock ticks a second, in which `/proc/PID/stat` counts: 100 on every Linux there is.
const TICKS: f64 = 100.0;

/// The processes of a server and its database: the roots and all their descendants.
#[derive(Clone, Debug, Default)]
pub struct Processes {
    roots: Vec<u32>,
}

/// What a process tree used at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU-seconds since the processes began, user and system, of dead children too.
    pub cpu_seconds: f64,
    /// Bytes of memory, pages shared within the tree counted once.
    pub memory_bytes: f64,
}

struct Stat {
    parent: u32,
    ticks: f64,
}

/// Reads what follows the command name, which is in parentheses and may hold spaces itself.
fn parse_stat(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        // utime, stime, cutime, cstime
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn all_processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((
                pid,
                parse_stat(&fs::read_to_string(entry.path().join("stat")).ok()?)?,
            ))
        })
        .collect()
}

/// The proportional share of a process's pages, or its resident ones where the kernel hides that.
fn memory_of(pid: u32) -> f64 {
    let kilobytes = |file: &str, field: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    kilobytes("smaps_rollup", "Pss:")
        .or_else(|| kilobytes("status", "VmRSS:"))
        .unwrap_or(0.0)
        * 1024.0
}

impl Processes {
    /// The trees under `roots`; with none, every usage is zero and nothing is reported of it.
    #[must_use]
    pub fn under(roots: Vec<u32>) -> Self {
        Self { roots }
    }

    /// Whether there is anything to measure.
    #[must_use]
    pub fn known(&self) -> bool {
        !self.roots.is_empty()
    }

    /// CPU-seconds and memory now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = self.cpu();
        usage.memory_bytes = self
            .members(&all_processes())
            .into_iter()
            .map(memory_of)
            .sum();
        usage
    }

    /// CPU-seconds now; cheaper than [`Self::usage`], its memory is zero.
    #[must_use]
    pub fn cpu(&self) -> Usage {
        let all = all_processes();
        let ticks: f64 = self
            .members(&all)
            .iter()
            .filter_map(|pid| all.get(pid))
            .map(|stat| stat.ticks)
            .sum();
        Usage {
            cpu_seconds: ticks / TICKS,
            memory_bytes: 0.0,
        }
    }

    fn members(&self, all: &BTreeMap<u32, Stat>) -> Vec<u32> {
        let below = |mut pid: u32| {
            // A process tree is never this deep; the bound is against a race with pid reuse.
            for _ in 0..64 {
                if self.roots.contains(&pid) {
                    return true;
                }
                match all.get(&pid) {
                    Some(stat) if stat.parent > 1 => pid = stat.parent,
                    _ => return false,
                }
            }
            false
        };
        all.keys().copied().filter(|pid| below(*pid)).collect()
    }

    /// Waits until the server has no more work of its own (under 5 % of a core for a second), at most
    /// a minute. Of a server whose processes aren't known it waits three seconds.
    pub async fn settle(&self) {
        if !self.known() {
            tokio::time::sleep(Duration::from_secs(3)).await;
            return;
        }
        let mut before = self.cpu().cpu_seconds;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.cpu().cpu_seconds;
            if now - before < 0.05 {
                return;
            }
            before = now;
        }
    }
}

/// Latency of a 4 kB append and fdatasync in `folder`: p50 and p99 in milliseconds, of 200.
///
/// # Errors
/// When the folder can't be written.
pub fn fsync_latency(folder: &Path) -> Result<(f64, f64)> {
    let path = folder.join("fsync-probe");
    let mut file = fs::File::create(&path)?;
    let mut latencies = Latencies::default();
    for _ in 0..200 {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        latencies.push(start.elapsed());
    }
    fs::remove_file(path)?;
    Ok((latencies.quantile_ms(0.5), latencies.quantile_ms(0.99)))
}

/// The load average of the last minute.
#[must_use]
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(0.0)
}

/// CPU model, number of cores and memory, in one line.
#[must_use]
pub fn description() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |line: &str| {
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
    };
    let models: Vec<String> = cpus
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(field)
        .collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes: f64 = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} × {}, {:.0} GiB, Linux {}",
        models.len(),
        models.first().map_or("unknown CPU", String::as_str),
        kilobytes / 1024.0 / 1024.0,
        kernel.split('-').next().unwrap_or_default().trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_parentheses_is_skipped() {
        let stat = parse_stat("42 (a (b) c) S 7 42 42 0 -1 4194304 1 2 3 4 100 50 20 10 20 0 1 0")
            .unwrap();
        assert_eq!(stat.parent, 7);
        assert_eq!(stat.ticks, 180.0);
    }

    #[test]
    fn a_tree_counts_its_children() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let own = Processes::under(vec![std::process::id()]);
        let all = all_processes();
        assert!(own.members(&all).contains(&child.id()));
        assert!(
            !Processes::under(vec![child.id()])
                .members(&all)
                .contains(&std::process::id())
        );
        assert!(own.usage().memory_bytes > 0.0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
