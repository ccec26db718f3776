//! Configuration: one TOML file, each of its keys also as an environment variable `COMITY_SECTION__KEY`.
//!
//! [`settings`] declares every key once, with its default and its comment; from that come the types, the
//! environment's variables, the check for unknown keys, and `comity config reference`. What is written there
//! becomes a [`Config`] when it makes sense as a whole.

mod environment;
mod problem;
mod reference;
mod settings;

use std::path::{Path, PathBuf};

use comity_protocol::{id::OwnedServerName, room_version::RoomVersion};
use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};
use url::Url;

pub use problem::Problem;
pub use reference::reference;
use settings::{Entry, General, Settings};
pub use settings::{
    Federation, Limits, Listen, Log, LogFormat, Media, Outbound, Registration, Rooms, S3, Secret,
    Storage, StorageEngine, Support,
};

/// A configuration that makes sense as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name in every user and room id of this server; never changes.
    pub server_name: OwnedServerName,
    /// Where clients reach this server, `http(s)://host[:port][/path]`, without a slash at its end.
    pub public_baseurl: String,
    /// The folder of everything kept on this machine.
    pub data_dir: PathBuf,
    /// `[listen]`
    pub listen: Listen,
    /// `[federation]`
    pub federation: Federation,
    /// `[outbound]`
    pub outbound: Outbound,
    /// `[registration]`
    pub registration: Registration,
    /// `[limits]`
    pub limits: Limits,
    /// `[rooms]`
    pub rooms: Rooms,
    /// `[media]`
    pub media: Media,
    /// `[s3]`
    pub s3: S3,
    /// `[support]`
    pub support: Support,
    /// `[log]`
    pub log: Log,
    /// `[storage]`
    pub storage: Storage,
}

impl Config {
    /// Reads `file`, if one is named, and `environment` (pairs of name and value) over it.
    ///
    /// # Errors
    /// Every problem found, in the words of whoever has to solve it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let entries = settings::entries();
        let mut figment = Figment::from(Serialized::defaults(Settings::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(vec![Problem::new(format!(
                    "there is no file {}",
                    file.display()
                ))]);
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let (variables, mut problems) = environment::read(environment, &entries);
        figment = figment.merge(variables);
        problems.extend(problem::unknown_keys(&figment, &entries));
        if !problems.is_empty() {
            return Err(problems);
        }
        let general: General = figment.extract().map_err(problem::from_figment)?;
        let settings: Settings = figment.extract().map_err(problem::from_figment)?;
        Self::check(general, settings)
    }

    fn check(general: General, settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |text: &str| problems.push(Problem::new(text));
        if general.server_name.is_none() {
            problem(
                "server_name is not set: it stands in every user and room id, and never changes",
            );
        }
        let Listen {
            tls_cert, tls_key, ..
        } = &settings.listen;
        if tls_cert.is_some() != tls_key.is_some() {
            problem("listen.tls_cert and listen.tls_key belong together: one of them is missing");
        }
        if settings.listen.client_tls && tls_cert.is_none() {
            problem("listen.client_tls needs listen.tls_cert and listen.tls_key");
        }
        if settings.storage.engine == StorageEngine::Postgres && settings.storage.url.is_none() {
            problem("storage.engine is \"postgres\": set storage.url to the database");
        }
        if !settings.storage.lanes.is_power_of_two() || settings.storage.lanes > 64 {
            problem("storage.lanes is a power of two up to 64");
        }
        if RoomVersion::parse(&settings.rooms.default_version).is_none() {
            problem("rooms.default_version is a room version from \"1\" to \"12\"");
        }
        let S3 {
            bucket,
            endpoint,
            access_key_id,
            secret_access_key,
            ..
        } = &settings.s3;
        if bucket.is_some() && (access_key_id.is_none() || secret_access_key.is_none()) {
            problem("s3.bucket needs s3.access_key_id and s3.secret_access_key");
        }
        let endpoint = endpoint.as_deref().map(Url::parse);
        if endpoint
            .is_some_and(|url| !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https")))
        {
            problem("s3.endpoint is an address, https://host or http://host");
        }
        // Or what is fetched goes before it is read.
        if settings.media.max_cache_bytes / 2 < settings.media.max_remote_bytes {
            problem("media.max_cache_bytes is at least twice media.max_remote_bytes");
        }
        let public_baseurl = match (&general.public_baseurl, &general.server_name) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(name)) => format!("https://{name}"),
            (None, None) => String::new(),
        };
        let host = public_baseurl
            .strip_prefix("https://")
            .or_else(|| public_baseurl.strip_prefix("http://"));
        if general.public_baseurl.is_some() && host.is_none_or(str::is_empty) {
            problem("public_baseurl starts with https:// or http:// and names a host");
        }
        match general.server_name {
            Some(server_name) if problems.is_empty() => Ok(Self {
                server_name,
                public_baseurl,
                data_dir: general.data_dir,
                listen: settings.listen,
                federation: settings.federation,
                outbound: settings.outbound,
                registration: settings.registration,
                limits: settings.limits,
                rooms: settings.rooms,
                media: settings.media,
                s3: settings.s3,
                support: settings.support,
                log: settings.log,
                storage: settings.storage,
            }),
            _ => Err(problems),
        }
    }
}

