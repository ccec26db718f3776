//! What the remote servers answer.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Remotes, not_found};

/// How long what they publish of their keys holds: longer than any run.
const KEYS_HOLD_MS: u64 = 24 * 60 * 60 * 1000;
/// Events in an answer of `/get_missing_events` or `/backfill` at the most.
const MOST_EVENTS: usize = 100;

/// Serves one of them for as long as the bench runs.
pub(super) async fn serve(
    remotes: Remotes,
    origin: usize,
    listener: TcpListener,
    acceptor: TlsAcceptor,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (remotes, acceptor) = (remotes.clone(), acceptor.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| answer(&remotes, origin, request));
            // A connection that breaks is opened anew by whoever wants it.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    remotes: &Remotes,
    origin: usize,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let answer = to(remotes, origin, &path, query, &body.unwrap_or_default());
    let (status, body) = match answer {
        Some(body) => (StatusCode::OK, body),
        None => (StatusCode::NOT_FOUND, not_found().to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// The answer's text; `None` for what isn't there.
fn to(remotes: &Remotes, origin: usize, path: &str, query: &str, body: &[u8]) -> Option<String> {
    let parts: Vec<String> = path.split('/').skip(2).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let us = remotes.origin(origin).ok()?;
    let sent = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    match parts.as_slice() {
        ["key", "v2", "server", ..] => {
            let until = remotes.0.began_ms + KEYS_HOLD_MS;
            us.key.publish_keys(&us.name, &[], until).ok()
        }
        ["federation", "v1", "version"] => {
            Some(json!({"server": {"name": "comity-bench", "version": "1"}}).to_string())
        }
        ["federation", "v1", "send", _] => Some(json!({"pdus": {}}).to_string()),
        ["federation", "v1", "make_join", room, user] => {
            remotes.room(room)?.lock().join_template(user, &us.name)
        }
        ["federation", "v2", "send_join", room, event] => {
            let room = remotes.room(room)?;
            let mut room = room.lock();
            let omits = of(query, "omit_members").is_some_and(|omit| omit == "true");
            let answer = room.joined(&us.name, std::str::from_utf8(body).ok()?, omits);
            room.goes_on_from(event, body)?;
            Some(answer)
        }
        ["federation", "v1", "state", room] => Some(remotes.room(room)?.lock().state()),
        ["federation", "v1", "state_ids", room] => Some(remotes.room(room)?.lock().state_ids()),
        ["federation", "v1", "event_auth", room, event] => {
            remotes.room(room)?.lock().auth_of(event)
        }
        ["federation", "v1", "event", event] => {
            let found = remotes
                .rooms()
                .iter()
                .find_map(|room| room.lock().event(event).map(str::to_owned))?;
            let (name, ts) = (&us.name, remotes.0.began_ms);
            Some(format!(
                r#"{{"origin":"{name}","origin_server_ts":{ts},"pdus":[{found}]}}"#
            ))
        }
        ["federation", "v1", "get_missing_events", room] => {
            let sent = sent();
            let list = |key: &str| -> Vec<String> {
                let ids = sent
                    .get(key)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                ids.filter_map(|id| id.as_str().map(str::to_owned))
                    .collect()
            };
            let limit = sent.get("limit").and_then(Value::as_u64).unwrap_or(10);
            let limit = usize::try_from(limit)
                .unwrap_or(MOST_EVENTS)
                .min(MOST_EVENTS);
            let room = remotes.room(room)?;
            let room = room.lock();
            let events = room.between(&list("earliest_events"), &list("latest_events"), limit);
            Some(format!(r#"{{"events":[{}]}}"#, events.join(",")))
        }
        ["federation", "v1", "backfill", room] => {
            let limit = of(query, "limit").and_then(|limit| limit.parse().ok());
            let limit = limit.unwrap_or(MOST_EVENTS).min(MOST_EVENTS);
            let room = remotes.room(room)?;
            let room = room.lock();
            let events = room.before(&of(query, "v")?, limit);
            let (name, ts) = (&us.name, remotes.0.began_ms);
            Some(format!(
                r#"{{"origin":"{name}","origin_server_ts":{ts},"pdus":[{}]}}"#,
                events.join(",")
            ))
        }
        _ => None,
    }
}

/// A parameter of a query.
fn of(query: &str, key: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .map(|(_, value)| decode(value))
}

fn decode(part: &str) -> String {
    percent_encoding::percent_decode_str(part)
        .decode_utf8_lossy()
        .into_owned()
}
