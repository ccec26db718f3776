//! `comity serve`: from a configuration to a running server, and down again in order.

use comity_runtime::Runtime;
use rustix::process::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::{
    config::Config,
    house,
    http::{self, Lifecycle, Limits, Listener, Phase, Proxies, Tls},
    log, operator,
};

/// Runs the server until it is asked to stop.
pub(super) fn serve(config: Config) -> Result<(), Failure> {
    log::start(&config.log).map_err(Failure::new)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::doing("cannot start the reactor"))?
        .block_on(run(config))
}

async fn run(config: Config) -> Result<(), Failure> {
    let runtime = Runtime::system();
    let limits = Limits {
        connections: config
            .listen
            .max_connections
            .unwrap_or_else(|| open_files() / 4 * 3)
            .max(1),
        upload_bytes: config.media.max_upload_bytes,
        ..Limits::default()
    };
    let lifecycle = Lifecycle::default();
    // Ports first: they fail soonest, and nothing has to be undone.
    let listeners = listeners(&config)?;
    // Port 0 is a free one of the system's choosing.
    let client = listeners.first().and_then(|first| first.address().ok());
    let client = client.unwrap_or(config.listen.client);
    let house = house::open(&config, &runtime).await.map_err(Failure::new)?;
    house.api.resume(&runtime);
    if let Err(error) = operator::serve(&config, &house, &runtime) {
        // Users are served all the same.
        tracing::warn!(%error, "`comity user` won't reach this server: its socket can't be made");
    }
    let router = house.router();
    stop_on_signal(&runtime, &lifecycle)?;

    lifecycle.advance(Phase::Ready);
    notify(&NotifyState::Ready);
    tracing::info!(
        server_name = %config.server_name,
        client = %client,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let proxies = Proxies::new(config.listen.trusted_proxies.clone());
    http::serve(listeners, router, limits, proxies, lifecycle, runtime).await;
    house.close().await.map_err(Failure::new)?;
    tracing::info!("stopped");
    Ok(())
}

fn listeners(config: &Config) -> Result<Vec<Listener>, Failure> {
    let tls = tls(config)?;
    let client = config.listen.client_tls.then(|| tls.clone()).flatten();
    let mut wanted = vec![("listen.client", config.listen.client, client)];
    if let Some(federation) = config.listen.federation {
        wanted.push(("listen.federation", federation, tls));
    }
    wanted
        .into_iter()
        .map(|(key, address, tls)| {
            Listener::bind(address, tls).map_err(Failure::doing(format!(
                "cannot listen on {address} ({key})"
            )))
        })
        .collect()
}

/// The certificate of `[listen]`, if there is one.
pub(super) fn tls(config: &Config) -> Result<Option<Tls>, Failure> {
    match (&config.listen.tls_cert, &config.listen.tls_key) {
        (Some(certificate), Some(key)) => {
            Tls::load(certificate, key).map(Some).map_err(Failure::new)
        }
        _ => Ok(None),
    }
}

/// Raises the number of files this process may open as far as it is allowed to, and says how far that is.
pub(super) fn open_files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            ..limit
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    // More than a million would only make the tables large.
    limit
        .current
        .map_or(1 << 20, |files| {
            usize::try_from(files).unwrap_or(usize::MAX)
        })
        .min(1 << 20)
}

fn stop_on_signal(runtime: &Runtime, lifecycle: &Lifecycle) -> Result<(), Failure> {
    let doing = "cannot listen for signals";
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::doing(doing))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::doing(doing))?;
    let lifecycle = lifecycle.clone();
    runtime.spawn("signals", async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: answering what has begun");
        notify(&NotifyState::Stopping);
        lifecycle.advance(Phase::Draining);
    });
    Ok(())
}

/// Tells systemd, if it started us.
fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}
