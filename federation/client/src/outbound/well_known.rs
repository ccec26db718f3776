//! `/.well-known/matrix/server`: where a name's server says it is.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>.

use std::time::Duration;

use bytes::Bytes;
use comity_protocol::id::{OwnedServerName, ServerName, is_reachable_name};
use http::{HeaderMap, Response, Uri, header};
use serde::Deserialize;

use super::{
    Outbound,
    dial::{Host, Target},
    discover::{Route, WellKnown, certificate_name},
};
use crate::transport::TransportError;

const PATH: &str = "/.well-known/matrix/server";
/// Threat G3: what is longer, leads on and on, or takes longer is none.
const MAX_BYTES: usize = 50 * 1024;
const REDIRECTS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer is kept: what it says, within these.
const DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST: Duration = Duration::from_secs(48 * 60 * 60);
const SHORTEST: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

impl Outbound {
    /// Asks a host, which may have a port (tests' have), and follows where it leads.
    pub(super) async fn ask_well_known(&self, authority: &str) -> WellKnown {
        match tokio::time::timeout(TIMEOUT, self.follow(authority)).await {
            Ok(Ok(answer)) => read(&answer),
            // The answer came, and was none.
            Ok(Err(TransportError::TooLarge | TransportError::Name)) => WellKnown::Absent,
            Ok(Err(_)) | Err(_) => WellKnown::Unknown,
        }
    }

    async fn follow(&self, authority: &str) -> Result<Response<Bytes>, TransportError> {
        let (mut authority, mut path) = (authority.to_owned(), PATH.to_owned());
        for _ in 0..=REDIRECTS {
            let route = route_of(&authority)?;
            let request = http::Request::get(&path)
                .header(header::HOST, &authority)
                .header(header::ACCEPT, "application/json")
                .body(Bytes::new())
                .map_err(|_| TransportError::Name)?;
            let name = <&ServerName>::try_from(authority.as_str());
            let name = name.map_err(|_| TransportError::Name)?;
            let connection = self.open(&route).await?;
            let answer = self.exchange(name, connection, request, MAX_BYTES).await;
            let (answer, _) = answer.map_err(|failed| failed.error)?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            (authority, path) = location(answer.headers(), &authority)?;
        }
        Err(TransportError::TooLarge)
    }
}

/// A redirect's authority and path: over TLS, as the first request was.
fn location(headers: &HeaderMap, from: &str) -> Result<(String, String), TransportError> {
    let location = headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok());
    let uri: Uri = location
        .and_then(|location| location.parse().ok())
        .ok_or(TransportError::Name)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match (uri.scheme_str(), uri.authority()) {
        (Some("https"), Some(authority)) => Ok((authority.to_string(), path.to_owned())),
        (None, None) if path.starts_with('/') && !path.starts_with("//") => {
            Ok((from.to_owned(), path.to_owned()))
        }
        _ => Err(TransportError::Name),
    }
}

/// An HTTPS server as URLs name it.
fn route_of(authority: &str) -> Result<Route, TransportError> {
    let name = OwnedServerName::try_from(authority).map_err(|_| TransportError::Name)?;
    if !is_reachable_name(&name) {
        return Err(TransportError::Name);
    }
    let literal = name.host().trim_start_matches('[').trim_end_matches(']');
    let host = literal
        .parse()
        .map_or_else(|_| Host::Name(literal.to_owned()), Host::Ip);
    Ok(Route {
        host: authority.to_owned(),
        name: certificate_name(literal)?,
        targets: vec![Target {
            host,
            port: name.port().unwrap_or(443),
        }],
    })
}

fn read(answer: &Response<Bytes>) -> WellKnown {
    let status = answer.status();
    if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
        return WellKnown::Unknown;
    }
    let body = (status == http::StatusCode::OK)
        .then(|| serde_json::from_slice::<Body>(answer.body()).ok())
        .flatten();
    match body {
        Some(body) if is_reachable_name(&body.server) => {
            WellKnown::Delegates(body.server, lifetime(answer.headers()))
        }
        Some(_) | None => WellKnown::Absent,
    }
}

fn lifetime(headers: &HeaderMap) -> Duration {
    let control = headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok());
    let mut lifetime = DEFAULT;
    for directive in control.unwrap_or_default().split(',').map(str::trim) {
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            lifetime = seconds.parse().map_or(DEFAULT, Duration::from_secs);
        } else if matches!(directive, "no-cache" | "no-store") {
            lifetime = SHORTEST;
            break;
        }
    }
    lifetime.clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, cache: &str, body: &'static str) -> WellKnown {
        let answer = Response::builder()
            .status(status)
            .header(header::CACHE_CONTROL, cache);
        read(&answer.body(Bytes::from_static(body.as_bytes())).unwrap())
    }

    #[test]
    fn what_an_answer_says_and_for_how_long() {
        let to = |seconds| {
            let server = OwnedServerName::try_from("a:1").unwrap();
            WellKnown::Delegates(server, Duration::from_secs(seconds))
        };
        let good = r#"{"m.server":"a:1"}"#;
        assert_eq!(answer(200, "public", good), to(86_400));
        assert_eq!(answer(200, "public, max-age=3600", good), to(3600));
        assert_eq!(answer(200, "max-age=0", good), to(300));
        assert_eq!(answer(200, "max-age=99999999", good), to(172_800));
        assert_eq!(answer(200, "max-age=x", good), to(86_400));
        assert_eq!(answer(200, "no-store", good), to(300));
        assert_eq!(answer(404, "", good), WellKnown::Absent);
        assert_eq!(answer(503, "", good), WellKnown::Unknown);
        for bad in [
            "",
            "{",
            "{}",
            r#"{"m.server":1}"#,
            r#"{"m.server":"a@b"}"#,
            r#"{"m.server":"a."}"#,
        ] {
            assert_eq!(answer(200, "", bad), WellKnown::Absent, "{bad}");
        }
    }

    #[test]
    fn redirects_stay_with_tls() {
        let location = |to: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, to.parse().unwrap());
            location(&headers, "from:9").map(|(authority, path)| format!("{authority} {path}"))
        };
        assert_eq!(location("https://b/c?d").unwrap(), "b /c?d");
        assert_eq!(location("https://b:8").unwrap(), "b:8 /");
        assert_eq!(location("/c").unwrap(), "from:9 /c");
        for bad in ["http://b/c", "ftp://b", "//b/c", "b", "c/d"] {
            assert!(location(bad).is_err(), "{bad}");
        }
        assert!(route_of("user@b").is_err());
    }
}
