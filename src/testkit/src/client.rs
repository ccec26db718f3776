//! A client whose every answer is held against the specification before the test sees it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use comity_protocol::{
    id::OwnedServerName,
    sign::{self, SigningKey},
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::Value;
use tower::ServiceExt;

use crate::spec;

/// Talks to a router in this process, as nobody, with an access token, or as another server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    router: Router,
    token: Option<String>,
    signer: Option<Signer>,
}

/// Signs requests as a server does.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>
#[derive(Clone)]
pub(crate) struct Signer {
    pub key: Arc<SigningKey>,
    pub origin: OwnedServerName,
    pub destination: OwnedServerName,
}

impl Signer {
    /// The `Authorization` of a request.
    pub fn authorise(&self, method: &Method, uri: &str, body: &[u8]) -> String {
        let method = method.as_str();
        let request = sign::Request { method, uri, body };
        self.key
            .authorise_request(&self.origin, &self.destination, request)
            .expect("a test's body is JSON")
    }
}

impl Client {
    /// A client of the server behind `router`, without a token.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self {
            router,
            token: None,
            signer: None,
        }
    }

    /// The same server, with `token` in every request.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self {
            router: self.router.clone(),
            token: Some(token.into()),
            signer: None,
        }
    }

    /// The same server, asked by another one.
    pub(crate) fn signing(self, signer: Signer) -> Self {
        Self {
            signer: Some(signer),
            ..self
        }
    }

    /// A request of any method. `path` may hold a query; its parts are percent-encoded already (see [`encode`]).
    pub fn request(&self, method: Method, path: impl Into<String>) -> Request {
        let mut request = Request {
            client: self.clone(),
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            events: true,
        };
        if let Some(token) = &self.token {
            request = request.token(token);
        }
        request
    }

    /// A GET request.
    pub fn get(&self, path: impl Into<String>) -> Request {
        self.request(Method::GET, path)
    }

    /// A POST request.
    pub fn post(&self, path: impl Into<String>) -> Request {
        self.request(Method::POST, path)
    }

    /// A PUT request.
    pub fn put(&self, path: impl Into<String>) -> Request {
        self.request(Method::PUT, path)
    }

    /// A DELETE request.
    pub fn delete(&self, path: impl Into<String>) -> Request {
        self.request(Method::DELETE, path)
    }
}

/// A request being built; [`send`](Self::send) sends it.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    events: bool,
}

impl Request {
    /// Sets the body, as JSON.
    pub fn json(self, body: impl Serialize) -> Self {
        let body = serde_json::to_vec(&body).expect("a test's body can be JSON");
        self.body(body, "application/json")
    }

    /// Sets the body, byte by byte, for what isn't JSON or isn't meant to be.
    pub fn body(mut self, body: impl Into<Bytes>, content_type: &str) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE, content_type)
    }

    /// Sets the access token, instead of the client's.
    pub fn token(self, token: &str) -> Self {
        self.header(header::AUTHORIZATION, &format!("Bearer {token}"))
    }

    /// Sets a header.
    pub fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        let value = value.parse().expect("a header's value is printable");
        self.headers.insert(name, value);
        self
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{joint}{name}={}", self.path, encode(value));
        self
    }

    /// Leaves the events in the answer unchecked, since their content is wrong on purpose. The answer is checked.
    pub fn unchecked_events(mut self) -> Self {
        self.events = false;
        self
    }

    /// Sends the request.
    ///
    /// # Panics
    /// If the answer is not one that the specification allows here.
    pub async fn send(self) -> Answer {
        let signed_body = self.body.clone();
        let mut request = http::Request::new(Body::from(self.body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().expect("a path is percent-encoded");
        *request.headers_mut() = self.headers;
        if let Some(signer) = self.client.signer
            && !request.headers().contains_key(header::AUTHORIZATION)
        {
            let header = signer.authorise(&self.method, &self.path, &signed_body);
            let header = header.parse().expect("a header's value is printable");
            request.headers_mut().insert(header::AUTHORIZATION, header);
        }
        let response = self.client.router.oneshot(request).await;
        let (parts, body) = response.expect("a router cannot fail").into_parts();
        let bytes = body
            .collect()
            .await
            .expect("the answer's body arrives")
            .to_bytes();
        let answer = Answer {
            what: format!("{} {}", self.method, self.path),
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            bytes,
        };
        answer.check(&self.method, &self.path, self.events);
        answer
    }
}

/// An answer that the specification allows.
#[derive(Debug)]
pub struct Answer {
    what: String,
    /// The HTTP status.
    pub status: StatusCode,
    /// The HTTP headers.
    pub headers: HeaderMap,
    /// The body as JSON; `null` if it is none.
    pub body: Value,
    /// The body as it came.
    pub bytes: Bytes,
}

impl Answer {
    /// The body of an answer that must be a success.
    ///
    /// # Panics
    /// If the status is not 200.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}: {}", self.what, self.body);
        self.body
    }

    /// The body of an answer that must be this error.
    ///
    /// # Panics
    /// If the status or the error code is another.
    pub fn error(self, status: u16, errcode: &str) -> Value {
        let (what, body) = (&self.what, &self.body);
        assert_eq!(self.status.as_u16(), status, "{what}: {body}");
        assert_eq!(body["errcode"], errcode, "{what}: {body}");
        self.body
    }

    fn check(&self, method: &Method, path: &str, events: bool) {
        if spec::get().is_none() {
            return;
        }
        let answer = (self.status.as_u16(), &self.bytes[..]);
        let mut violations = spec::violations((method.as_str(), path), answer, events);
        let is_json = serde_json::from_slice::<Value>(&self.bytes).is_ok();
        let kind = self.headers.get(header::CONTENT_TYPE);
        if is_json && kind.is_none_or(|kind| kind != "application/json") {
            violations.push(format!("JSON comes as application/json, not {kind:?}"));
        }
        assert!(
            violations.is_empty(),
            "{} answered {}, against the specification:\n  {}\nin {}",
            self.what,
            self.status,
            violations.join("\n  "),
            self.body
        );
    }
}

/// Percent-encodes one segment of a path, or a value of a query.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$'()*,;:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
