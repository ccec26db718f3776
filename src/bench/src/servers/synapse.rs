//! Synapse from PyPI as one process on PostgreSQL, its rate limits, metrics and presence off.
//!
//! Passwords are hashed cheaply, as no workload measures logins; everything else is its default.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::postgres::{self, USER};
use super::{Places, Running, SERVER_NAME, log_file, output, ready};
use crate::error::{Error, Result};

pub(super) async fn start(places: &Places, port: u16) -> Result<Running> {
    let python = install(&places.synapse).await?;
    let folder = places.data.join("synapse");
    let database = folder.join("postgres");
    fs::create_dir_all(&folder)?;
    let (postgres, postgres_version) = postgres::start(&database).await?;
    let listed = "SELECT 1 FROM pg_database WHERE datname = 'synapse'";
    if postgres::sql(&database, "postgres", listed)
        .await?
        .is_empty()
    {
        postgres::sql(&database, "postgres", "CREATE DATABASE synapse").await?;
    }
    let log = folder.join("log");
    let settings = folder.join("homeserver.yaml");
    fs::write(folder.join("logging.yaml"), LOGGING)?;
    fs::write(
        &settings,
        configuration(&folder, &database, places.authority.as_deref(), port),
    )?;
    let module = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new(&python);
        command
            .args(["-m", "synapse.app.homeserver", "-c"])
            .arg(&settings)
            .args(arguments)
            .current_dir(&folder);
        command
            .stdout(log_file(&log)?)
            .stderr(log_file(&log)?)
            .kill_on_drop(true);
        Ok(command)
    };
    if !folder.join("signing.key").exists()
        && !module(&["--generate-keys"])?.status().await?.success()
    {
        return Err(Error::Program(format!(
            "Synapse makes no keys; see {}",
            log.display()
        )));
    }
    let mut server = module(&[])?.spawn()?;
    let base_url = format!("http://127.0.0.1:{port}");
    ready(&base_url, &mut server, &log, Duration::from_secs(180)).await?;
    let version = output(
        &python,
        &[
            "-c",
            "import synapse; print('Synapse', synapse.__version__)",
        ],
    )
    .await?;
    Ok(Running {
        base_url,
        version: format!("{version}, {postgres_version}"),
        secret: Some("bench".to_owned()),
        children: vec![server, postgres],
    })
}

/// Gives the virtual environment's Python, made and filled first where it isn't there.
async fn install(folder: &Path) -> Result<std::path::PathBuf> {
    let python = folder.join("bin/python");
    if output(&python, &["-c", "import synapse, psycopg2"])
        .await
        .is_err()
    {
        output("python3", &["-m", "venv", &folder.display().to_string()]).await?;
        output(
            &python,
            &[
                "-m",
                "pip",
                "install",
                "--quiet",
                "matrix-synapse",
                "psycopg2-binary",
            ],
        )
        .await?;
    }
    Ok(python)
}

const LOGGING: &str = "version: 1
handlers: {console: {class: logging.StreamHandler}}
root: {level: WARNING, handlers: [console]}
disable_existing_loggers: false
";

fn configuration(folder: &Path, database: &Path, authority: Option<&Path>, port: u16) -> String {
    let (folder, database) = (folder.display(), database.display());
    let never = "{per_second: 1000000, burst_count: 1000000}";
    let authorities: Vec<&Path> = authority.into_iter().collect();
    format!(
        "server_name: {SERVER_NAME}
public_baseurl: http://127.0.0.1:{port}/
report_stats: false
enable_metrics: false
presence: {{enabled: false}}
trusted_key_servers: []
registration_shared_secret: bench
bcrypt_rounds: 4
signing_key_path: {folder}/signing.key
media_store_path: {folder}/media
pid_file: {folder}/pid
log_config: {folder}/logging.yaml
listeners:
  - {{port: {port}, type: http, bind_addresses: [127.0.0.1], resources: [{{names: [client, federation]}}]}}
database:
  name: psycopg2
  args: {{host: {database}, user: {USER}, dbname: synapse, cp_min: 5, cp_max: 10}}
rc_message: {never}
rc_registration: {never}
rc_joins: {{local: {never}, remote: {never}}}
rc_joins_per_room: {never}
rc_room_creation: {never}
federation_custom_ca_list: {authorities:?}
ip_range_blacklist: []
federation_rr_transactions_per_room_per_second: 1000000
rc_federation: {{window_size: 1000, sleep_limit: 1000000, sleep_delay: 0, reject_limit: 1000000, concurrent: 1000}}
rc_login: {{address: {never}, account: {never}, failed_attempts: {never}}}
rc_invites: {{per_room: {never}, per_user: {never}, per_issuer: {never}}}
"
    )
}
