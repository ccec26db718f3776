//! Which endpoints of the specification a server has: each row of `endpoints.csv`, asked for.

use http::Method;
use serde::Deserialize;

use crate::client::Client;
use crate::spec;

/// The groups of the table that the server has, apart from [`LATER`].
pub const GROUPS: [&str; 20] = [
    "Account data & tags",
    "Account mgmt (password/3PID/deactivate/whoami)",
    "Devices & to-device",
    "Discovery & versions",
    "E2EE keys & cross-signing",
    "Key backup",
    "Legacy auth: login/SSO/logout/refresh",
    "Media (auth + legacy)",
    "Push rules/pushers/notifications",
    "Registration & tokens",
    "Relations & threads",
    "Reporting & admin (suspend/lock/whois)",
    "Room create/alias/membership/upgrade",
    "Room directory/summary/spaces/mutual",
    "Room events: state/messages/context/timestamp",
    "Send/redact",
    "Sync/filter/legacy sync",
    "Typing/receipts/read markers",
    "Users & profiles & presence",
    "VoIP/TURN, OpenID, 3rd-party networks",
];

/// Parts of paths in [`GROUPS`] that wait: third-party identifiers and networks, sign-in through others, push delivery, calls.
const LATER: [&str; 7] = [
    "/3pid",
    "/requestToken",
    "/login/sso/",
    "/v3/pushers/",
    "/v3/notifications",
    "/v3/thirdparty/",
    "/v3/voip/",
];

/// A row of `endpoints.csv`.
#[derive(Debug, Deserialize)]
pub struct Endpoint {
    api: String,
    group: String,
    method: String,
    path: String,
}

impl Endpoint {
    /// The method, in capitals.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The table's group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The method and the path's template.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether the server is to have it by now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        GROUPS.contains(&self.group.as_str()) && !LATER.iter().any(|part| self.path.contains(part))
    }

    /// The path with something plausible in the place of each parameter.
    #[must_use]
    pub fn filled(&self) -> String {
        let fill = |segment: &str| match segment {
            "{userId}" => "@probe:localhost".to_owned(),
            "{roomId}" | "{roomIdOrAlias}" => "!probe:localhost".to_owned(),
            "{roomAlias}" => "%23probe:localhost".to_owned(),
            "{eventId}" => "$probe".to_owned(),
            "{serverName}" => "localhost".to_owned(),
            "{receiptType}" => "m.read".to_owned(),
            "{relType}" => "m.thread".to_owned(),
            "{eventType}" | "{type}" => "m.room.message".to_owned(),
            "{kind}" => "override".to_owned(),
            "{keyName}" => "displayname".to_owned(),
            other => other.trim_matches(['{', '}']).to_owned(),
        };
        self.path.split('/').map(fill).collect::<Vec<_>>().join("/")
    }
}

/// All client-server endpoints, none without the specification's files.
///
/// # Panics
/// If the table is malformed.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    of("client-server")
}

/// All server-server endpoints, none without the specification's files.
///
/// # Panics
/// If the table is malformed.
#[must_use]
pub fn server_endpoints() -> Vec<Endpoint> {
    of("server-server")
}

fn of(api: &str) -> Vec<Endpoint> {
    if spec::get().is_none() {
        return Vec::new();
    }
    let table = spec::folder().join("endpoints.csv");
    csv::Reader::from_path(table)
        .expect("endpoints.csv opens")
        .into_deserialize()
        .map(|row| row.expect("endpoints.csv has its columns"))
        .filter(|row: &Endpoint| row.api == api)
        .collect()
}

/// The server has every endpoint that is due, and owns up to those that come later: they are `M_UNRECOGNIZED`.
///
/// # Panics
/// If one differs, or an answer is against the specification.
pub async fn assert_due_is_served(client: &Client) {
    let endpoints = endpoints();
    let mut due: Vec<String> = endpoints
        .iter()
        .filter(|it| it.is_due())
        .map(Endpoint::name)
        .collect();
    let mut served = served(client, &endpoints).await;
    due.sort();
    served.sort();
    let missing: Vec<_> = due.iter().filter(|name| !served.contains(name)).collect();
    let early: Vec<_> = served.iter().filter(|name| !due.contains(name)).collect();
    assert!(missing.is_empty(), "not served: {missing:#?}");
    assert!(
        early.is_empty(),
        "served, so say so in {}: {early:#?}",
        file!()
    );
}

/// Those of `endpoints` that the server does not answer as unknown, as `METHOD path`.
///
/// Each is asked with an empty object for a body, best by nobody: a user would soon be logged out. Every answer is
/// held against the specification.
///
/// # Panics
/// If an answer is against the specification.
pub async fn served(client: &Client, endpoints: &[Endpoint]) -> Vec<String> {
    let mut served = Vec::new();
    for endpoint in endpoints {
        let method: Method = endpoint.method.parse().expect("a method");
        let mut request = client.request(method.clone(), endpoint.filled());
        if method != Method::GET {
            request = request.json(serde_json::json!({}));
        }
        let answer = request.send().await;
        let unknown = matches!(answer.status.as_u16(), 404 | 405)
            && answer.body["errcode"] == "M_UNRECOGNIZED";
        if !unknown {
            served.push(endpoint.name());
        }
    }
    served
}

/// What isn't there is refused as
/// [the specification says](https://spec.matrix.org/v1.19/client-server-api/#api-standards): unknown paths by 404,
/// known ones asked in another method by 405, both `M_UNRECOGNIZED`.
///
/// # Panics
/// If one is not.
pub async fn assert_unknown_is_refused(client: &Client) {
    for path in [
        "/_matrix/unknown",
        "/_matrix/client/unknown",
        "/_matrix/client/v1/unknown",
        "/_matrix/client/v3/room/unknown",
        "/_matrix/federation/v1/unknown",
        "/_matrix/key/v2/unknown",
        "/_matrix/media/v3/unknown",
        "/unknown",
    ] {
        client.get(path).send().await.error(404, "M_UNRECOGNIZED");
    }
    for (method, path) in [
        (Method::PUT, "/_matrix/client/v3/login"),
        (Method::POST, "/_matrix/client/versions"),
        (Method::DELETE, "/_matrix/client/v3/sync"),
    ] {
        let answer = client.request(method, path).send().await;
        answer.error(405, "M_UNRECOGNIZED");
    }
}
