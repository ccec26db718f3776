//! Which endpoints of the specification a server has: each row of `endpoints.csv`, asked for.

use http::Method;
use serde::Deserialize;

use crate::client::Client;
use crate::spec;

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

/// The client-server endpoints of `groups` (as the file names them); all of them if it is empty. None without
/// the specification's files.
///
/// # Panics
/// If the file is malformed, or a group has no row.
#[must_use]
pub fn endpoints(groups: &[&str]) -> Vec<Endpoint> {
    if spec::get().is_none() {
        return Vec::new();
    }
    let rows =
        csv::Reader::from_path(spec::folder().join("endpoints.csv")).expect("endpoints.csv opens");
    let rows: Vec<Endpoint> = rows
        .into_deserialize()
        .map(|row| row.expect("endpoints.csv has its columns"))
        .filter(|row: &Endpoint| row.api == "client-server")
        .filter(|row| groups.is_empty() || groups.contains(&row.group.as_str()))
        .collect();
    for group in groups {
        assert!(
            rows.iter().any(|row| row.group == *group),
            "no group {group}"
        );
    }
    rows
}

/// Those of `endpoints` that the server answers as if it did not know them, as `METHOD path`.
///
/// Each is asked with `client`'s token and an empty object, and every answer is held against the specification.
///
/// # Panics
/// If an answer is against the specification.
pub async fn unserved(client: &Client, endpoints: &[Endpoint]) -> Vec<String> {
    let mut unserved = Vec::new();
    for endpoint in endpoints {
        let method: Method = endpoint.method.parse().expect("a method");
        let mut request = client.request(method.clone(), endpoint.filled());
        if method != Method::GET {
            request = request.json(serde_json::json!({}));
        }
        let answer = request.send().await;
        if matches!(answer.status.as_u16(), 404 | 405) && answer.body["errcode"] == "M_UNRECOGNIZED"
        {
            unserved.push(format!("{} {}", endpoint.method, endpoint.path));
        }
    }
    unserved
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