/// The name of a key's environment variable.
fn variable(entry: &Entry) -> String {
    format!(
        "COMITY_{}",
        entry.path().replace('.', "__").to_ascii_uppercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("comity.toml");
        std::fs::write(&file, toml).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&file), environment).map_err(|problems| {
            problems
                .iter()
                .map(|problem| {
                    problem
                        .to_string()
                        .replace(&*file.to_string_lossy(), "FILE")
                })
                .collect::<Vec<_>>()
                .join("\n")
        })
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
        let config = load(
            "server_name = \"a.example\"\n[log]\nlevel = \"warn\"\n[storage]\nsync = false",
            &[
                ("COMITY_SERVER_NAME", "b.example:8448"),
                ("COMITY_LISTEN__CLIENT", "0.0.0.0:80"),
                ("COMITY_REGISTRATION__SHARED_SECRET", "007"),
                ("COMITY_OUTBOUND__EXTRA_CA_FILES", "/a.pem,/b.pem"),
                ("COMITY_LISTEN__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8"),
                ("COMITY_ROOMS__DEFAULT_VERSION", "10"),
                ("COMITY_LIMITS__ENABLED", "false"),
                ("COMITY_TEST_POSTGRES_URL", "not ours"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.server_name, "b.example:8448");
        assert_eq!(config.public_baseurl, "https://b.example:8448");
        assert_eq!(config.listen.client.to_string(), "0.0.0.0:80");
        assert_eq!(config.registration.shared_secret.unwrap().expose(), "007");
        assert_eq!(config.outbound.extra_ca_files.len(), 2);
        assert_eq!(config.listen.trusted_proxies.len(), 2);
        assert_eq!(config.rooms.default_version, "10");
        assert_eq!(config.log.level, "warn");
        assert!(!config.limits.enabled && !config.storage.sync);
        assert_eq!(config.data_dir, Path::new("./data"));
    }

    #[test]
    fn problems_name_the_place_and_the_way_out() {
        let name = "server_name = \"a.example\"\n";
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: &[Case<'_>] = &[
            ("", &[], "server_name is not set"),
            (
                "server_name = \"a\"\n[media]\nmax_cache_bytes = 0",
                &[],
                "media.max_cache_bytes is at least twice",
            ),
            (
                "servername = \"a\"",
                &[],
                "there is no key `servername` (in FILE): did you mean `server_name`?",
            ),
            (
                &format!("{name}[listen]\nclint = \"x\""),
                &[],
                "there is no key `listen.clint` (in FILE): did you mean `listen.client`?",
            ),
            (
                &format!("{name}[lsten]\nclient = \"x\""),
                &[],
                "did you mean `listen`?",
            ),
            (
                name,
                &[("COMITY_LISTEN__CLIENTS", "x")],
                "no variable COMITY_LISTEN__CLIENTS: did you mean COMITY_LISTEN__CLIENT?",
            ),
            (
                name,
                &[("COMITY_SERVERNAME", "x")],
                "did you mean COMITY_SERVER_NAME?",
            ),
            (
                name,
                &[("COMITY_STORAGE__SYNC", "maybe")],
                "COMITY_STORAGE__SYNC",
            ),
            (
                &format!("{name}[listen]\nclient = \"localhost\""),
                &[],
                "listen.client",
            ),
            (
                &format!("{name}[listen]\ntrusted_proxies = [\"nginx\"]"),
                &[],
                "is no network",
            ),
            (
                &format!("{name}[storage]\nengine = \"mysql\""),
                &[],
                "storage.engine",
            ),
            (
                &format!("{name}[storage]\nengine = \"postgres\""),
                &[],
                "storage.url",
            ),
            (
                &format!("{name}[rooms]\ndefault_version = \"13\""),
                &[],
                "default_version",
            ),
            (
                &format!("{name}[listen]\ntls_cert = \"a\""),
                &[],
                "belong together",
            ),
            (
                &format!("public_baseurl = \"a.example\"\n{name}"),
                &[],
                "public_baseurl starts with",
            ),
            ("server_name = \"a b\"", &[], "server_name"),
            ("server_name = ", &[], "FILE"),
        ];
        for (toml, environment, expected) in cases {
            let problem = load(toml, environment).unwrap_err();
            assert!(
                problem.contains(expected),
                "{toml:?} {environment:?}: {problem}"
            );
        }
    }

    /// A secret in the configuration is in no log (G14).
    #[test]
    fn secrets_do_not_print() {
        let config = load(
            "server_name = \"a\"\n[registration]\nshared_secret = \"canary\"\n[storage]\nurl = \"canary\"",
            &[],
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn the_reference_is_a_configuration_of_defaults() {
        let written: String = reference()
            .lines()
            .filter_map(|line| match line.strip_prefix('#') {
                Some(line) if line.starts_with(|c: char| c.is_ascii_lowercase()) => Some(line),
                Some(_) => None,
                None => Some(line),
            })
            .filter(|line| !line.ends_with('='))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = load(&written, &[("COMITY_SERVER_NAME", "a.example")]).unwrap();
        let defaults = load("", &[("COMITY_SERVER_NAME", "a.example")]).unwrap();
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
        for entry in settings::entries() {
            assert!(
                !entry.doc.is_empty() && reference().contains(entry.key),
                "{}",
                entry.path()
            );
        }
    }
}
