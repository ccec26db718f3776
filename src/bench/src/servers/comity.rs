//! Comity as an operator would run it, but for the rate limits.

use std::fs;
use std::time::Duration;

use tokio::process::Command;

use super::{Places, Running, SERVER_NAME, log_file, output, ready};
use crate::error::{Error, Result};

pub(super) async fn start(
    places: &Places,
    folder: &str,
    fsync: bool,
    port: u16,
) -> Result<Running> {
    let folder = places.data.join(folder);
    fs::create_dir_all(&folder)?;
    let log = folder.join("log");
    let base_url = format!("http://127.0.0.1:{port}");
    let mut server = Command::new(&places.comity);
    if let Some(authority) = &places.authority {
        server
            .env("COMITY_OUTBOUND__EXTRA_CA_FILES", authority)
            .env("COMITY_OUTBOUND__ALLOW_PRIVATE_ADDRESSES", "true");
    }
    let mut server = server
        .arg("serve")
        .current_dir(&folder)
        .env("COMITY_SERVER_NAME", SERVER_NAME)
        .env("COMITY_PUBLIC_BASEURL", &base_url)
        .env("COMITY_DATA_DIR", folder.join("data"))
        .env("COMITY_LISTEN__CLIENT", format!("127.0.0.1:{port}"))
        .env("COMITY_REGISTRATION__OPEN", "true")
        .env("COMITY_LIMITS__ENABLED", "false")
        .env("COMITY_LOG__LEVEL", "warn")
        .env("COMITY_STORAGE__ENGINE", "rocksdb")
        .env("COMITY_STORAGE__SYNC", fsync.to_string())
        .stdout(log_file(&log)?)
        .stderr(log_file(&log)?)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::Program(format!("{}: {error}", places.comity.display())))?;
    ready(&base_url, &mut server, &log, Duration::from_secs(60)).await?;
    let version = output(&places.comity, &["--version"]).await?;
    Ok(Running {
        base_url,
        version,
        secret: None,
        children: vec![server],
    })
}
