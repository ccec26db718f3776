//! What every request goes through before any endpoint sees it, and every answer on its way out.
//!
//! Gives the request an id that stands in each of its log lines and in the answer (`x-request-id`); refuses what is
//! compressed or too large before a byte of it is buffered; answers preflights and health checks; turns
//! a panic into a 500 that names the id.

use std::{
    convert::Infallible, fmt::Write, net::SocketAddr, panic::AssertUnwindSafe, pin::Pin, sync::Arc,
};

use axum::{body::Body, extract::ConnectInfo};
use futures_util::FutureExt;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    },
};
use hyper::body::Incoming;
use tower::ServiceExt;
use tracing::Instrument;

use super::{
    Phase, Shared,
    body::{Answer, Bounded, Broken, Verdict},
    patience::Activity,
};

/// The header that carries a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Takes a request in and answers it.
///
/// Thousands wait in here at a time. So the request is taken apart before anything waits: what comes after has
/// no room for it, where each function that it was handed through would have one of its own.
pub(super) fn enter(
    shared: Arc<Shared>,
    peer: SocketAddr,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send {
    // From this call on, not from the first poll: in between hyper may ask for more bytes.
    let under_way = activity.begin();
    let id = request_id(shared.runtime.random().u64());
    // The query is left out: it may hold an access token.
    let span = tracing::error_span!(
        parent: None, "request", id = %id, method = %request.method(), path = request.uri().path()
    );
    let peer = shared.proxies.client(peer, request.headers());
    let asked = span.in_scope(|| Asked::of(&shared, peer, request, under_way.is_ambiguous()));
    async move {
        let response = answer(&shared, asked, &id).instrument(span).await;
        let (mut parts, body) = response.into_parts();
        if let Ok(id) = HeaderValue::from_str(&id) {
            parts.headers.insert(REQUEST_ID, id);
        }
        cors(&mut parts.headers);
        Ok(Response::from_parts(parts, Answer::new(body, under_way)))
    }
}

async fn answer(shared: &Shared, asked: Asked, id: &str) -> Response<Body> {
    let began = shared.runtime.clock().monotonic();
    let response = asked.answer(id).await;
    let status = response.status().as_u16();
    let micros = shared
        .runtime
        .clock()
        .monotonic()
        .saturating_sub(began)
        .as_micros();
    if status >= 500 {
        tracing::warn!(status, micros, "answered");
    } else {
        tracing::debug!(status, micros, "answered");
    }
    response
}

/// Who answers.
enum Asked {
    /// We, at once.
    Ourselves(Box<Response<Body>>),
    /// An endpoint; `Err` where it panicked.
    Endpoint(
        Pin<Box<dyn Future<Output = Result<Response<Body>, Panicked>> + Send>>,
        Verdict,
    ),
}

struct Panicked;

impl Asked {
    fn of(shared: &Shared, peer: SocketAddr, request: Request<Incoming>, ambiguous: bool) -> Self {
        let refused = ambiguous
            .then(two_lengths)
            .or_else(|| refuse(shared, &request));
        if let Some(response) = refused.or_else(|| by_ourselves(shared, &request)) {
            return Self::Ourselves(Box::new(response));
        }
        let verdict = Verdict::default();
        let bounds = shared.limits.body_of(request.uri().path());
        let mut request = request.map(|body| {
            if hyper::body::Body::is_end_stream(&body) {
                Body::empty()
            } else {
                let gap = shared.limits.body_gap;
                Body::new(Bounded::new(body, bounds, gap, verdict.clone()))
            }
        });
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = AssertUnwindSafe(shared.router.clone().oneshot(request)).catch_unwind();
        let answering = answering.map(|answered| match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(never)) => match never {},
            // What it said was logged where it happened, under this request's id.
            Err(_) => Err(Panicked),
        });
        Self::Endpoint(Box::pin(answering), verdict)
    }

    async fn answer(self, id: &str) -> Response<Body> {
        let (answering, verdict) = match self {
            Self::Ourselves(response) => return *response,
            Self::Endpoint(answering, verdict) => (answering, verdict),
        };
        let response = answering.await.unwrap_or_else(|Panicked| panicked(id));
        match verdict.broken() {
            None => response,
            Some(Broken::TooLarge) => closing(too_large()),
            Some(Broken::TooSlow) => closing(error(
                StatusCode::REQUEST_TIMEOUT,
                "M_UNKNOWN",
                "The request's body took too long",
            )),
        }
    }
}

/// Requests that reach no endpoint whatever they ask for.
fn refuse(shared: &Shared, request: &Request<Incoming>) -> Option<Response<Body>> {
    let headers = request.headers();
    let compressed = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if compressed {
        return Some(closing(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "M_UNKNOWN",
            "Compressed request bodies are not accepted",
        )));
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let (most, _) = shared.limits.body_of(request.uri().path());
    (length > Some(most)).then(|| closing(too_large()))
}

/// Preflights, liveness and readiness.
fn by_ourselves(shared: &Shared, request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.method() == Method::OPTIONS {
        // https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
        return Some(status(StatusCode::NO_CONTENT));
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/_comity/live") => Some(status(StatusCode::OK)),
        (&Method::GET | &Method::HEAD, "/_comity/ready") => {
            Some(status(match shared.lifecycle.phase() {
                Phase::Ready => StatusCode::OK,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            }))
        }
        _ => None,
    }
}

fn panicked(id: &str) -> Response<Body> {
    error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "M_UNKNOWN",
        &format!("Internal server error; the operator finds its cause under {id}"),
    )
}

/// Whoever handed it on may have read it by the other length (G4).
fn two_lengths() -> Response<Body> {
    closing(error(
        StatusCode::BAD_REQUEST,
        "M_UNKNOWN",
        "The request tells the length of its body twice",
    ))
}

fn too_large() -> Response<Body> {
    error(
        StatusCode::PAYLOAD_TOO_LARGE,
        "M_TOO_LARGE",
        "The request's body is too large",
    )
}

/// The [standard error response](https://spec.matrix.org/v1.19/client-server-api/#standard-error-response).
pub fn error(code: StatusCode, errcode: &str, text: &str) -> Response<Body> {
    let body = serde_json::json!({ "errcode": errcode, "error": text });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// The connection's next bytes may be the rest of what was refused: it ends here.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>
fn cors(headers: &mut http::HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization"),
    );
}

/// Sixteen hexadecimal digits.
fn request_id(number: u64) -> String {
    let mut id = String::with_capacity(16);
    let _ = write!(id, "{number:016x}"); // a String takes everything
    id
}
