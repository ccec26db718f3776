//! `comity doctor`: what would keep the server from running well, before its users notice.

use std::{fs, io::Write, net::SocketAddr, path::Path, time::Duration};

use comity_media::BucketConfig;
use comity_runtime::Runtime;

use super::{Failure, print, serve};
use crate::{
    config::{Config, StorageEngine},
    house,
    http::Listener,
    keys::{self, Keys},
};

/// What a check found.
enum Finding {
    Good(String),
    /// The server runs, but not as it could.
    Doubtful(String),
    /// The server does not run.
    Bad(String),
}

use Finding::{Bad, Doubtful, Good};

/// Runs every check and prints each finding; fails when one of them is bad.
pub(super) fn doctor(config: Result<Config, Failure>) -> Result<(), Failure> {
    let config = match config {
        Ok(config) => config,
        Err(Failure(lines)) => {
            let findings: Vec<_> = lines
                .into_iter()
                .map(|line| ("configuration", Bad(line)))
                .collect();
            return report(&findings);
        }
    };
    let runtime = Runtime::system();
    let name = config.server_name.to_string();
    let mut findings = vec![
        ("configuration", Good(format!("for {name}"))),
        ("certificate", certificate(&config)),
        ("port", port(config.listen.client)),
    ];
    findings.extend(
        config
            .listen
            .federation
            .map(|address| ("port", port(address))),
    );
    findings.push(("open files", open_files()));
    findings.push(("clock", clock(runtime.clock().now_ms(), &config.data_dir)));
    findings.extend(
        disk(&config.data_dir, &runtime)
            .into_iter()
            .map(|finding| ("disk", finding)),
    );
    findings.push(("keys", own_keys(&config.data_dir)));
    findings.push(("store", store(&config, &runtime)));
    let bucket = house::bucket(&config.s3);
    findings.extend(bucket.map(|bucket| ("bucket", try_out(bucket, &runtime))));
    report(&findings)
}

fn report(findings: &[(&str, Finding)]) -> Result<(), Failure> {
    for (what, finding) in findings {
        let (mark, text) = match finding {
            Good(text) => ("ok   ", text),
            Doubtful(text) => ("doubt", text),
            Bad(text) => ("BAD  ", text),
        };
        print(&format!("{mark} {what}: {text}\n"))?;
    }
    match findings
        .iter()
        .filter(|(_, finding)| matches!(finding, Bad(_)))
        .count()
    {
        0 => Ok(()),
        bad => Err(Failure::new(format!(
            "the server would not run ({bad} of the checks are bad)"
        ))),
    }
}

fn certificate(config: &Config) -> Finding {
    match serve::tls(config) {
        Ok(Some(_)) => Good("certificate and key go together".to_owned()),
        Ok(None) => Good("none: connections are plain, TLS is a reverse proxy's".to_owned()),
        Err(Failure(lines)) => Bad(lines.join("; ")),
    }
}

fn port(address: SocketAddr) -> Finding {
    // tokio's sockets want a reactor around them.
    let bound = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .and_then(|reactor| {
            let _inside = reactor.enter();
            Listener::bind(address, None).map(drop)
        });
    match bound {
        Ok(()) => Good(format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Doubtful(format!("{address} is taken: by a running server?"))
        }
        Err(error) => Bad(format!("{address}: {error}")),
    }
}

fn open_files() -> Finding {
    match serve::open_files() {
        files if files < 4_096 => Doubtful(format!(
            "{files}, so {} connections at once: raise the limit (LimitNOFILE= in systemd)",
            files / 4 * 3
        )),
        files => Good(format!("{files}")),
    }
}

/// Makes none: the first start does.
fn own_keys(folder: &Path) -> Finding {
    match Keys::look(folder) {
        Ok(Some(key)) => Good(format!("signing with {key}")),
        Ok(None) => Good("none yet: the first start makes them".to_owned()),
        Err(error) => Bad(error),
    }
}

