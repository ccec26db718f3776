//! Log lines on standard error, as text or as JSON; each with the fields of the request or task it belongs to.

use std::{io, panic};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Starts logging, and logs panics.
///
/// # Errors
/// When `log.level` can't be read, with the reason.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(&log.level)
        .map_err(|error| format!("log.level: {error}"))?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Text => lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .init(),
    }
    panic::set_hook(Box::new(|panic| {
        // Where, not what: the message may quote a user's words.
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(location, "a task panicked; please report this");
    }));
    Ok(())
}