/// Opens what is there, and closes it again; takes no lane from a running server.
fn store(config: &Config, runtime: &Runtime) -> Finding {
    let folder = crate::store::folder(config);
    if config.storage.engine == StorageEngine::Rocksdb && !folder.exists() {
        return Good(format!(
            "none yet: the first start makes {}",
            folder.display()
        ));
    }
    match wait(crate::store::open(config, runtime)) {
        Err(error) => Bad(error.to_string()),
        Ok(Ok(_)) => Good("opens".to_owned()),
        // A server that runs has it, as it should.
        Ok(Err(error)) if matches!(port(config.listen.client), Doubtful(_)) => {
            Doubtful(error.to_string())
        }
        Ok(Err(error)) => Bad(error.to_string()),
    }
}

/// A server whose bucket can't be used runs, and has no files.
fn try_out(bucket: BucketConfig, runtime: &Runtime) -> Finding {
    match wait(comity_media::try_out(bucket, runtime)) {
        Err(error) => Bad(error.to_string()),
        Ok(Ok(())) => Good("keeps files, gives them and takes them away".to_owned()),
        Ok(Err(why)) => Doubtful(why),
    }
}

/// What comes of something that waits.
fn wait<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let mut reactor = tokio::runtime::Builder::new_current_thread();
    Ok(reactor.enable_all().build()?.block_on(work))
}

/// Matrix's signatures and tokens are dated.
fn clock(now_ms: u64, folder: &Path) -> Finding {
    const START_OF_2026: u64 = 1_767_225_600_000;
    const START_OF_2100: u64 = 4_102_444_800_000;
    /// As far as clocks may differ of which one was set.
    const LEEWAY_MS: u64 = 60_000;
    if !(START_OF_2026..START_OF_2100).contains(&now_ms) {
        return Bad("is years off: other servers would refuse what we sign".to_owned());
    }
    match newest_ms(folder).and_then(|newest| newest.checked_sub(now_ms)) {
        Some(ahead) if ahead > LEEWAY_MS => Bad(format!(
            "is behind by {} s or more, or was ahead: {} was written later than now",
            ahead / 1_000,
            folder.display()
        )),
        _ => Good("says a time that can be".to_owned()),
    }
}

/// When the newest file of the folder, or of one in it, was written, in milliseconds since 1970.
fn newest_ms(folder: &Path) -> Option<u64> {
    let below = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let files = below(folder).flat_map(|entry| below(&entry.path()).chain([entry]));
    let written = files.filter_map(|file| {
        let written = file.metadata().ok()?.modified().ok()?;
        let since = written.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    });
    written.max()
}

fn disk(folder: &Path, runtime: &Runtime) -> Vec<Finding> {
    let shown = folder.display();
    if let Err(error) = keys::make_folder(folder) {
        return vec![Bad(format!("cannot make {shown}: {error}"))];
    }
    let mut findings = Vec::new();
    findings.push(match rustix::fs::statvfs(folder) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
            let text = format!("{free} MiB free for {shown}");
            if free < 1_024 {
                Doubtful(text)
            } else {
                Good(text)
            }
        }
        Err(error) => Doubtful(format!("free space of {shown} is unknown: {error}")),
    });
    findings.push(match fsync(folder, runtime) {
        Ok(slowest) => {
            let text = format!(
                "a write is safe after {:.1} ms at most",
                slowest.as_secs_f64() * 1e3
            );
            if slowest > Duration::from_millis(50) {
                Doubtful(text)
            } else {
                Good(text)
            }
        }
        Err(error) => Bad(format!("cannot write in {shown}: {error}")),
    });
    findings
}

/// The slowest of a few small fsynced writes, what a message waits for.
fn fsync(folder: &Path, runtime: &Runtime) -> std::io::Result<Duration> {
    let path = folder.join(".doctor");
    let slowest = (|| {
        let mut file = fs::File::create(&path)?;
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let began = runtime.clock().monotonic();
            file.write_all(&[0; 4_096])?;
            file.sync_data()?;
            slowest = slowest.max(runtime.clock().monotonic().saturating_sub(began));
        }
        Ok(slowest)
    })();
    let _ = fs::remove_file(&path);
    slowest
}
